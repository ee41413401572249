"""Rodas5P of Steinebach, 5(4), eight stages; stiffly accurate, L-stable.

G. Steinebach, Construction of Rosenbrock–Wanner method Rodas5P and numerical benchmarks within the Julia
Differential Equations package, BIT 63 (2023) 27; coefficients of the u_i, 16 digits. The embedded solution,
of order 4, is the argument of the last stage: the error estimate is u_8. The dense output, of order 4, is

    y(θ) = (1 − θ) y0 + θ (y1 + (1 − θ) (K_1 + θ K_2 + θ² K_3)),   K_l = Σ_j h_lj u_j
"""

from __future__ import annotations

from fractions import Fraction

from .rosenbrock import Weights, behind_first
from .tableau import Row, Tableau, q

_GAMMA = Fraction("0.21193756319429014")
_NODES = q("0 0.6358126895828704 0.4095798393397535 0.9769306725060716 0.4288403609558664 1 1 1")
_SIXTH = q(
    "-7.502846399306121 2.561846144803919 -11.627539656261098 -0.18268767659942256 0.030198172008377946"
)
_A = (
    q(""),
    q("3"),
    q("2.849394379747939 0.45842242204463923"),
    q("-6.954028509809101 2.489845061869568 -10.358996098473584"),
    q("2.8029986275628964 0.5072464736228206 -0.3988312541770524 -0.04721187230404641"),
    _SIXTH,
    (*_SIXTH, *q("1")),
    (*_SIXTH, *q("1 1")),
)
_C = (
    q(""),
    q("-14.155112264123755"),
    q("-17.97296035885952 -2.859693295451294"),
    q("147.12150275711716 -1.41221402718213 71.68940251302358"),
    q("165.43517024871676 -0.4592823456491126 42.90938336958603 -5.961986721573306"),
    q("24.854864614690072 -3.0009227002832186 47.4931110020768 5.5814197821558125 -0.6610691825249471"),
    q(
        "30.91273214028599 -3.1208243349937974 77.79954646070892 34.28646028294783 -19.097331116725623 "
        "-28.087943162872662"
    ),
    q(
        "37.80277123390563 -3.2571969029072276 112.26918849496327 66.9347231244047 -40.06618937091002 "
        "-54.66780262877968 -9.48861652309627"
    ),
)
_H = (
    q(
        "25.948786856663858 -2.5579724845846235 10.433815404888879 -2.3679251022685204 0.524948541321073 "
        "1.1241088310450404 0.4272876194431874 -0.17202221070155493"
    ),
    q(
        "-9.91568850695171 -0.9689944594115154 3.0438037242978453 -24.495224566215796 20.176138334709044 "
        "15.98066361424651 -6.789040303419874 -6.710236069923372"
    ),
    q(
        "11.419903575922262 2.8879645146136994 72.92137995996029 80.12511834622643 -52.072871366152654 "
        "-59.78993625266729 -0.15582684282751913 4.883087185713722"
    ),
)
_ZERO, _ONE = q("0 1")
_OF = Weights.of_codes(_GAMMA, _C)
_B = _OF((*_SIXTH, *q("1 1 1")), _ONE)
_B_HAT = _OF((*_SIXTH, *q("1 1 0")), _ONE)


def _dense() -> tuple[Row, ...]:
    """The coefficients of θ … θ⁴ of every stage; none is f at either end."""
    first, second, third = (_OF(row, _ZERO) for row in _H)
    rows = [(b + x, y - x, z - y, -z) for b, x, y, z in zip(_B, first, second, third, strict=True)]
    nothing = (_ZERO,) * 4
    return (nothing, *rows, nothing)


RODAS5P = Tableau(
    name="rodas5p",
    order=5,
    c=(_ZERO, *_NODES),
    a=behind_first([_OF(row, node) for row, node in zip(_A, _NODES, strict=True)]),
    b=(_ZERO, *_B),
    b_hat=(_ZERO, *_B_HAT),
    order_hat=4,
    dense=_dense(),
    dense_order=4,
    rounded=True,
    gamma=behind_first(_OF.gamma),
)
