"""How the continuous adjoints' error falls with the tolerance."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

import adamode
from adamode import Backsolve, Discrete, Interpolating

from .cases import error, make, reference
from .ways import Way, ours

TOLERANCES = tuple(10.0**-k for k in range(4, 12))
CHOICES = {
    "backsolve": Backsolve(),
    "interpolating": Interpolating(),
    "discrete": Discrete(),
}


@dataclasses.dataclass(frozen=True)
class Line:
    """error: one for each tolerance, NaN where an error was raised; slope: of its logarithm over theirs."""

    error: list[float]

    def slope(self, tolerances: Sequence[float] = TOLERANCES) -> float:
        x, y = np.log(np.array(tolerances)), np.log(np.array(self.error))
        fine = np.isfinite(y)
        return float(np.polyfit(x[fine], y[fine], 1)[0])


def lines(name: str, tolerances: Sequence[float] = TOLERANCES) -> dict[str, Line]:
    """By choice, for one model."""
    case = make(name)
    right = reference(case, 1e-13)
    found = {}
    for choice, gradient in CHOICES.items():
        way, errors = Way(choice, ours(gradient)), []
        for tol in tolerances:
            try:
                errors.append(error(way.gradient(case, tol), right))
            except adamode.ReconstructionError:
                errors.append(float("nan"))
        found[choice] = Line(errors)
    return found
