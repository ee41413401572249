"""The non-stiff test set DETEST: twenty-four of its problems, each on [0, 20].

Source: T. E. Hull, W. H. Enright, B. M. Fellen, A. E. Sedgwick, Comparing numerical methods for
ordinary differential equations, SIAM J. Numer. Anal. 9 (1972) 603–637. Left out is C5, the motion of
five planets.
"""

from __future__ import annotations

import functools

import numpy as np

from adamode.inspect.catalogue import PROBLEMS as EVERY
from adamode.inspect.problem import Problem
from adamode.inspect.reference import by_scipy

TIMES = np.linspace(0.0, 20.0, 21)  # of the outputs at which errors are taken

ABOUT = {
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
PROBLEMS: dict[str, Problem] = {name: EVERY[f"detest-{name.lower()}"] for name in ABOUT}
TEN = ("A3", "A5", "B1", "B4", "C1", "C3", "D2", "D5", "E2", "E3")  # two a class, chosen before measuring


@functools.cache
def reference(name: str, rtol: float = 1e-13) -> np.ndarray:
    """y at TIMES, [21, n], by scipy's DOP853 (atol a tenth of rtol), restarted at every output."""
    found = by_scipy(PROBLEMS[name].f, PROBLEMS[name].y0, TIMES.tolist(), rtol, rtol / 10)
    assert found is not None  # every problem here has a solution on the whole interval
    return found.numpy()


def error(name: str, values: np.ndarray) -> float:
    """max over outputs and components of |y − reference| / (1 + |reference|): with rtol = atol, in
    the units in which the tolerance is meant."""
    exact = reference(name)
    return float(np.max(np.abs(values - exact) / (1 + np.abs(exact))))


@functools.cache
def reference_error(name: str) -> float:
    """How far the reference moves when its tolerance is ten times looser."""
    return error(name, reference(name, 1e-12))
