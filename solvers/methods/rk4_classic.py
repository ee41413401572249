"""The classical Runge–Kutta method, order 4.

W. Kutta, Beitrag zur näherungsweisen Integration totaler Differentialgleichungen, Z. Math. Phys.
46 (1901) 435–453; Hairer, Nørsett, Wanner I, II.1, Table 1.2.
"""

from __future__ import annotations

from .tableau import Tableau, q

RK4_CLASSIC = Tableau(
    name="rk4_classic",
    order=4,
    c=q("0 1/2 1/2 1"),
    a=(q(""), q("1/2"), q("0 1/2"), q("0 0 1")),
    b=q("1/6 1/3 1/3 1/6"),
)
