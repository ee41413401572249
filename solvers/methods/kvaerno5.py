"""Kværnø's ESDIRK 5(4), seven stages, the first explicit; stiffly accurate, L-stable.

A. Kværnø, Singly diagonally implicit Runge–Kutta methods with an explicit first stage, BIT 44 (2004)
489–502, method "ESDIRK 5/4 with 7 stages", a: 17 digits. The embedded solution, of order 4, is the
sixth stage. The third stage lies 0.23 steps past the end of the step: f is evaluated there.

The paper has no dense output. Here the coefficients of θ² are those of smallest norm, with none for the
second stage, for which all conditions of order 4 hold: Σw = Σwc² = Σwc³ = ΣwAc² = 0, Σwc = 1/2 (the
method has stage order 2, which implies the others); values and slopes at both ends do the rest.
"""

from __future__ import annotations

from .tableau import Tableau, join_smoothly, q

_SIXTH = q("0.13855640231268224 0 -0.04245337201752043 0.02446657898003141 0.61943039072480676 0.26")
_LAST = q(
    "0.13659751177640291 0 -0.05496908796538376 -0.04118626728321046 "
    "0.62993304899016403 0.06962479448202728 0.26"
)
_ROWS = (
    q(""),
    q("0.26 0.26"),
    q("0.13 0.84033320996790809 0.26"),
    q("0.22371961478320505 0.47675532319799699 -0.06470895363112615 0.26"),
    q("0.16648564323248321 0.10450018841591720 0.03631482272098715 -0.13090704451073998 0.26"),
    _SIXTH,
    _LAST,
)
_THETA_2 = q(
    "-2.10142483736119573599289 0 0.654963722579418069995725 -1.65150879966411471317286 "
    "3.414489547542166575104212 1.055961904683485944887393 -1.37248153777976014082157"
)

KVAERNO5 = Tableau(
    name="kvaerno5",
    order=5,
    c=tuple(sum(row, q("0")[0]) for row in _ROWS),
    a=_ROWS,
    b=_LAST,
    b_hat=(*_SIXTH, *q("0")),
    order_hat=4,
    dense=join_smoothly(tuple(zip(q("1 0 0 0 0 0 0"), _THETA_2, strict=True)), _LAST, 6),
    dense_order=4,
    rounded=True,
    beyond=True,
)
