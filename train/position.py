"""Where a run stands, what it hands out after an epoch, and what it returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..solvers.checks import check_call
from .data import DataSet
from .measures import MEASURES, Measure
from .metrics import count_parameters, efficacy
from .objective import Objective
from .runs import RunFolder
from .step import EpochSums

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class EpochRecord:
    """The argument of ``on_epoch``.

    folder: the run's.
    row: the new row of metrics.
    history: all rows so far.
    model: as it is now; it must not be changed.
    data: the run's.
    """

    folder: RunFolder
    row: Row
    history: tuple[Row, ...]
    model: nn.Module
    data: DataSet


Listener = Callable[[EpochRecord], None]


def checked_listener(on_epoch: Listener | None) -> Listener | None:
    """``on_epoch``; ArgumentTypeError where it cannot be called with a record."""
    if on_epoch is not None:
        check_call(on_epoch, "on_epoch", "on_epoch(record)", objects=True)
    return on_epoch


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """A finished run.

    folder: where it is kept.
    history: its rows of metrics.
    best_epoch: the best one in validation.
    test_loss: of the weights that were best in validation, which are those of ``best_epoch``.
    test_accuracy, test_rmse, test_nats, test_bits_per_dim: of the same weights, for classes, for values,
        for densities of points and of images; the others are None.
    nfe_forward: mean of the test pass.
    nfe_backward: mean of the last training epoch.
    efficacy_forward, efficacy_backward: test accuracy ÷ these; None where nothing is solved.
    parameters: trained ones.
    more_tests: the quality on the data set's further test sets.
    trained: False if the run was finished already and was only read.
    """

    folder: Path
    history: tuple[Row, ...]
    test_loss: float
    test_accuracy: float | None
    test_rmse: float | None
    test_nats: float | None
    test_bits_per_dim: float | None
    nfe_forward: float
    nfe_backward: float
    efficacy_forward: float | None
    efficacy_backward: float | None
    parameters: int
    best_epoch: int
    more_tests: dict[str, float]
    trained: bool

    @property
    def quality(self) -> Measure:
        """The kind of quality that was tested."""
        return next(m for m in MEASURES.values() if getattr(self, f"test_{m.name}") is not None)

    @property
    def value(self) -> float:
        """The value of that quality in the test."""
        value: float = getattr(self, f"test_{self.quality.name}")
        return value


@dataclasses.dataclass
class Position:
    """Where a run stands; with weights, optimiser and generators this is its whole state."""

    epoch: int = 0  # finished epochs
    batch: int = 0  # finished optimiser steps of the epoch under way
    dt: float | None = None  # with hand_on_dt: the next batch's first |dt|
    sums: EpochSums = dataclasses.field(default_factory=EpochSums)  # of the epoch under way
    history: list[Row] = dataclasses.field(default_factory=list)
    best: dict[str, Any] | None = None  # epoch, val_loss, the quality (val_accuracy …), model (weights)
    final: Row | None = None  # of a finished run

    def end_epoch(
        self, val: EpochSums, memory: float | None, objective: Objective, *, test: EpochSums | None = None
    ) -> bool:
        """Adds the epoch's row; returns whether it is the best so far on the validation set.

        test: sums of the test set, where it is measured after every epoch.

        The best has the best quality (accuracy, error, likelihood), then the lowest loss. The epoch's
        efficacies are validation accuracy ÷ NFE of training, forward and backward.
        """
        self.epoch += 1
        q = objective.quality
        accuracy = objective.measure(val) if q == "accuracy" else None
        forward, backward = self.sums.mean("nfe_forward"), self.sums.mean("nfe_backward")
        row = {
            "epoch": self.epoch,
            "train_loss": self.sums.mean("loss"),
            f"train_{q}": objective.measure(self.sums),
            "val_loss": val.mean("loss"),
            f"val_{q}": objective.measure(val),
            "nfe_forward": forward,
            "nfe_backward": backward,
            "efficacy_forward": efficacy(accuracy, forward),
            "efficacy_backward": efficacy(accuracy, backward),
            "seconds": self.sums.seconds,
            "peak_memory_mib": memory,
            "skipped_batches": self.sums.skipped,
        }
        if self.sums.penalty:
            row["train_penalty"] = self.sums.mean("penalty")
        if test is not None:
            row["test_loss"], row[f"test_{q}"] = test.mean("loss"), objective.measure(test)
            row["test_nfe_forward"] = test.mean("nfe_forward")
        self.history.append(row)
        self.batch, self.sums = 0, EpochSums()
        return self.best is None or objective.better(row, self.best)

    def keep_best(self, weights: dict[str, Any]) -> None:
        """Takes the last epoch's ``weights`` (a copy that nobody changes) for the best."""
        row = self.history[-1]
        kept = {key: row[key] for key in row if key == "epoch" or key.startswith("val_")}
        self.best = {**kept, "model": weights}

    def over(self, epochs: int, patience: int) -> bool:
        """Whether training has ended: all epochs made, or ``patience`` of them without a better one."""
        waited = 0 if self.best is None else self.epoch - self.best["epoch"]
        return self.epoch >= epochs or (0 < patience <= waited)

    def finish(
        self, test: EpochSums, model: nn.Module, objective: Objective, more: Mapping[str, EpochSums]
    ) -> None:
        """Fills ``final`` from the test pass of the best weights; ``more`` are those of further sets."""
        assert self.best is not None  # the first epoch is the best so far
        quality = objective.measure(test)
        accuracy = quality if objective.quality == "accuracy" else None
        forward, backward = test.mean("nfe_forward"), self.history[-1]["nfe_backward"]
        self.final = {
            "test_loss": test.mean("loss"),
            f"test_{objective.quality}": quality,
            "nfe_forward": forward,
            "nfe_backward": backward,
            "efficacy_forward": efficacy(accuracy, forward),
            "efficacy_backward": efficacy(accuracy, backward),
            "parameters": count_parameters(model),
            "best_epoch": self.best["epoch"],
            "more_tests": {name: objective.measure(sums) for name, sums in more.items()},
        }

    def result(self, folder: RunFolder, *, trained: bool) -> TrainResult:
        """The result of a finished run."""
        assert self.final is not None
        values = {**{f"test_{name}": None for name in MEASURES}, **self.final}
        return TrainResult(folder.path, tuple(self.history), **values, trained=trained)

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
