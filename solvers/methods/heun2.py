"""Heun's second-order method, the explicit trapezoidal rule.

K. Heun, Neue Methoden zur approximativen Integration der Differentialgleichungen einer
unabhängigen Veränderlichen, Z. Math. Phys. 45 (1900) 23–38.
"""

from __future__ import annotations

from .tableau import Tableau, q

HEUN2 = Tableau(name="heun2", order=2, c=q("0 1"), a=(q(""), q("1")), b=q("1/2 1/2"))
