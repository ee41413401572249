"""Linear stability of Runge–Kutta methods: what one step does to y' = λy.

Source: Hairer, Wanner, Solving Ordinary Differential Equations II, IV.2.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from fractions import Fraction

import torch

from .tableau import Row, Tableau, padded, polynomial


@functools.lru_cache(maxsize=64)
def stability_polynomial(tableau: Tableau, embedded: bool = False) -> Row:
    """Exact coefficients of 1, z, z², … in R(z), where y1 = R(hλ) y0 for y' = λy.

    R(z) = 1 + Σ_k z^(k+1) bᵀAᵏ1 (ibid., Eq. (2.9)); with ``embedded`` that of b_hat. The first
    order + 1 coefficients are those of exp z. Raises ValueError where there is no b_hat.
    """
    weights = tableau.b_hat if embedded else tableau.b
    if weights is None:
        raise ValueError(f"tableau {tableau.name}: has no embedded solution")
    rows = tableau.rows()[: tableau.n_stages]
    found, power = [Fraction(1)], [Fraction(1)] * len(rows)  # power is Aᵏ1
    while any(power):
        found.append(sum((w * x for w, x in zip(weights, power, strict=False)), Fraction(0)))
        power = [sum((w * x for w, x in zip(row, power, strict=False)), Fraction(0)) for row in rows]
    while found[-1] == 0:  # stages that the weights do not reach
        found.pop()
    return tuple(found)


@functools.lru_cache(maxsize=64)
def stability_fraction(tableau: Tableau) -> tuple[Row, Row]:
    """Exact coefficients of P and Q in R = P/Q, of any method: Q = det(I − zA), P = det(I − z(A − 1bᵀ)).

    Source: ibid., IV.3, Eq. (3.3).
    """
    n = len(tableau.c)
    a = [padded(row, n) for row in tableau.beta]
    less = [tuple(x - w for x, w in zip(row, tableau.b, strict=True)) for row in a]
    return _determinant(less), _determinant(a)


def _determinant(m: Sequence[Row]) -> Row:
    """Coefficients of det(I − z M) in z, by Faddeev and LeVerrier."""
    n, found = len(m), [Fraction(1)]
    power = [list(row) for row in m]
    for k in range(1, n + 1):
        found.append(-sum((power[i][i] for i in range(n)), Fraction(0)) / k)
        for i in range(n):
            power[i][i] += found[-1]
        columns = list(zip(*power, strict=True))
        power = [
            [sum((x * y for x, y in zip(row, column, strict=True)), Fraction(0)) for column in columns]
            for row in m
        ]
    while found[-1] == 0:
        found.pop()
    return tuple(found)


def stability_function(tableau: Tableau, z: torch.Tensor, embedded: bool = False) -> torch.Tensor:
    """R at each z (any shape; complex128 for a picture): the step is stable where |R(z)| ≤ 1."""
    if tableau.implicit:
        above, below = stability_fraction(tableau)
        return polynomial([float(w) for w in above], z) / polynomial([float(w) for w in below], z)
    return polynomial([float(w) for w in stability_polynomial(tableau, embedded)], z)


@functools.lru_cache(maxsize=64)
def real_stability_limit(tableau: Tableau) -> float:
    """The largest x such that |R| ≤ 1 on all of [−x, 0]: h|λ| must stay below it where λ < 0.

    Found by steps of 1/200 and bisection; ibid. IV.2 has 2.0 for Euler, 2.785 for order 4, 3.3 for
    dopri5.
    """
    coefficients = [float(w) for w in stability_polynomial(tableau)]

    def stable(x: float) -> bool:
        return abs(polynomial(coefficients, -x)) <= 1.0

    # R(0) = 1 and R'(0) = 1, so |R| < 1 just left of 0; |R| → ∞, so the walk ends.
    low, step = 0.0, 1 / 200
    while stable(low + step):
        low += step
    high = low + step
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if stable(middle) else (low, middle)
    return low
