"""Derives the dense output of order 7 in solvers/methods/dopri8.py; prints its numbers.

Prince and Dormand's 8(7)13M has only an interpolant of order 5 on its own stages and f(t1, y1). An
approximation of y(t0 + c h) by the stages so far is linear in them, so the conditions for it to have
order p are linear equations, Σ_j a_j Φ_j(t) = c^ρ(t)/γ(t) for all trees with ρ(t) ≤ p (the
bootstrapping of Enright, Jackson, Nørsett, Thomsen, ACM TOMS 12 (1986) 193–218). For p = 6 they
have a solution where 7(2c−1)² = 1: two further stages of order 6 there, at interior nodes of the
Lobatto quadrature, and one of order 7 at c = 1/2 make b_i(θ) of order 7 possible. What remains free
is taken to make the rows' coefficients and the terms of order 8 in the local error small.

Run from the repository root: python docs/derive/dopri8_dense_output.py
"""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np

from adamode.solvers.methods.dopri8 import DOPRI8
from adamode.solvers.methods.tableau import Row, join_smoothly, q

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from rooted_trees import Weights, density, dot, order_of, symmetry, trees_of_order

DIGITS = 25
S = 14  # stages of an attempt, f(t1, y1) included; the weights of stages 1 … 4 vanish
LOBATTO = Fraction("0.3110177634953863853902632")
# Coefficients of θ², …, θ⁵ for f(t1, y1) and for the last stage: no others are possible, to 1e-14.
F1, LAST = q("-1/2 68/9 -205/6 68"), q("0 -32 160 -288")
FREE = 5  # the stage whose coefficients are chosen: one freedom remains for each power


def _trees(order: int) -> list[tuple]:
    return [t for n in range(1, order + 1) for t in trees_of_order(n)]


def _rounded(value: Fraction) -> Fraction:
    return Fraction(round(value * 10**DIGITS), 10**DIGITS)


def _floats(matrix: list[list[Fraction]]) -> np.ndarray:
    return np.array([[float(x) for x in row] for row in matrix])


def smallest(rows: list[Row], order: int, right: list[Fraction], fixed: dict[int, Fraction]) -> Row:
    """The smallest weights w with Σ w_j Φ_j(t) = right for all trees, of which some may be fixed.

    Least squares in float64, refined with exact residuals; the sum is exact, the rest to 25 digits.
    """
    phi = Weights(rows)
    used = [j for j in range(len(rows)) if j not in (1, 2, 3, 4, *fixed)]
    matrix = [[phi(t)[j] for j in used] for t in _trees(order)]
    right = [
        r - sum(w * phi(t)[j] for j, w in fixed.items()) for r, t in zip(right, _trees(order), strict=True)
    ]
    inverse = np.linalg.pinv(_floats(matrix), rcond=1e-11)
    w = [Fraction(0)] * len(used)
    for _ in range(4):
        residual = np.array([float(r - dot(w, m)) for r, m in zip(right, matrix, strict=True)])
        w = [x + Fraction(y) for x, y in zip(w, inverse @ residual, strict=True)]
    if max(abs(residual)) > 1e-15:
        raise ArithmeticError(f"no solution of order {order}: residual {max(abs(residual)):.1e}")
    w = [_rounded(x) for x in w]
    w[0] += right[0] - sum(w)  # the first tree is τ: its condition is the sum
    full = dict(zip(used, w, strict=True)) | fixed
    return tuple(full.get(j, Fraction(0)) for j in range(len(rows)))


def stage(rows: list[Row], c: Fraction, order: int, fixed: dict[int, Fraction]) -> Row:
    """The row of a further stage at c, of the order wanted."""
    return smallest(rows, order, [c ** order_of(t) / density(t) for t in _trees(order)], fixed)


def power(rows: list[Row], k: int, free: Fraction) -> Row:
    """Coefficients of θ^k in b_i(θ) for order 7."""
    right = [Fraction(int(order_of(t) == k), density(t)) for t in _trees(7)]
    return smallest(rows, 7, right, {FREE: free, S - 1: F1[k - 2], len(rows) - 1: LAST[k - 2]})


def best_free(rows: list[Row]) -> np.ndarray:
    """The free coefficients of θ², …, θ⁵ for which the terms of order 8 are smallest."""
    phi, trees = Weights(rows), trees_of_order(8)
    eighth = _floats([[x / symmetry(t) for x in phi(t)] for t in trees])
    goal = np.array([1 / (density(t) * symmetry(t)) for t in trees])
    theta = np.linspace(0.05, 0.95, 19)[:, None]
    first = tuple(Fraction(int(i == 0)) for i in range(len(rows)))

    def residual(free: tuple[int, ...]) -> np.ndarray:
        low = [first, *(power(rows, k, Fraction(x)) for k, x in enumerate(free, 2))]
        b = _floats(list(join_smoothly(tuple(zip(*low, strict=True)), DOPRI8.b, S - 1)))
        return (theta ** np.arange(1, 8) @ b.T @ eighth.T - theta**8 * goal).ravel()

    base = residual((0, 0, 0, 0))
    steps = [residual(tuple(int(j == k) for j in range(4))) - base for k in range(4)]
    return np.linalg.lstsq(np.stack(steps, axis=1), -base, rcond=None)[0]


def derive() -> tuple[Row, list[Row], list[Row]]:
    """Nodes and rows of the three stages, and the coefficients of θ², …, θ⁵.

    Two weights are fixed at what the smallest rows have there up to rounding: the second stage does
    not need the first, and f(t1, y1) has 1/288 in the third.
    """
    rows = [*DOPRI8.a, DOPRI8.b]
    nodes = (LOBATTO, 1 - LOBATTO, Fraction(1, 2))
    rows.append(stage(rows, nodes[0], 6, {}))
    rows.append(stage(rows, nodes[1], 6, {S: Fraction(0)}))
    rows.append(stage(rows, nodes[2], 7, {S - 1: Fraction(1, 288)}))
    free = [Fraction(round(1000 * x), 1000) for x in best_free(rows)]
    return nodes, rows[S:], [power(rows, k, x) for k, x in enumerate(free, 2)]


def text(row: Row) -> str:
    """A row as `q` reads it."""
    words = []
    for x in row:
        digits = f"{round(abs(x) * 10**DIGITS):0{DIGITS + 1}d}"
        decimal = f"{'-' * (x < 0)}{digits[:-DIGITS]}.{digits[-DIGITS:]}"
        words.append(str(x) if x.denominator <= 1000 else decimal)
    return " ".join(words)


if __name__ == "__main__":
    found = derive()
    for part in (found[:1], *found[1:]):
        for line in part:
            print(f'q("{text(line)}")')
