"""Kværnø's ESDIRK 3(2), four stages, the first explicit; stiffly accurate, L-stable.

A. Kværnø, Singly diagonally implicit Runge–Kutta methods with an explicit first stage, BIT 44 (2004)
489–502, method "ESDIRK 3/2 with 4 stages", a. γ is the root near 0.436 of γ³ − 3γ² + 3γ/2 − 1/6, which
makes it L-stable; all else are functions of γ. The embedded solution, of order 2, is the third stage: it
is stiffly accurate too, so their difference does not overestimate the error of stiff components.
"""

from __future__ import annotations

from fractions import Fraction

from .tableau import Tableau, q

_GAMMA = Fraction("0.435866521508458999416019451193556842529294093")
_ZERO, _ONE = Fraction(0), Fraction(1)
_THIRD = ((-4 * _GAMMA**2 + 6 * _GAMMA - 1) / (4 * _GAMMA), (1 - 2 * _GAMMA) / (4 * _GAMMA), _GAMMA)
_LAST = (
    (6 * _GAMMA - 1) / (12 * _GAMMA),
    1 / ((12 - 24 * _GAMMA) * _GAMMA),
    (6 * _GAMMA**2 - 6 * _GAMMA + 1) / (3 - 6 * _GAMMA),
    _GAMMA,
)

KVAERNO3 = Tableau(
    name="kvaerno3",
    order=3,
    c=(_ZERO, 2 * _GAMMA, _ONE, _ONE),
    a=(q(""), (_GAMMA, _GAMMA), _THIRD, _LAST),
    b=_LAST,
    b_hat=(*_THIRD, _ZERO),
    order_hat=2,
    rounded=True,
)
