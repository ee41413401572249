"""``python -m benchmarks.accuracy``: measures all and writes docs/accuracy.md."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import torch

from adamode.verify.published import PublishedReport, verify_published

from .measurements import Measurements
from .page import page, with_published

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
    parser.add_argument(
        "--published",
        type=Path,
        help="what `adamode verify --suite published --json FILE` wrote: its section alone is written anew.",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # states are small: more threads only wait for each other
    begin = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - begin:6.0f} s  {what}", flush=True)

    if arguments.published is None:
        text = page(Measurements(arguments.keep), verify_published(say=say), say)
    else:
        found = PublishedReport.from_dict(json.loads(arguments.published.read_text(encoding="utf-8")))
        text = with_published(arguments.out.read_text(encoding="utf-8"), found)
    scratch = arguments.out.with_name(f"{arguments.out.name}.{os.getpid()}.tmp")
    with scratch.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    scratch.replace(arguments.out)
    say(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
