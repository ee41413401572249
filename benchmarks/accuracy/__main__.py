"""``python -m benchmarks.accuracy``: measures all and writes docs/accuracy.md."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch

from .measurements import Measurements
from .page import page

TARGET = Path(__file__).parents[2] / "docs" / "accuracy.md"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("--out", type=Path, default=TARGET, help="the page to write (default: %(default)s)")
    parser.add_argument(
        "--keep",
        type=Path,
        help="a JSON file in which each line is kept once measured; an interrupted run goes on from there. "
        "Measured by other code it is worth nothing: remove it after a change.",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # states are small: more threads only wait for each other
    begin = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - begin:6.0f} s  {what}", flush=True)

    text = page(Measurements(arguments.keep), say)
    scratch = arguments.out.with_name(f"{arguments.out.name}.{os.getpid()}.tmp")
    with scratch.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    scratch.replace(arguments.out)
    say(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
