"""A training run that kills itself with SIGKILL at a chosen moment; in a process that the tests fork.

moment: "half-written" (half of a checkpoint's bytes are in its file), "before-rename" (complete,
not yet under its name), "before-metrics" (checkpoint new, metrics old). number: which checkpoint
(or, for before-metrics, which metrics file), counted from 0.
"""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path

from standin import build_standin

import adamode.solvers.write_aside as module
from adamode.train import TrainConfig, Trainer

SETTINGS = {"epochs": 3, "batch_size": 64, "lr": 0.01, "checkpoint_every": 7, "name": "run"}


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class HalfFile(io.FileIO):
    """Takes half of what it is given, then strikes."""

    def write(self, data: bytes) -> int:
        super().write(data[: len(data) // 2])
        kill()
        return 0


class Armed:
    """Counts the writes of one file and strikes in the chosen one."""

    def __init__(self, moment: str, number: int):
        self.moment, self.left = moment, number
        self.target = "metrics.jsonl" if moment == "before-metrics" else "checkpoint.pt"

    def open(self, path: Path, mode: str) -> io.IOBase:
        if self.target in Path(path).name:
            self.left -= 1
            if self.left < 0 and self.moment == "before-metrics":
                kill()
            if self.left < 0 and self.moment == "half-written":
                return HalfFile(path, mode)
            if self.left < 0 and self.moment == "before-rename":
                os.replace = lambda source, target: kill()
        return open(path, mode)


def main(folder: str, moment: str, number: int) -> None:
    armed = Armed(moment, number)
    module.open = armed.open  # shadows the builtin inside write_aside
    Trainer(TrainConfig(output_dir=folder, **SETTINGS), build=build_standin, quiet=True).fit()
