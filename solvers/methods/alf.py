"""The asynchronous leapfrog, order 2: a step of y and a velocity v beside it, one evaluation of f.

    y' = y + h v / 2,   u = f(t + h/2, y'),   v1 = v + 2η (u − v)
    y1 = y' + h v1 / 2 = y + h ((1 − η) v + η u)

v0 = f(t0, y0). With η ≠ 1/2 the step can be undone. As a tableau: the stages are v, u and v1, and b is
(1 − η, η). η is 1 here, so that y1 = y + h u is the midpoint rule's with v in place of f(t, y).

The quadratic through y with slope v at both ends, y + h ((θ − ηθ²) v + ηθ² u), meets y1 as well, and costs no
evaluation. The error estimate is the distance h η (u − v) from Euler's step y + h v. v is off by O(h²), so
the estimate is h² y''/2 + O(h³) with η = 1: Euler's local error, larger than that of y1, as with
adaptive_heun.

Sources: U. Mutze, An asynchronous leapfrog method II, arXiv 1311.6602 (2013); J. Zhuang et al., MALI, ICLR
2021, arXiv 2102.04668.
"""

from __future__ import annotations

from .tableau import Tableau, q

ALF = Tableau(
    name="alf",
    order=2,
    c=q("0 1/2"),
    a=(q(""), q("1/2")),
    b=q("0 1"),
    b_hat=q("1 0"),
    order_hat=1,
    dense=(q("1 -1"), q("0 1"), q("0 0")),
    dense_order=2,
    leapfrog=True,
)
