"""Bogacki–Shampine 3(2), four stages, FSAL.

P. Bogacki, L. F. Shampine, A 3(2) pair of Runge–Kutta formulas, Appl. Math. Lett. 2 (1989)
321–325. The cubic Hermite interpolant, which they recommend, has the method's order.
"""

from __future__ import annotations

from .tableau import Tableau, q

BOSH3 = Tableau(
    name="bosh3",
    order=3,
    c=q("0 1/2 3/4 1"),
    a=(q(""), q("1/2"), q("0 3/4"), q("2/9 1/3 4/9")),
    b=q("2/9 1/3 4/9 0"),
    b_hat=q("7/24 1/4 1/3 1/8"),
    order_hat=2,
)
