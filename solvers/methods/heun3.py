"""Heun's third-order method.

K. Heun, Neue Methoden zur approximativen Integration der Differentialgleichungen einer
unabhängigen Veränderlichen, Z. Math. Phys. 45 (1900) 23–38; Hairer, Nørsett, Wanner I, II.1,
Table 1.1.
"""

from __future__ import annotations

from .tableau import Tableau, q

HEUN3 = Tableau(name="heun3", order=3, c=q("0 1/3 2/3"), a=(q(""), q("1/3"), q("0 2/3")), b=q("1/4 0 3/4"))
