"""Where a run stands, what it hands out after an epoch, and what it returns."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from torch import nn

from .metrics import EpochSums, count_parameters, efficacy
from .runs import RunFolder

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class EpochRecord:
    """What ``on_epoch`` gets: the run's folder, the new row of metrics, all rows so far."""

    folder: RunFolder
    row: Row
    history: tuple[Row, ...]


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """A finished run.

    folder: where it is kept.  history: its rows of metrics.  test_loss, test_accuracy: of the
    weights with the best validation accuracy, which is ``best_epoch``'s.  nfe_forward: mean of the
    test pass.  nfe_backward: mean of the last training epoch.  efficacy_forward,
    efficacy_backward: test accuracy ÷ these; None where nothing is solved.  parameters: trained
    ones.  trained: False if the run was finished already and was only read.
    """

    folder: Path
    history: tuple[Row, ...]
    test_loss: float
    test_accuracy: float
    nfe_forward: float
    nfe_backward: float
    efficacy_forward: float | None
    efficacy_backward: float | None
    parameters: int
    best_epoch: int
    trained: bool


@dataclasses.dataclass
class Position:
    """Where a run stands; with weights, optimiser and generators this is its whole state."""

    epoch: int = 0  # finished epochs
    batch: int = 0  # finished optimiser steps of the epoch under way
    sums: EpochSums = dataclasses.field(default_factory=EpochSums)  # of the epoch under way
    history: list[Row] = dataclasses.field(default_factory=list)
    best: dict[str, Any] | None = None  # epoch, val_accuracy, val_loss, model (weights)
    final: Row | None = None  # of a finished run

    def end_epoch(self, val: EpochSums, memory: float | None) -> bool:
        """Adds the epoch's row; returns whether it is the best so far on the validation set.

        The best has the highest accuracy, then the lowest loss.
        """
        self.epoch += 1
        row = {
            "epoch": self.epoch,
            "train_loss": self.sums.mean("loss"),
            "train_accuracy": self.sums.accuracy,
            "val_loss": val.mean("loss"),
            "val_accuracy": val.accuracy,
            "nfe_forward": self.sums.mean("nfe_forward"),
            "nfe_backward": self.sums.mean("nfe_backward"),
            "seconds": self.sums.seconds,
            "peak_memory_mib": memory,
        }
        self.history.append(row)
        self.batch, self.sums = 0, EpochSums()
        return self.best is None or _merit(row) > _merit(self.best)

    def keep_best(self, weights: dict[str, Any]) -> None:
        """Takes the last epoch's ``weights`` (a copy that nobody changes) for the best."""
        row = self.history[-1]
        kept = {key: row[key] for key in ("epoch", "val_accuracy", "val_loss")}
        self.best = {**kept, "model": weights}

    def finish(self, test: EpochSums, model: nn.Module) -> None:
        """Fills ``final`` from the test pass of the best weights."""
        forward, backward = test.mean("nfe_forward"), self.history[-1]["nfe_backward"]
        self.final = {
            "test_loss": test.mean("loss"),
            "test_accuracy": test.accuracy,
            "nfe_forward": forward,
            "nfe_backward": backward,
            "efficacy_forward": efficacy(test.accuracy, forward),
            "efficacy_backward": efficacy(test.accuracy, backward),
            "parameters": count_parameters(model),
            "best_epoch": self.best["epoch"],
        }

    def result(self, folder: RunFolder, *, trained: bool) -> TrainResult:
        """The result of a finished run."""
        return TrainResult(folder.path, tuple(self.history), **self.final, trained=trained)

    def to_checkpoint(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "sums"
        } | {"sums": dataclasses.asdict(self.sums)}

    @classmethod
    def from_checkpoint(cls, state: dict[str, Any]) -> Position:
        """The position that `to_checkpoint` wrote into a checkpoint's state."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: state[name] for name in names} | {"sums": EpochSums(**state["sums"])})


def _merit(row: Row) -> tuple[float, float]:
    return row["val_accuracy"], -row["val_loss"]
