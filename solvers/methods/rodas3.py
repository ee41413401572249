"""RODAS3 of Sandu and others, 3(2), four stages, the first two of one evaluation; stiffly accurate, L-stable.

A. Sandu, J. G. Verwer, J. G. Blom, E. J. Spee, G. R. Carmichael, F. A. Potra, Benchmarking stiff ODE solvers
for atmospheric chemistry problems II: Rosenbrock solvers, Atmos. Environ. 31 (1997) 3459–3472. The embedded
solution, of order 2, is the argument of the last stage. The dense output is Hermite's.
"""

from __future__ import annotations

from .rosenbrock import behind_first
from .tableau import Tableau, q

RODAS3 = Tableau(
    name="rodas3",
    order=3,
    c=q("0 0 0 1 1"),
    a=behind_first((q(""), q("0"), q("1 0"), q("3/4 -1/4 1/2"))),
    b=q("0 5/6 -1/6 -1/6 1/2"),
    b_hat=q("0 3/4 -1/4 1/2 0"),
    order_hat=2,
    gamma=behind_first((q("1/2"), q("1 1/2"), q("-1/4 -1/4 1/2"), q("1/12 1/12 -2/3 1/2"))),
)
