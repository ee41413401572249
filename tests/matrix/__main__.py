"""`python -m tests.matrix`: the whole matrix; `--write`: the table of refusals into the docs."""

from __future__ import annotations

import argparse
import itertools
import sys
import time

from .cases import GRADIENTS, GROUPS, STEPPINGS, Case
from .page import write
from .walk import compiled, everything, faults


def main() -> int:
    """Exit status 1 where a combination is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/refusals.md's table")
    parser.add_argument("--options", type=int, default=1, help="most options at once (2: half an hour)")
    parser.add_argument("--stepping", choices=(*STEPPINGS, GROUPS))
    parser.add_argument("--gradient", choices=tuple(GRADIENTS))
    asked = parser.parse_args()
    if asked.write:
        write()
        return 0
    wrong = 0
    for stepping, gradient in itertools.product((*STEPPINGS, GROUPS), GRADIENTS):
        if asked.stepping not in (None, stepping) or asked.gradient not in (None, gradient):
            continue
        begin = time.process_time()
        found = faults(everything(stepping, gradient, asked.options), most=40)
        print(
            f"{stepping}, {gradient}: {len(found)} faults, {time.process_time() - begin:.0f} CPU s",
            flush=True,
        )
        for line in found:
            print(f"  {line}", flush=True)
        wrong += len(found)
        whole: list[Case] = []
        found = faults(compiled(stepping, gradient), most=40, whole=whole)
        print(f"  with compile=True: {len(found)} faults, {len(whole)} made as whole solves", flush=True)
        for line in found:
            print(f"  {line}", flush=True)
        wrong += len(found)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
