"""The non-stiff test set DETEST: twenty-four of its problems, each on [0, 20].

Source: T. E. Hull, W. H. Enright, B. M. Fellen, A. E. Sedgwick, Comparing numerical methods for
ordinary differential equations, SIAM J. Numer. Anal. 9 (1972) 603–637. Left out is C5, the motion of
five planets.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

TIMES = np.linspace(0.0, 20.0, 21)  # of the outputs at which errors are taken


@dataclasses.dataclass(frozen=True)
class Problem:
    """y' = rhs(x, y), y(0) = y0: rhs takes y [..., n], and x 0-d or of y's shape without n."""

    name: str
    about: str
    rhs: Callable[[Tensor, Tensor], Tensor]
    y0: tuple[float, ...]

    def start(self) -> Tensor:
        return torch.tensor(self.y0, dtype=torch.float64)


def _last(*parts: Tensor) -> Tensor:
    return torch.stack(parts, -1)


def _a1(x: Tensor, y: Tensor) -> Tensor:
    return -y


def _a2(x: Tensor, y: Tensor) -> Tensor:
    return -0.5 * y**3


def _a3(x: Tensor, y: Tensor) -> Tensor:
    return y * torch.cos(x)[..., None]


def _a4(x: Tensor, y: Tensor) -> Tensor:
    return y / 4 * (1 - y / 20)


def _a5(x: Tensor, y: Tensor) -> Tensor:
    x = x[..., None]
    return (y - x) / (y + x)


def _b1(x: Tensor, y: Tensor) -> Tensor:
    a, b = y.unbind(-1)
    return _last(2 * (a - a * b), -(b - a * b))


def _b2(x: Tensor, y: Tensor) -> Tensor:
    a, b, c = y.unbind(-1)
    return _last(b - a, a - 2 * b + c, b - c)


def _b3(x: Tensor, y: Tensor) -> Tensor:
    a, b, _ = y.unbind(-1)
    return _last(-a, a - b * b, b * b)


def _b4(x: Tensor, y: Tensor) -> Tensor:
    a, b, c = y.unbind(-1)
    r = torch.sqrt(a * a + b * b)
    return _last(-b - a * c / r, a - b * c / r, a / r)


def _b5(x: Tensor, y: Tensor) -> Tensor:
    a, b, c = y.unbind(-1)
    return _last(b * c, -a * c, -0.51 * a * b)


@functools.cache
def _chain(kind: str, n: int) -> Tensor:
    """The matrices of class C, transposed: y' = y M."""
    m = np.zeros((n, n))
    for i in range(n):
        if kind == "decay":  # each decays into the next, the last is stable
            m[i, i] = -1.0 if i < n - 1 else 0.0
            if i:
                m[i, i - 1] = 1.0
        elif kind == "faster":
            m[i, i] = -(i + 1.0) if i < n - 1 else 0.0
            if i:
                m[i, i - 1] = i
        else:  # heat
            m[i, i] = -2.0
            if i:
                m[i, i - 1] = m[i - 1, i] = 1.0
    return torch.from_numpy(m.T.copy())


def _linear(kind: str, n: int) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, y: y @ _chain(kind, n)


def _d(x: Tensor, y: Tensor) -> Tensor:
    a, b, va, vb = y.unbind(-1)
    r3 = (a * a + b * b) ** 1.5
    return _last(va, vb, -a / r3, -b / r3)


def _orbit(eccentricity: float) -> tuple[float, ...]:
    e = eccentricity
    return (1 - e, 0.0, 0.0, math.sqrt((1 + e) / (1 - e)))


def _e1(x: Tensor, y: Tensor) -> Tensor:
    a, b = y.unbind(-1)
    s = x + 1
    return _last(b, -(b / s + (1 - 0.25 / (s * s)) * a))


def _e2(x: Tensor, y: Tensor) -> Tensor:
    a, b = y.unbind(-1)
    return _last(b, (1 - a * a) * b - a)


def _e3(x: Tensor, y: Tensor) -> Tensor:
    a, b = y.unbind(-1)
    return _last(b, a**3 / 6 - a + 2 * torch.sin(2.78535 * x))


def _e4(x: Tensor, y: Tensor) -> Tensor:
    b = y[..., 1]
    return _last(b, 0.032 - 0.4 * b * b)


def _e5(x: Tensor, y: Tensor) -> Tensor:
    b = y[..., 1]
    return _last(b, torch.sqrt(1 + b * b) / (25 - x))


_ONE10 = (1.0, *[0.0] * 9)
PROBLEMS = {
    p.name: p
    for p in (
        Problem("A1", "exponential decay", _a1, (1.0,)),
        Problem("A2", "a special Riccati equation", _a2, (1.0,)),
        Problem("A3", "an oscillation, y' = y cos x", _a3, (1.0,)),
        Problem("A4", "logistic growth", _a4, (1.0,)),
        Problem("A5", "a spiral", _a5, (4.0,)),
        Problem("B1", "two species in conflict", _b1, (1.0, 3.0)),
        Problem("B2", "a linear reaction", _b2, (2.0, 0.0, 1.0)),
        Problem("B3", "a nonlinear reaction", _b3, (1.0, 0.0, 0.0)),
        Problem("B4", "a curve on a torus", _b4, (3.0, 0.0, 0.0)),
        Problem("B5", "a rigid body (Euler)", _b5, (0.0, 1.0, 1.0)),
        Problem("C1", "radioactive decay chain, 10", _linear("decay", 10), _ONE10),
        Problem("C2", "decay chain of growing rates, 10", _linear("faster", 10), _ONE10),
        Problem("C3", "heat equation, 10", _linear("heat", 10), _ONE10),
        Problem("C4", "heat equation, 51", _linear("heat", 51), (1.0, *[0.0] * 50)),
        *(
            Problem(f"D{i + 1}", f"Kepler orbit, eccentricity {e}", _d, _orbit(e))
            for i, e in enumerate((0.1, 0.3, 0.5, 0.7, 0.9))
        ),
        Problem("E1", "a Bessel equation", _e1, (0.6713967071418030, 0.09540051444747446)),
        Problem("E2", "van der Pol, μ = 1", _e2, (2.0, 0.0)),
        Problem("E3", "Duffing", _e3, (0.0, 0.0)),
        Problem("E4", "a falling body", _e4, (30.0, 0.0)),
        Problem("E5", "a curve of pursuit", _e5, (0.0, 0.0)),
    )
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
