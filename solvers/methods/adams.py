"""Adams–Bashforth and Adams–Moulton methods on a given grid: y1 = y0 + ∫ p dt, p a polynomial through past f.

The weights are derived, for any nodes: p in Newton's form, its basis integrated, divided differences written
out. On an even grid they are computed in exact fractions. On an uneven one the same formula in floats loses
no digits: with all nodes in the past every sum has terms of one sign.

J. C. Adams in F. Bashforth, An attempt to test the theories of capillary action (1883), ch. III;
F. R. Moulton, New methods in exterior ballistics (1926); Hairer, Nørsett, Wanner I, III.1, Eqs. (1.5), (1.9);
for uneven grids III.5.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import chain
from typing import TypeVar

from .tableau import Tableau, q

Number = TypeVar("Number", float, Fraction)

ADAMS = {"explicit_adams": False, "implicit_adams": True, "fixed_adams": True}  # whether with a corrector
MOST = 12  # order
FEWEST = 3  # values of f that a step needs; with fewer it is one of `rk4`

# A step as its dense output sees it: stages f(t0, y0), the mean slope (y1 − y0)/dt, f(t1, y1).
MEAN_SLOPE = Tableau(name="adams", order=4, c=q("0 1"), a=(q(""), q("1")), b=q("0 1"))


@dataclasses.dataclass(frozen=True)
class Adams:
    """A method of the family.

    implicit: the corrector (Adams–Moulton) by functional iteration, after the predictor (Adams–Bashforth).
    max_order: a step uses max_order − 1 past values of f at most (the corrector one more, at its end).
    max_iters: of the corrector in a step.
    """

    implicit: bool
    max_order: int = MOST
    max_iters: int = 4


def integral_weights(nodes: Sequence[Number], most: float = math.inf) -> list[Number]:
    """Weights w with ∫₀¹ p(s) ds = Σ w_i p(s_i) for the polynomial p through as many of the nodes, from the
    first on, as Σ |w_i| ≤ most allows (at least one)."""
    one = nodes[0] ** 0
    zero = one - one
    basis: list[Number] = [one]  # Π_{i<j} (s − s_i), by powers of s
    weights: list[Number] = [one]
    products: list[Number] = [one]  # Π_{m≠i} (s_i − s_m)
    for j in range(1, len(nodes)):
        pairs = zip(chain((zero,), basis), chain(basis, (zero,)), strict=True)
        grown = [higher - nodes[j - 1] * lower for higher, lower in pairs]
        integral = sum((c / (k + 1) for k, c in enumerate(grown)), zero)
        products = [p * (s - nodes[j]) for p, s in zip(products, nodes, strict=False)]
        products.append(math.prod((nodes[j] - s for s in nodes[:j]), start=one))
        further = [w + integral / p for w, p in zip(chain(weights, (zero,)), products, strict=True)]
        if sum(map(abs, further)) > most:
            break
        basis, weights = grown, further
    return weights


@functools.lru_cache(maxsize=64)
def even_weights(k: int, *, implicit: bool) -> tuple[Fraction, ...]:
    """On an even grid, exact: of f at 0, −1, … −(k − 1), and where implicit of f at 1 last."""
    nodes = [Fraction(-i) for i in range(k)]
    return tuple(integral_weights([*nodes, Fraction(1)] if implicit else nodes))


@functools.cache
def largest_sum() -> float:
    """Σ |w_i| of the predictor of the highest order on an even grid, 591: by so much an error of all past f
    is magnified."""
    return float(sum(map(abs, even_weights(MOST - 1, implicit=False))))


def predictor_weights(nodes: Sequence[float], even: bool) -> list[float]:
    """Of past f at the nodes s_i ≤ 0, the first 0, where the step is from 0 to 1: a weight for each of the
    first. They are fewer where more would magnify errors by more than the highest order does on an even grid:
    where a step is long beside those before it."""
    if even:
        return [float(w) for w in even_weights(len(nodes), implicit=False)]
    return integral_weights(nodes, largest_sum())


def corrector_weights(nodes: Sequence[float], even: bool) -> list[float]:
    """Of past f at the nodes, and of f at 1 last."""
    if even:
        return [float(w) for w in even_weights(len(nodes), implicit=True)]
    return integral_weights([*nodes, 1.0])
