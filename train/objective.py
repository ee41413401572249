"""What a task asks of a model: a loss to descend, and the number that people read.

Whole-number targets are classes: cross-entropy and accuracy. Targets that are floats are values:
mean squared error and its root.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn

from ..solvers.errors import ArgumentError
from .data import DataSet
from .metrics import EpochSums


@dataclasses.dataclass(frozen=True)
class Objective:
    """``quality`` is "accuracy" (higher is better) or "rmse" (lower is better).

    An error in the targets' scale times ``per_unit`` is in ``unit`` ("mV"), and reported so.
    """

    quality: str
    unit: str = ""
    per_unit: float = 1.0

    @classmethod
    def of(cls, data: DataSet) -> Objective:
        """The objective of a data set."""
        if data.task == "classification":
            return cls("accuracy")
        return cls("rmse", data.unit, data.per_unit)

    def measure(self, sums: EpochSums) -> float:
        """Accuracy, 0 … 1, or the root of the mean squared error in ``unit``, over a pass."""
        mean = sums.score / sums.samples
        return mean if self.quality == "accuracy" else self.per_unit * math.sqrt(mean)

    def told(self, value: float) -> str:
        """A measure for people."""
        return told(self.quality, value, self.unit)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean over the batch, 0-d: cross-entropy, or mean squared error over all entries.

        Raises: ArgumentError where output and target do not have the shapes for it.
        """
        if self.quality == "accuracy":
            return nn.functional.cross_entropy(output.float() if _half(output) else output, target)
        if output.shape != target.shape:
            raise ArgumentError(
                f"the model's output has shape {tuple(output.shape)}, the targets {tuple(target.shape)}; "
                "for values to be predicted they must be equal."
            )
        return nn.functional.mse_loss(output.to(target.dtype), target)

    def score(self, output: Tensor, target: Tensor) -> Tensor:
        """Sum over the batch, 0-d float64: right answers, or squared errors (each a mean over entries)."""
        if self.quality == "accuracy":
            return (output.detach().argmax(1) == target).sum().double()
        error = (output.detach().double() - target.double()).reshape(len(target), -1)
        return error.square().mean(1).sum()

    def better(self, row: dict[str, Any], best: dict[str, Any]) -> bool:
        """Whether an epoch's validation beats the best so far: by quality, then by the lower loss."""
        return merit(row) > merit(best)


def merit(row: dict[str, Any]) -> tuple[float, float]:
    """What an epoch's validation is worth, to be compared: its accuracy or error, then its loss."""
    quality = row["val_accuracy"] if "val_accuracy" in row else -row["val_rmse"]
    return quality, -row["val_loss"]


def _half(output: Tensor) -> bool:
    return output.dtype in (torch.bfloat16, torch.float16)


def told(quality: str, value: float, unit: str = "") -> str:
    """An accuracy or an error, for people."""
    return f"acc {100 * value:5.1f} %" if quality == "accuracy" else f"rmse {value:.4g} {unit}".rstrip()
