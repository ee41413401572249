"""Fehlberg's 1(2) pair, propagating the second-order solution.

E. Fehlberg, Low-order classical Runge–Kutta formulas with stepsize control and their application
to some heat transfer problems, NASA TR R-315 (1969). Its last stage is f at the end of the
first-order solution, so it is not the next step's first stage (torchdiffeq hands it on as such);
here f(t1, y1) is evaluated.
"""

from __future__ import annotations

from .tableau import Tableau, q

FEHLBERG2 = Tableau(
    name="fehlberg2",
    order=2,
    c=q("0 1/2 1"),
    a=(q(""), q("1/2"), q("1/256 255/256")),
    b=q("1/512 255/256 1/512"),
    b_hat=q("1/256 255/256 0"),
    order_hat=1,
)
