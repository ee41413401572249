"""Heun's second-order method with Euler's embedded, 2(1).

K. Heun, Neue Methoden zur approximativen Integration der Differentialgleichungen einer
unabhängigen Veränderlichen, Z. Math. Phys. 45 (1900) 23–38; embedding: Hairer, Nørsett, Wanner I,
II.4. The error estimate equals torchdiffeq's up to its sign. There the second stage f(t1, y0 + h f0)
is handed on as the next step's first, which it is not; here f(t1, y1) is evaluated.
"""

from __future__ import annotations

from .tableau import Tableau, q

ADAPTIVE_HEUN = Tableau(
    name="adaptive_heun", order=2, c=q("0 1"), a=(q(""), q("1")), b=q("1/2 1/2"), b_hat=q("1 0"), order_hat=1
)
