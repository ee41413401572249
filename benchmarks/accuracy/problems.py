"""The non-stiff test set DETEST: twenty-four of its problems, each on [0, 20].

Source: T. E. Hull, W. H. Enright, B. M. Fellen, A. E. Sedgwick, Comparing numerical methods for
ordinary differential equations, SIAM J. Numer. Anal. 9 (1972) 603–637. Left out is C5, the motion of
five planets.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from adamode.inspect.detest import DETEST

TIMES = np.linspace(0.0, 20.0, 21)  # of the outputs at which errors are taken


@dataclasses.dataclass(frozen=True)
class Problem:
    """y' = rhs(x, y), y(0) = y0: rhs takes y [..., n], and x 0-d or [..., 1]."""

    name: str
    about: str
    rhs: Callable[[Tensor, Tensor], Tensor]
    y0: tuple[float, ...]

    def start(self) -> Tensor:
        return torch.tensor(self.y0, dtype=torch.float64)


_ABOUT = {
    "A1": "exponential decay",
    "A2": "a special Riccati equation",
    "A3": "an oscillation, y' = y cos x",
    "A4": "logistic growth",
    "A5": "a spiral",
    "B1": "two species in conflict",
    "B2": "a linear reaction",
    "B3": "a nonlinear reaction",
    "B4": "a curve on a torus",
    "B5": "a rigid body (Euler)",
    "C1": "radioactive decay chain, 10",
    "C2": "decay chain of growing rates, 10",
    "C3": "heat equation, 10",
    "C4": "heat equation, 51",
    "D1": "Kepler orbit, eccentricity 0.1",
    "D2": "Kepler orbit, eccentricity 0.3",
    "D3": "Kepler orbit, eccentricity 0.5",
    "D4": "Kepler orbit, eccentricity 0.7",
    "D5": "Kepler orbit, eccentricity 0.9",
    "E1": "a Bessel equation",
    "E2": "van der Pol, μ = 1",
    "E3": "Duffing",
    "E4": "a falling body",
    "E5": "a curve of pursuit",
}
_DETEST = {problem.name.removeprefix("detest-").upper(): problem for problem in DETEST}
PROBLEMS = {
    name: Problem(name, about, _DETEST[name].f, tuple(_DETEST[name].y0)) for name, about in _ABOUT.items()
}
TEN = ("A3", "A5", "B1", "B4", "C1", "C3", "D2", "D5", "E2", "E3")  # two a class, chosen before measuring


def numpy_rhs(problem: Problem) -> Callable[[float, np.ndarray], np.ndarray]:
    """The right-hand side as scipy calls it."""

    def rhs(x: float, y: np.ndarray) -> np.ndarray:
        return problem.rhs(torch.tensor(x, dtype=torch.float64), torch.from_numpy(y)).numpy()

    return rhs


@functools.cache
def reference(name: str, rtol: float = 1e-13) -> np.ndarray:
    """y at TIMES, [21, n], by scipy's DOP853 (atol a tenth of rtol), restarted at every output."""
    problem = PROBLEMS[name]
    rhs, values = numpy_rhs(problem), [np.array(problem.y0)]
    for a, b in itertools.pairwise(TIMES):
        found = solve_ivp(rhs, (a, b), values[-1], method="DOP853", rtol=rtol, atol=rtol / 10)
        values.append(found.y[:, -1])
    return np.stack(values)


def error(name: str, values: np.ndarray) -> float:
    """max over outputs and components of |y − reference| / (1 + |reference|): with rtol = atol, in
    the units in which the tolerance is meant."""
    exact = reference(name)
    return float(np.max(np.abs(values - exact) / (1 + np.abs(exact))))


@functools.cache
def reference_error(name: str) -> float:
    """How far the reference moves when its tolerance is ten times looser."""
    return error(name, reference(name, 1e-12))
