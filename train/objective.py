"""What training aims at: the loss of a task, and the score that is summed over a pass.

Whole-number targets are classes: cross-entropy and accuracy. Targets that are floats are values: mean
squared error and its root. Of a density the model's output is log p(x), and the target what the
preparation of x adds to it: the negative log-likelihood. `measures` says how the results are told.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from ..solvers.errors import ArgumentError, ArgumentTypeError
from .data import DataSet
from .measures import MEASURES, Measure, merit
from .regularise import Weights


class Aim(ABC):
    """The loss that belongs to a measure, and what is summed for its value."""

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean over the batch, 0-d. Raises: ArgumentError where the two shapes do not fit."""

    @abstractmethod
    def score(self, output: Tensor, target: Tensor) -> Tensor:
        """Sum over the batch, 0-d float64, of what `Measure.value` takes the mean of."""


class RightAnswers(Aim):
    """The share of right answers."""

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of logits and labels."""
        return nn.functional.cross_entropy(output.float() if _half(output) else output, target)

    def score(self, output: Tensor, target: Tensor) -> Tensor:
        """How many answers are right."""
        return (output.detach().argmax(1) == target).sum().double()


class Squares(Aim):
    """The root of the mean squared error over all entries."""

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean squared error over all entries."""
        _check_shapes(output, target, "targets", "for values to be predicted")
        return nn.functional.mse_loss(output.to(target.dtype), target)

    def score(self, output: Tensor, target: Tensor) -> Tensor:
        """Squared errors, each a mean over a sample's entries."""
        error = (output.detach().double() - target.double()).reshape(len(target), -1)
        return error.square().mean(1).sum()


class LogDensities(Aim):
    """−log p of the data."""

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Nats: −(log p(x) + what the preparation adds)."""
        _check_shapes(output, target, "logarithms of the preparation's volumes", "for a density to be learnt")
        return -(output + target).mean()

    def score(self, output: Tensor, target: Tensor) -> Tensor:
        """Nats, summed in float64."""
        return -(output.detach().double() + target.double()).sum()


AIMS: dict[str, Aim] = {
    "accuracy": RightAnswers(),
    "rmse": Squares(),
    **dict.fromkeys(("nats", "bits_per_dim"), LogDensities()),
}


@dataclasses.dataclass(frozen=True)
class Objective:
    """What training aims at, and what is told of a pass.

    quality: the name of a measure: "accuracy", "rmse", "nats" or "bits_per_dim".
    unit, per_unit: an error in the targets' scale times ``per_unit`` is in ``unit`` ("mV"), and reported so.
    weights: of penalties that training adds to the loss.
    classes: how many there are; 0 where none are told.
    """

    quality: str
    unit: str = ""
    per_unit: float = 1.0
    weights: Weights = ()
    classes: int = 0

    @classmethod
    def of(cls, data: DataSet, weights: Weights = ()) -> Objective:
        """The objective of a data set."""
        if data.task == "density":
            return cls("nats" if data.pixels is None else "bits_per_dim", data.unit, data.per_unit, weights)
        if data.task == "classification":
            return cls("accuracy", weights=weights, classes=data.classes)
        return cls("rmse", data.unit, data.per_unit, weights)

    @property
    def kind(self) -> Measure:
        """How it is judged."""
        return MEASURES[self.quality]

    def measure(self, sums: Any) -> float:
        """The quality over a pass. sums: its `EpochSums`."""
        return self.kind.value(sums.score / sums.samples, self.per_unit)

    def told(self, value: float) -> str:
        """A measure for people."""
        return self.kind.told(value, self.unit)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean over the batch, 0-d. Raises: ArgumentError where output and target do not fit together."""
        if not isinstance(output, Tensor):
            raise ArgumentTypeError(f"the model's output is a {type(output).__name__}; a tensor is needed.")
        if self.quality == "accuracy" and (output.ndim < 2 or output.shape[1] < self.classes):
            raise ArgumentError(
                f"the model's output has shape {tuple(output.shape)}; for classes it must have a number for "
                f"each of them, [{len(target)}, {self.classes}]."
            )
        return AIMS[self.quality].loss(output, target)

    def score(self, output: Tensor, target: Tensor) -> Tensor:
        """Sum over the batch, 0-d float64, of right answers, squared errors, or nats."""
        return AIMS[self.quality].score(output, target)

    def better(self, row: dict[str, Any], best: dict[str, Any]) -> bool:
        """Whether an epoch's validation beats the best so far: by quality, then by the lower loss."""
        return merit(row) > merit(best)


def _half(output: Tensor) -> bool:
    return output.dtype in (torch.bfloat16, torch.float16)


def _check_shapes(output: Tensor, target: Tensor, what: str, aim: str) -> None:
    if output.shape != target.shape:
        raise ArgumentError(
            f"the model's output has shape {tuple(output.shape)}, the {what} {tuple(target.shape)}; "
            f"{aim} they must be equal."
        )
