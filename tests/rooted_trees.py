"""Rooted trees and what the order conditions of Runge–Kutta methods need of them.

A tree is the sorted tuple of its root's subtrees: () is the single node τ, ((),) the tall tree of
order two. Source: Hairer, Nørsett, Wanner, Solving Ordinary Differential Equations I, II.2.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

Tree = tuple  # of trees: a recursive type that annotations cannot say


@functools.cache
def trees_of_order(order: int) -> tuple[Tree, ...]:
    """All rooted trees with ``order`` nodes: 1, 1, 2, 4, 9, 20, 48, 115, … of them."""
    return tuple(sorted(tuple(forest) for forest in _forests(order - 1, order - 1)))


def _forests(nodes: int, largest: int) -> list[list[Tree]]:
    """Multisets of trees with ``nodes`` nodes in all and none larger than ``largest``."""
    if nodes == 0:
        return [[]]
    found = {}
    for size in range(min(nodes, largest), 0, -1):
        for tree in trees_of_order(size):
            for rest in _forests(nodes - size, size):
                found[tuple(sorted([tree, *rest]))] = None
    return [list(forest) for forest in found]


def order_of(tree: Tree) -> int:
    """The number of nodes, ρ(t)."""
    return 1 + sum(order_of(child) for child in tree)


def density(tree: Tree) -> int:
    """γ(t): the order condition of t is Σ b_i Φ_i(t) = 1/γ(t)."""
    return order_of(tree) * math.prod(density(child) for child in tree)


def symmetry(tree: Tree) -> int:
    """σ(t): 1/σ(t) weighs t in the expansion of the local error."""
    counts = Counter(tree)
    return math.prod(math.factorial(n) * symmetry(child) ** n for child, n in counts.items())


class Weights:
    """Elementary weights Φ_i(t) of the stages of a tableau, kept once computed.

    linear: the rows where a node has one child alone, which are a Rosenbrock method's α + γ.
    Source: Hairer, Wanner, Solving Ordinary Differential Equations II, IV.7, Theorem 7.4.
    """

    def __init__(self, rows: Sequence[Sequence[Fraction]], linear: Sequence[Sequence[Fraction]] = ()) -> None:
        self.rows, self.linear = rows, linear or rows
        self._found: dict[Tree, list[Fraction]] = {}

    def __call__(self, tree: Tree) -> list[Fraction]:
        """Φ_i(t) for each stage i."""
        if tree not in self._found:
            rows = self.linear if len(tree) == 1 else self.rows
            factors = [self._inner(child, rows) for child in tree]
            stages = range(len(self.rows))
            self._found[tree] = [math.prod((f[i] for f in factors), start=Fraction(1)) for i in stages]
        return self._found[tree]

    def _inner(self, tree: Tree, rows: Sequence[Sequence[Fraction]]) -> list[Fraction]:
        phi = self(tree)
        return [dot(row, phi) for row in rows]


def dot(weights: Sequence[Fraction], values: Sequence[Fraction]) -> Fraction:
    """Σ w_i v_i over the shorter of the two (weights may end before the last stage)."""
    return sum((w * v for w, v in zip(weights, values, strict=False) if w), Fraction(0))
