"""Linear stability of Runge–Kutta methods, and of the pairs made of them: what one step does to y' = μy.

Sources: Hairer, Wanner, Solving Ordinary Differential Equations II, IV.2; of pairs S. McCallum, J. Foster,
arXiv 2410.11648 (2024), and U. Mutze, arXiv 1311.6602 (2013).
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
    order + 1 coefficients are those of exp z. Raises ValueError where there is no b_hat, and for an
    implicit method, whose R is no polynomial (`stability_fraction`).
    """
    tableau._must(not tableau.implicit, "is implicit, and its R(z) is a fraction")
    weights = tableau.b_hat if embedded else tableau.b
    if weights is None:
        raise ValueError(f"tableau {tableau.name}: has no embedded solution")
    rows = tableau.rows()[: tableau.n_stages]
    found, power = [Fraction(1)], [Fraction(1)] * len(rows)  # power is Aᵏ1
    for _ in rows:  # Aⁿ = 0
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


def pair_matrix(tableau: Tableau, x: torch.Tensor, coupling: float | None = None) -> torch.Tensor:
    """M [*x.shape, 2, 2], complex128, at each x = hμ: a step of a pair is (y1, p1) = M (y, p) for y' = μy.

    coupling: λ of Reversible's pair (y, z). With Ψ_h(z) = p z, p = R(x) − 1, and Ψ_{−h}(y1) = q y1,
        q = R(−x) − 1: M = [[λ, 1 − λ + p], [−λq, 1 − q(1 − λ + p)]], det M = λ.  None: a leapfrog's pair
        (y, h v), det M = 1 − 2η.
    Raises ValueError for an implicit method.
    """
    tableau._must(not tableau.implicit, "is implicit, and no pair is made of its steps")
    x = x.to(torch.complex128)
    if tableau.leapfrog:
        w = 2.0 * float(tableau.b[1])
        rows = [[1 + w * x / 2, 1 - w / 2 + w * x / 4], [w * x, 1 - w + w * x / 2]]
    else:
        lam = 1.0 if coupling is None else coupling
        p, q = (stability_function(tableau, at) - 1 for at in (x, -x))
        rows = [[torch.full_like(x, lam), 1 - lam + p], [-lam * q, 1 - q * (1 - lam + p)]]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def pair_growth(tableau: Tableau, x: torch.Tensor, coupling: float | None = None) -> torch.Tensor:
    """The largest modulus of M's eigenvalues at each x: the pair is stable where it is at most 1."""
    return torch.linalg.eigvals(pair_matrix(tableau, x, coupling)).abs().amax(-1)


@functools.lru_cache(maxsize=64)
def real_stability_limit(tableau: Tableau) -> float:
    """The largest x such that |R| ≤ 1 on all of [−x, 0]: h|λ| must stay below it where λ < 0.

    Found by steps of 1/200 and bisection; ibid. IV.2 has 2.0 for Euler, 2.785 for order 4, 3.3 for
    dopri5. Raises ValueError for an implicit method, which may have no such limit.
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
