"""What a solve is measured against: the closed solution, or scipy's DOP853 at 1e-13."""

from __future__ import annotations

import dataclasses
import itertools
import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from .problem import Field, Problem

TOLERANCE = 1e-13  # the smallest power of ten that scipy takes: it refuses an rtol below 100 eps


@dataclasses.dataclass(frozen=True)
class Reference:
    """values: [T, n] at the times, NaN where unknown.
    floor: its own relative error, about.

    kind: how it was found, for the pictures.
    scale: the largest entry of values.
    """

    times: tuple[float, ...]
    values: Tensor
    floor: float
    kind: str

    @property
    def scale(self) -> float:
        """The solution's size: errors are relative to it."""
        known = self.values[torch.isfinite(self.values)]  # 1e-300: a solution that is zero has a scale too
        return max(float(known.abs().max()), 1e-300) if len(known) else math.nan

    def errors(self, y: Tensor) -> list[float]:
        """The largest error of any component at each time, over `scale`; NaN where one is unknown."""
        difference = (y.double().cpu() - self.values).abs().amax(1)
        return (difference / self.scale).tolist()


def find_reference(problem: Problem, times: Sequence[float], f: Field | None = None) -> Reference | None:
    """The reference at times, or None where scipy cannot get to the end.

    f: the problem's, watched. Its floor: the distance from a solve with ten times the tolerance.
    """
    if problem.solution is not None:
        values = torch.tensor([problem.solution(t) for t in times], dtype=torch.float64)
        return Reference(tuple(times), values, 0.0, "closed solution")
    f = problem.f if f is None else f
    fine = by_scipy(f, problem.y0, times, TOLERANCE)
    coarse = None if fine is None else by_scipy(f, problem.y0, times, 10 * TOLERANCE)
    if fine is None or coarse is None:
        return None
    found = Reference(tuple(times), fine, 0.0, "scipy DOP853, 1e-13")
    return dataclasses.replace(found, floor=max(found.errors(coarse)))


def as_scipy_calls(f: Field) -> Callable[[float, np.ndarray], np.ndarray]:
    """f on floats and arrays."""

    def g(t: float, y: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            dy = f(torch.tensor(t, dtype=torch.float64), torch.from_numpy(np.array(y)))
        return dy.double().numpy()

    return g


def by_scipy(
    f: Field, y0: Sequence[float], times: Sequence[float], rtol: float, atol: float | None = None
) -> Tensor | None:
    """y at the times, [T, n], by scipy's DOP853; None where it cannot get to the end.

    It goes from time to time: inside long steps its interpolant is up to two hundred times less accurate.
    atol: rtol unless given.
    """
    from scipy.integrate import solve_ivp

    g, atol = as_scipy_calls(f), rtol if atol is None else atol
    values = [np.asarray(y0, dtype=float)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # overflow on the way to a failure that success=False reports
        for t, t_next in itertools.pairwise(times):
            found = solve_ivp(g, (t, t_next), values[-1], "DOP853", rtol=rtol, atol=atol)
            if not found.success or not np.isfinite(found.y).all():
                return None
            values.append(found.y[:, -1])
    return torch.from_numpy(np.stack(values))
