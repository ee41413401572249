"""How well a model does on a task: which measure, and how its values are told. Nothing here imports torch."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from typing import Any


@dataclasses.dataclass(frozen=True)
class Measure(ABC):
    """A kind of quality.

    name: as in ``val_<name>`` of the metrics.
    title, loss_title: of pictures.
    sign: 1 where more is better, −1 where less is.
    no_efficacy: why there may be none.
    loss_unit: said after a loss.
    positive: whether a loss is never negative.
    """

    name: str
    title: str
    loss_title: str
    no_efficacy: str
    sign: int = -1
    loss_unit: str = ""
    positive: bool = True

    @abstractmethod
    def value(self, mean: float, per_unit: float) -> float:
        """The quality, from the mean of the scores. per_unit: of the data set."""

    @abstractmethod
    def told(self, value: float, unit: str = "") -> str:
        """The quality for people, in few letters."""

    @abstractmethod
    def in_full(self, value: float, unit: str = "") -> str:
        """The same in a report."""


class Accuracy(Measure):
    """The share of right answers."""

    def value(self, mean: float, per_unit: float) -> float:
        """The share of right answers, 0 … 1."""
        return mean

    def told(self, value: float, unit: str = "") -> str:
        """In per cent."""
        return f"acc {100 * value:5.1f} %"

    def in_full(self, value: float, unit: str = "") -> str:
        """In per cent."""
        return f"accuracy {100 * value:.2f} %"


class RootMeanSquare(Measure):
    """The root of the mean squared error over all entries."""

    def value(self, mean: float, per_unit: float) -> float:
        """In the data set's unit."""
        return per_unit * math.sqrt(mean)

    def told(self, value: float, unit: str = "") -> str:
        """With its unit."""
        return f"rmse {value:.4g} {unit}".rstrip()

    def in_full(self, value: float, unit: str = "") -> str:
        """With its unit."""
        return self.told(value, unit)


class Likelihood(Measure):
    """−log p of the data as they were before their preparation, or of a bound on it, in ``unit``."""

    def value(self, mean: float, per_unit: float) -> float:
        """In the data set's unit."""
        return per_unit * mean

    def told(self, value: float, unit: str = "") -> str:
        """With its unit."""
        return f"{value:.3f} {self.title}"

    def in_full(self, value: float, unit: str = "") -> str:
        """With its unit."""
        return f"{value:.4f} {self.title}"


_OF_DENSITIES: dict[str, Any] = {
    "loss_title": "−log p, nats",
    "no_efficacy": "a density is learnt",
    "loss_unit": " nats",
    "positive": False,
}
MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Accuracy("accuracy", "accuracy", "cross-entropy loss", "nothing is solved", sign=1),
        RootMeanSquare("rmse", "root mean squared error", "mean squared error", "values are predicted"),
        Likelihood("nats", "nats", **_OF_DENSITIES),
        Likelihood("bits_per_dim", "bits/dim", **_OF_DENSITIES),
    )
}


def measure_of(row: dict[str, Any], part: str = "val") -> Measure | None:
    """The kind of quality that a row of metrics has of a part; None where it has none."""
    return next((m for m in MEASURES.values() if row.get(f"{part}_{m.name}") is not None), None)


def merit(row: dict[str, Any]) -> tuple[float, float]:
    """What an epoch's validation is worth, to be compared: its quality, then its loss."""
    measure = measure_of(row)
    assert measure is not None  # every epoch has a validation
    return measure.sign * row[f"val_{measure.name}"], -row["val_loss"]
