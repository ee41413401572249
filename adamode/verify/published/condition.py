"""By how much an initial value problem magnifies the errors of its steps.

A step from t leaves a local error d with RMS(d/D) ≤ rtol, D = |y(t)| + 1e-3, and at the end of the span
that is Φ(T, t) d, with ∂/∂t Φ(T, t) = −Φ(T, t) ∂f/∂y. A method of order p whose estimate is of the order of
h^p makes, per unit of time, an error in proportion to rtol·ω(t), ω the rate at which the solution turns:

    ω = √2 ‖y''‖ ÷ √(‖y'‖² + ‖y''‖ ‖y‖),   each over D;   |λ| for y' = λy, and finite where y' = 0.

So an error of component j at the end, over w_j = max(|y_j(T)|, 1e-3), is at most

    κ · rtol,   κ = max over j of √n ∫ ‖eⱼᵀ Φ(T, t) D(t)‖₂ ω(t) dt ÷ w_j

times a number that belongs to the method (`bounds.method_factor`). κ does not change with the unit of time,
nor with the number of steps.  Source: the global error of a method that propagates the higher order is
proportional to its tolerance, HNW I, II.4 and II.8 (Eq. 8.16); G. Söderlind, BIT 46 (2006) 631–652, on
logarithmic norms and the forward error.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from ...inspect.problem import Problem
from .value import FLOOR

Array = np.ndarray
_TRAJECTORY, _ADJOINT = 1e-10, 1e-4  # rtol of the solution, and of κ, of which two digits are wanted


def condition_number(problem: Problem, components: int) -> float:
    """κ of the first ``components`` of the state at the end of the span.

    By scipy: the solution with DOP853, then the adjoint equation backwards along it with RK45. problem.f
    takes y [..., n].
    """
    from scipy.integrate import solve_ivp

    f, (start, end) = _by_scipy(problem), problem.span
    path = solve_ivp(
        f, problem.span, problem.y0, "DOP853", rtol=_TRAJECTORY, atol=_TRAJECTORY * FLOOR, dense_output=True
    )
    n, m = len(problem.y0), components
    weights = np.maximum(np.abs(path.y[:m, -1]), FLOOR)

    def backwards(t: float, z: Array) -> Array:
        y, rows = path.sol(t), z[: m * n].reshape(m, n)
        scale = np.abs(y) + FLOOR
        growth = np.sqrt(n * np.square(rows * scale).sum(1)) * _rate(f, t, y, scale)
        return np.concatenate([-(rows @ _jacobian(f, t, y, scale)).ravel(), -growth])

    z = np.concatenate([(np.eye(m, n) / weights[:, None]).ravel(), np.zeros(m)])
    found = solve_ivp(backwards, (end, start), z, "RK45", rtol=_ADJOINT, atol=_ADJOINT * FLOOR)
    return float(found.y[m * n :, -1].max())


def _by_scipy(problem: Problem) -> Callable[[float, Array], Array]:
    def f(t: float, y: Array) -> Array:
        with torch.no_grad():
            slope = problem.f(torch.tensor(t, dtype=torch.float64), torch.from_numpy(np.array(y)))
        found: Array = slope.numpy()
        return found

    return f


def _jacobian(f: Callable[[float, Array], Array], t: float, y: Array, scale: Array) -> Array:
    """∂f/∂y by central differences, all columns in one call."""
    step = 1e-6 * scale
    values = f(t, np.concatenate([y + np.diag(step), y - np.diag(step)]))
    rows: Array = (values[: len(y)] - values[len(y) :]) / (2 * step[:, None])
    return rows.T


def _rate(f: Callable[[float, Array], Array], t: float, y: Array, scale: Array) -> float:
    """ω; y'' is a central difference along the solution."""
    slope, h = f(t, y), 1e-6
    bend = (f(t + h, y + h * slope) - f(t - h, y - h * slope)) / (2 * h)
    size, speed, turn = (float(np.linalg.norm(x / scale)) for x in (y, slope, bend))
    # 1e-9: a solution that starts from 0 with no slope turns at no rate at all there.
    return turn * math.sqrt(2 / (speed**2 + turn * (size + 1e-9) + 1e-300))
