"""`python -m tests.fuzz --seed S --cases N`, or `--case K` for one."""

from __future__ import annotations

import argparse
import collections
import sys
import time

import torch

from .alphabet import COMPILED, draw
from .judge import Verdict, judge
from .shrink import shrunk


def main() -> int:
    """0 where nothing was wrong and nothing crashed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--case", type=int, help="one case alone")
    parser.add_argument("--ratios", action="store_true", help="also the largest errors ÷ their bounds")
    parser.add_argument("--compiled", choices=COMPILED, help="every case so; else drawn")
    given = parser.parse_args()
    torch.set_num_threads(1)
    numbers = [given.case] if given.case is not None else range(given.first, given.first + given.cases)
    counts: collections.Counter[str] = collections.Counter()
    tried: collections.Counter[str] = collections.Counter()
    ratios: dict[str, list[tuple[float, int]]] = {}
    started = time.process_time()
    for number in numbers:
        case = draw(given.seed, number, given.compiled)
        verdict = judge(case)
        counts[verdict.kind if verdict.kind != "refused" else f"refused: {verdict.what}"] += 1
        tried[verdict.tried] += 1
        for name, value in verdict.ratios.items():
            ratios.setdefault(name, []).append((value, number))
        if not verdict.fine:
            _show(given, number, verdict)
        if given.case is not None:
            print(case, verdict, sep="\n")
            if not verdict.fine:
                small, why = shrunk(case)
                print(f"shrunk: {small}\n  {why.kind}: {why.what}")
    for kind, count in sorted(counts.items()):
        print(f"{count:6d}  {kind}")
    print(f"{tried['made']:6d}  made as whole solves, {tried['stranded']} tried so in vain")
    print(f"{time.process_time() - started:8.1f}  CPU seconds")
    if given.ratios:
        for name, found in sorted(ratios.items()):
            top = ", ".join(f"{value:.2g} ({number})" for value, number in sorted(found)[::-1][:5])
            print(f"{name:10s} {len(found):6d}  {top}")
    return 1 if counts["wrong"] or counts["crashed"] else 0


def _show(given: argparse.Namespace, number: int, verdict: Verdict) -> None:
    more = "" if given.compiled is None else f" --compiled {given.compiled}"
    command = f"python -m tests.fuzz --seed {given.seed} --case {number}{more}"
    print(f"{verdict.kind}: {command}\n    {verdict.what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
