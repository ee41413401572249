"""Rosenbrock methods as tableaus: stages that are linear systems with ∂f/∂y, and no iteration.

    k_i = f(t + α_i dt, y + dt Σ_{j<i} α_ij k_j) + dt J Σ_{j≤i} γ_ij k_j + dt γ_i ∂f/∂t
    y1 = y + dt Σ_i b_i k_i

with α_i = Σ_j α_ij, γ_i = Σ_j γ_ij, and one γ_ii = γ. The first stage of a tableau is f(t, y) itself, which
the step before hands on and no formula weighs; the k_i follow it.

Source: Hairer, Wanner, Solving Ordinary Differential Equations II, IV.7, Eq. (7.4), and (7.25) for the
coefficients that codes have, of u_i = dt Σ_j γ_ij k_j.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from fractions import Fraction

from .tableau import Row, padded

_ZERO = Fraction(0)


@dataclasses.dataclass(frozen=True)
class Weights:
    """From weights of the u_i, as codes have them, to weights of the k_i: w Γ, exactly.

    gamma: Γ's rows, each with its diagonal.
    """

    gamma: tuple[Row, ...]

    @classmethod
    def of_codes(cls, diagonal: Fraction, c: Sequence[Row]) -> Weights:
        """Γ = (I/γ − C)⁻¹, of a strictly lower triangular C."""
        n, rows = len(c), list[Row]()
        for i in range(n):
            row = [_ZERO] * n
            row[i] = diagonal
            for j, w in enumerate(c[i]):
                row = [x + diagonal * w * y for x, y in zip(row, padded(rows[j], n), strict=True)]
            rows.append(tuple(row[: i + 1]))
        return cls(tuple(rows))

    def __call__(self, weights: Row, total: Fraction) -> Row:
        """Of as many k_i as weights; the first makes good what rounding leaves of their sum, `total`."""
        n = len(weights)
        rows = [padded(row, n) for row in self.gamma[:n]]
        found = [sum((w * row[j] for w, row in zip(weights, rows, strict=True)), _ZERO) for j in range(n)]
        if found:
            found[0] += total - sum(found, _ZERO)
        return tuple(found)


def behind_first(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Rows of a tableau whose first stage is f(t, y), of those of the k_i."""
    return ((), *((_ZERO, *row) for row in rows))
