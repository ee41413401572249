"""Euler's method, order 1.

L. Euler, Institutionum calculi integralis, vol. I (1768), § 650; Hairer, Nørsett, Wanner I, I.7.
"""

from __future__ import annotations

from .tableau import Tableau, q

EULER = Tableau(name="euler", order=1, c=q("0"), a=(q(""),), b=q("1"))
