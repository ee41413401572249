"""A plain fixed-step loop over a tableau's rows, and the orders observed with it.

Nothing here is shared with the engine, so that its tests are no image of it. Decimals of 40 digits
keep rounding out of the slopes: methods with small error terms show their order only where float64
has no digits left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Context, Decimal, localcontext
from fractions import Fraction

from adamode.solvers.methods.tableau import Row, Tableau

State = tuple[Decimal, ...]
T0, T1 = Decimal(-1), Decimal(2)
CONTEXT = Context(prec=40)


def field(t: Decimal, y: State) -> State:
    """A nonlinear, non-autonomous system with a closed solution (`solution`) and no stiffness."""
    x, z, s = y
    return (-2 * x * z, x * x - t * x * z, 2 * z * x * s * s)


def solution(t: Decimal) -> State:
    """x = 1/(1+t²), z = t/(1+t²), s = (1+t²)/(2+t²)."""
    square = 1 + t * t
    return (1 / square, t / square, square / (1 + square))


def _decimals(row: Sequence[Fraction]) -> list[Decimal]:
    return [Decimal(w.numerator) / Decimal(w.denominator) for w in row]


def _move(y: State, h: Decimal, weights: Sequence[Decimal], stages: Sequence[State]) -> State:
    terms = [(h * w, k) for w, k in zip(weights, stages, strict=False) if w]
    return tuple(v + sum((w * k[i] for w, k in terms), Decimal(0)) for i, v in enumerate(y))


def _stages(rows: list[list[Decimal]], nodes: list[Decimal], t: Decimal, y: State, h: Decimal) -> list[State]:
    found: list[State] = []
    for row, c in zip(rows, nodes, strict=True):
        found.append(field(t + c * h, _move(y, h, row, found)))
    return found


def _distance(y: State, t: Decimal) -> Decimal:
    return max(abs(v - w) for v, w in zip(y, solution(t), strict=True))


def step_error(tableau: Tableau, n_steps: int, weights: Row | None = None) -> float:
    """Error at T1 after n_steps equal steps from T0, with b or the weights given instead."""
    with localcontext(CONTEXT):
        rows, nodes = [_decimals(row) for row in tableau.rows()], _decimals(tableau.nodes())
        b = _decimals(tableau.b if weights is None else weights)
        used = len(b)  # stages that only the dense output needs are left out
        y, h = solution(T0), (T1 - T0) / n_steps
        for step in range(n_steps):
            y = _move(y, h, b, _stages(rows[:used], nodes[:used], T0 + step * h, y, h))
        return float(_distance(y, T1))


def dense_error(tableau: Tableau, n_steps: int, theta: str = "0.3") -> float:
    """Largest error of the interpolant at θ in n_steps steps, each from the exact solution."""
    with localcontext(CONTEXT):
        rows, nodes = [_decimals(row) for row in tableau.rows()], _decimals(tableau.nodes())
        h, at, worst = (T1 - T0) / n_steps, Decimal(theta), Decimal(0)
        interpolant = [_decimals(row) for row in tableau.interpolant]
        b = [sum(w * at**k for k, w in enumerate(row, 1)) for row in interpolant]
        for step in range(n_steps):
            t = T0 + step * h
            k = _stages(rows, nodes, t, solution(t), h)
            worst = max(worst, _distance(_move(solution(t), h, b, k), t + at * h))
        return float(worst)


def slope(error: Callable[[int], float], n_steps: int) -> float:
    """The order at which error falls from n_steps to 2 n_steps."""
    return math.log2(error(n_steps) / error(2 * n_steps))
