"""Kutta's 3/8 rule, order 4: the method that torchdiffeq calls ``rk4``.

W. Kutta, Beitrag zur näherungsweisen Integration totaler Differentialgleichungen, Z. Math. Phys.
46 (1901) 435–453; Hairer, Nørsett, Wanner I, II.1, Table 1.2. What most books call "the"
Runge–Kutta method is `rk4_classic`.
"""

from __future__ import annotations

from .tableau import Tableau, q

RK4 = Tableau(
    name="rk4",
    order=4,
    c=q("0 1/3 2/3 1"),
    a=(q(""), q("1/3"), q("-1/3 1"), q("1 -1 1")),
    b=q("1/8 3/8 3/8 1/8"),
)
