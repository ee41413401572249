"""What is published of an initial value problem, and how an error is measured against it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import Tensor

from ...inspect.problem import Problem

FLOOR = 1e-3  # below it a component counts by its absolute error


@dataclasses.dataclass(frozen=True)
class EndValue:
    """The state that is published for the end of a problem's span.

    problem: its f takes y [..., n].
    values: of the first components, in order.
    uncertainty: the error of the published values themselves, as `error_of` measures it.
    source: where they stand.
    """

    problem: Problem
    values: tuple[float, ...]
    uncertainty: float
    source: str

    @property
    def name(self) -> str:
        """The problem's."""
        return self.problem.name


def error_of(found: Tensor | Sequence[float], expected: Sequence[float]) -> float:
    """The largest |found − expected| ÷ max(|expected|, 1e-3) of any component; NaN where one is."""
    differences = [abs(float(a) - b) / max(abs(b), FLOOR) for a, b in zip(found, expected, strict=True)]
    return max(differences, key=lambda x: (x != x, x))


def digits_hold(digits: int, values: Sequence[float]) -> float:
    """The uncertainty, as `error_of` measures, of values of which so many significant digits hold."""
    return max(10.0**-digits * abs(v) / max(abs(v), FLOOR) for v in values)
