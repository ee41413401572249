"""Runge's midpoint method, order 2.

C. Runge, Über die numerische Auflösung von Differentialgleichungen, Math. Ann. 46 (1895) 167–178;
Hairer, Nørsett, Wanner I, II.1, Table 1.1.
"""

from __future__ import annotations

from .tableau import Tableau, q

MIDPOINT = Tableau(name="midpoint", order=2, c=q("0 1/2"), a=(q(""), q("1/2")), b=q("0 1"))
