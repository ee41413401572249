"""Radau IIA of order 5, three coupled stages; stiffly accurate, L-stable.

E. Hairer, G. Wanner, Solving Ordinary Differential Equations II, 1996, IV.5, Table 5.6, and IV.8. The first
stage here is f(t0, y0), which the error estimate and the dense output weigh and the method itself does not.
The embedded solution is that of (8.18), of order 3, with γ0 the real eigenvalue of A: ŷ − y1 =
dt γ0 f(t0, y0) + Σ e_i z_i, with z = dt A k and e = γ0/3 (−13 − 7√6, −13 + 7√6, −1).

The dense output is the polynomial of degree 4 whose slopes are those of all four stages: at the end it is
y1, since a quadrature with these four nodes has one set of weights, Radau's, with none for the first. It has
order 4, one more than the collocation polynomial, and its slopes are f at both ends.
"""

from __future__ import annotations

from fractions import Fraction

from .tableau import Row, Tableau

_ROOT = Fraction("2.4494897427831780981972840747058913919659474806")
_GAMMA = Fraction("0.274888829595677367747828603599414779294593414")
_ZERO, _ONE = Fraction(0), Fraction(1)
_A = (
    ((88 - 7 * _ROOT) / 360, (296 - 169 * _ROOT) / 1800, (-2 + 3 * _ROOT) / 225),
    ((296 + 169 * _ROOT) / 1800, (88 + 7 * _ROOT) / 360, (-2 - 3 * _ROOT) / 225),
    ((16 - _ROOT) / 36, (16 + _ROOT) / 36, Fraction(1, 9)),
)
_C = (_ZERO, (4 - _ROOT) / 10, (4 + _ROOT) / 10, _ONE)
_E = tuple(_GAMMA / 3 * w for w in (-13 - 7 * _ROOT, -13 + 7 * _ROOT, -1))
_B = (_ZERO, *_A[2])
_ERROR = (_GAMMA, *(sum((e * row[j] for e, row in zip(_E, _A, strict=True)), _ZERO) for j in range(3)))


def _integrals(nodes: Row) -> tuple[Row, ...]:
    """For each node the coefficients of θ, θ², … in ∫₀^θ of its Lagrange polynomial."""
    rows = []
    for i, own in enumerate(nodes):
        polynomial = [_ONE]
        for j, other in enumerate(nodes):
            if j != i:
                shifted = [_ZERO, *polynomial]
                low = [*(w * other for w in polynomial), _ZERO]
                polynomial = [(x - y) / (own - other) for x, y in zip(shifted, low, strict=True)]
        rows.append(tuple(w / k for k, w in enumerate(polynomial, 1)))
    return tuple(rows)


RADAU5 = Tableau(
    name="radau5",
    order=5,
    c=_C,
    a=((), *((_ZERO, *row) for row in _A)),
    b=_B,
    b_hat=tuple(b + e for b, e in zip(_B, _ERROR, strict=True)),
    order_hat=3,
    dense=_integrals(_C),
    dense_order=4,
    rounded=True,
)
