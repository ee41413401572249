"""Stiff problems whose solutions are published: right-hand sides, starts, spans.

Sources: E. Hairer, G. Wanner, Solving Ordinary Differential Equations II, IV.10, and the test set of its
authors ("hw"); Test Set for IVP Solvers, Bari ("bari"); W. H. Enright, J. D. Pryce, Two FORTRAN packages for
assessing initial value methods, ACM TOMS 13 (1987) 1–27 ("detest").
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Columns = Callable[..., Sequence[Tensor]]


@dataclasses.dataclass(frozen=True)
class Stiff:
    """One problem: y' = f(t, y), y(0) = start, up to t = end.

    floor: atol is so much of rtol, about the size of what is to be resolved.
    """

    name: str
    f: Callable[[Tensor, Tensor], Tensor]
    start: tuple[float, ...]
    end: float
    floor: float = 1e-3


def by_columns(columns: Columns) -> Callable[[Tensor, Tensor], Tensor]:
    """The right-hand side [..., n] from one of its entries, f(y1, …, yn) → (y1', …, yn')."""
    return lambda t, y: torch.stack(torch.broadcast_tensors(*columns(*y.unbind(-1))), -1)


def linear(rows: Sequence[Sequence[float]], shift: Sequence[float] | None = None) -> Columns:
    """A y + shift."""

    def columns(*y: Tensor) -> Sequence[Tensor]:
        found = [sum((w * x for w, x in zip(row, y, strict=True) if w), 0.0 * y[0]) for row in rows]
        return found if shift is None else [x + s for x, s in zip(found, shift, strict=True)]

    return columns


def robertson(a: Tensor, b: Tensor, c: Tensor) -> Sequence[Tensor]:
    """Three species, rates 0.04, 1e4, 3e7."""
    r1, r2, r3 = 0.04 * a, 1e4 * b * c, 3e7 * b * b
    return r2 - r1, r1 - r2 - r3, r3


def van_der_pol(mu: float) -> Columns:
    """y'' = mu (1 − y²) y' − y."""
    return lambda a, b: (b, mu * (1 - a * a) * b - a)


def oregonator(a: Tensor, b: Tensor, c: Tensor) -> Sequence[Tensor]:
    """Field and Noyes' model of the Belousov–Zhabotinsky reaction."""
    return 77.27 * (b + a * (1 - 8.375e-6 * a - b)), (c - (1 + a) * b) / 77.27, 0.161 * (a - c)


def hires(*y: Tensor) -> Sequence[Tensor]:
    """High irradiance responses of photomorphogenesis, eight species."""
    r = 280 * y[5] * y[7]
    last = r - 1.81 * y[6]
    return (
        -1.71 * y[0] + 0.43 * y[1] + 8.32 * y[2] + 0.0007,
        1.71 * y[0] - 8.75 * y[1],
        -10.03 * y[2] + 0.43 * y[3] + 0.035 * y[4],
        8.32 * y[1] + 1.71 * y[2] - 1.12 * y[3],
        -1.745 * y[4] + 0.43 * y[5] + 0.43 * y[6],
        -r + 0.69 * y[3] + 1.71 * y[4] - 0.43 * y[5] + 0.69 * y[6],
        last,
        -last,
    )


def e5(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Sequence[Tensor]:
    """Pyrolysis; y3' is written as y2' − y4', which loses no digits."""
    r1, r2, r3, r4 = 7.89e-10 * a, 1.1e7 * a * c, 1.13e9 * b * c, 1.13e3 * d
    second, fourth = r1 - r3, r2 - r4
    return -r1 - r2, second, second - fourth, fourth


_K = (
    *(0.35, 26.6, 12300, 0.00086, 0.00082, 15000, 0.00013, 24000, 16500, 9000, 0.022, 12000, 1.88, 16300),
    *(4.8e6, 0.00035, 0.0175, 1e8, 4.44e11, 1240, 2.1, 5.78, 0.0474, 1780, 3.12),
)
# Of each of the 25 reactions the species that meet, and what it makes (+) and uses (−), counted from 1.
_REACTIONS = (
    *(((1,), "-1 +2 +3"), ((2, 4), "-2 -4 +1"), ((5, 2), "-5 -2 +1 +6"), ((7,), "-7 +5 +5 +8")),
    *(((7,), "-7 +8"), ((7, 6), "-7 -6 +5 +8"), ((9,), "-9 +5 +8 +10"), ((9, 6), "-9 -6 +11")),
    *(
        ((11, 2), "-11 -2 +1 +10 +12"),
        ((11, 1), "-11 -1 +13"),
        ((13,), "-13 +11 +1"),
        ((10, 2), "-10 -2 +14 +1"),
    ),
    *(((14,), "-14 +7 +5"), ((1, 6), "-1 -6 +15"), ((3,), "-3 +4"), ((4,), "-4 +16"), ((4,), "-4 +3")),
    *(
        ((16,), "-16 +6 +6"),
        ((16,), "-16 +3"),
        ((17, 6), "-17 -6 +18 +5"),
        ((19,), "-19 +2"),
        ((19,), "-19 +1 +3"),
    ),
    *(((1, 4), "-1 -4 +19"), ((19, 1), "-19 -1 +20"), ((20,), "-20 +19 +1")),
)


def pollution(*y: Tensor) -> Sequence[Tensor]:
    """Chemistry of polluted air, 20 species, 25 reactions."""
    found = [0.0 * y[0]] * len(y)
    for k, (meeting, change) in zip(_K, _REACTIONS, strict=True):
        rate = k * math.prod((y[i - 1] for i in meeting), start=1.0)
        for word in change.split():
            found[abs(int(word)) - 1] = found[abs(int(word)) - 1] + math.copysign(1.0, int(word)) * rate
    return found


def brusselator(t: Tensor, y: Tensor) -> Tensor:
    """Two species on a line of 500 points, u and v by turns."""
    u, v = y[..., ::2], y[..., 1::2]
    n, reaction = u.shape[-1], u * u * v
    diffusion = 0.02 * (n + 1) ** 2

    def spread(w: Tensor, edge: float) -> Tensor:
        ends = torch.full_like(w[..., :1], edge)
        whole = torch.cat((ends, w, ends), -1)
        return diffusion * (whole[..., 2:] - 2 * w + whole[..., :-2])

    du, dv = 1 + reaction - 4 * u + spread(u, 1.0), 3 * u - reaction + spread(v, 3.0)
    return torch.stack((du, dv), -1).flatten(-2)


def cusp(t: Tensor, y: Tensor) -> Tensor:
    """Threshold nerve impulses with the cusp catastrophe, 32 nerves on a ring."""
    x, a, b = y.unflatten(-1, (-1, 3)).unbind(-1)
    diffusion = x.shape[-1] ** 2 / 144
    u = (x - 0.7) * (x - 1.3)
    v = u / (u + 0.1)

    def spread(w: Tensor) -> Tensor:
        return diffusion * (w.roll(1, -1) - 2 * w + w.roll(-1, -1))

    found = (
        -1e4 * (b + x * (a + x * x)) + spread(x),
        b + 0.07 * v + spread(a),
        (1 - a * a) * b - a - 0.4 * x + 0.035 * v + spread(b),
    )
    return torch.stack(found, -1).flatten(-2)


def _c2(b: float) -> Columns:
    def columns(w: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Sequence[Tensor]:
        w2, x2, y2 = w * w, x * x, y * y
        return 2 - w, b * w2 - 10 * x, 4 * b * (w2 + x2) - 40 * y, 10 * b * (w2 + x2 + y2) - 100 * z

    return columns


def _c1(w: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Sequence[Tensor]:
    x2, y2, z2 = x * x, y * y, z * z
    return x2 + y2 + z2 - w, 10 * (y2 + z2) - 10 * x, 40 * z2 - 40 * y, 2 - 100 * z


def _b2(a: float) -> Columns:
    slow = [[0.0] * i + [w] + [0.0] * (5 - i) for i, w in ((2, -4.0), (3, -1.0), (4, -0.5), (5, -0.1))]
    return linear([[-10.0, a, 0, 0, 0, 0], [-a, -10.0, 0, 0, 0, 0], *slow])


def _d1(a: Tensor, b: Tensor, c: Tensor) -> Sequence[Tensor]:
    return 0.2 * (b - a), 10 * a - (60 - 0.125 * c) * b + 0.125 * c, 1.0 + 0.0 * c


def _d2(a: Tensor, b: Tensor, c: Tensor) -> Sequence[Tensor]:
    return -0.04 * a + 0.01 * b * c, 400 * a - 100 * b * c - 3000 * b * b, 30 * b * b


def _d3(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Sequence[Tensor]:
    r, s = c - 100 * a * b, d - 1e4 * b * b
    return r, r + 2 * s, -r, -s


def _d4(a: Tensor, b: Tensor, c: Tensor) -> Sequence[Tensor]:
    first, second = -0.013 * a - 1000 * a * c, -2500 * b * c
    return first, second, first + second


def _d5(a: Tensor, b: Tensor) -> Sequence[Tensor]:
    s = 0.01 + a + b
    return 0.01 - s * (1 + (a + 1000) * (a + 1)), 0.01 - s * (1 + b * b)


def _d6(a: Tensor, b: Tensor, c: Tensor) -> Sequence[Tensor]:
    first, second = -a + 1e8 * c * (1 - a), -10 * b + 3e7 * c * (1 - b)
    return first, second, -first - second


def _e3(a: Tensor, b: Tensor, c: Tensor) -> Sequence[Tensor]:
    return -(55 + c) * a + 65 * b, 0.0785 * (a - b), 0.1 * a


def _f1(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Sequence[Tensor]:
    k = 0.006 * torch.exp(20.7 - 15000 / a)
    return (
        1.3 * (c - a) + 10400 * k * b,
        1880 * (d - b * (1 + k)),
        1752 - 269 * c + 267 * a,
        0.1 + 320 * b - 321 * d,
    )


def _f2(a: Tensor, b: Tensor) -> Sequence[Tensor]:
    return -a - a * b + 294 * b, a * (1 - b) / 98 - 3 * b


def _f3(a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor) -> Sequence[Tensor]:
    r, s = 1e7 * a * b, 1e7 * b * e
    return (
        10 * c - r,
        10 * c + 10 * d - r - s,
        r - 10010 * c + 0.001 * d,
        1e4 * c - 10.001 * d + s,
        10 * d - s,
    )


def _f5(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Sequence[Tensor]:
    r, s = 3e11 * a * b, 9e11 * a * c
    return 1.2e8 * d - r - s, 2e7 * d - r, 1e8 * d - s, r - 1.2e8 * d + s


def _a2() -> Columns:
    rows = [[0.0] * 9 for _ in range(9)]
    for i in range(9):
        for j, w in ((i - 1, 1.0), (i, -2.0), (i + 1, 1.0)):
            if 0 <= j < 9:
                rows[i][j] = w
    rows[0][:2], rows[8][7:] = [-1800.0, 900.0], [1000.0, -2000.0]
    return linear(rows, [0.0] * 8 + [1000.0])


_A1 = [[-0.5, 0, 0, 0], [0, -1.0, 0, 0], [0, 0, -100.0, 0], [0, 0, 0, -90.0]]
_A3 = [[-1e4, 100.0, -10.0, 1.0], [0, -1e3, 10.0, -10.0], [0, 0, -1.0, 10.0], [0, 0, 0, -0.1]]
_A4 = [[-(float(i) ** 5) if j == i else 0.0 for j in range(1, 11)] for i in range(1, 11)]
_B1 = [[-1.0, 1.0, 0, 0], [-100.0, -1.0, 0, 0], [0, 0, -100.0, 1.0], [0, 0, -1e4, -100.0]]
_RING = [2 * math.pi * i / 32 for i in range(1, 33)]
_LINE = [w for i in range(1, 501) for w in (1 + 0.5 * math.sin(2 * math.pi * i / 501), 3.0)]
_POLLUTED = (0.0, 0.2, 0.0, 0.04, 0.0, 0.0, 0.1, 0.3, 0.01, *[0.0] * 7, 0.007, 0.0, 0.0, 0.0)


def _made(name: str, columns: Columns, start: Sequence[float], end: float, floor: float = 1e-3) -> Stiff:
    return Stiff(name, by_columns(columns), tuple(start), end, floor)


def _field(name: str, f: Callable[[Tensor, Tensor], Tensor], start: Sequence[float], end: float) -> Stiff:
    return Stiff(name, f, tuple(start), end)


_ONES = (1.0, 1.0, 1.0, 1.0)
PROBLEMS = (
    _made("pollution", pollution, _POLLUTED, 60, 1e-6),
    _made("robertson_bari", robertson, (1, 0, 0), 1e11, 1e-11),
    _made("vdpol_bari", van_der_pol(1000), (2, 0), 2000),
    _made("oregonator_bari", oregonator, (1, 2, 3), 360),
    _made("vdpol_hw", lambda a, b: (b, ((1 - a * a) * b - a) / 1e-6), (2, 0), 11),
    _made("oregonator_hw", oregonator, (1, 2, 3), 360),
    _made("hires_hw", hires, (1, 0, 0, 0, 0, 0, 0, 0.0057), 421.8122, 1e-4),
    _made("e5_hw", e5, (1.76e-3, 0, 0, 0), 1e13, 1e-20),
    _made("robertson_hw", robertson, (1, 0, 0), 1e11, 1e-11),
    _field("brusselator_1d_hw", brusselator, _LINE, 10),
    _field("cusp_hw", cusp, [w for z in _RING for w in (0.0, -2 * math.cos(z), 2 * math.sin(z))], 1.1),
    _made("stiff_detest_A1", linear(_A1), _ONES, 20),
    _made("stiff_detest_A2", _a2(), [0.0] * 9, 120),
    _made("stiff_detest_A3", linear(_A3), _ONES, 20),
    _made("stiff_detest_A4", linear(_A4), [1.0] * 10, 1),
    _made("stiff_detest_B1", linear(_B1), (1, 0, 1, 0), 20),
    _made("stiff_detest_B2", _b2(3.0), [1.0] * 6, 20),
    _made("stiff_detest_B5", _b2(100.0), [1.0] * 6, 20),
    _made("stiff_detest_C1", _c1, _ONES, 20),
    *(_made(f"stiff_detest_C{i}", _c2(b), _ONES, 20) for i, b in ((2, 0.1), (3, 1.0), (4, 10.0), (5, 20.0))),
    _made("stiff_detest_D1", _d1, (0, 0, 0), 400),
    _made("stiff_detest_D2", _d2, (1, 0, 0), 40),
    _made("stiff_detest_D3", _d3, (1, 1, 0, 0), 20),
    _made("stiff_detest_D4", _d4, (1, 1, 0), 50, 1e-5),
    _made("stiff_detest_D5", _d5, (0, 0), 100),
    _made("stiff_detest_D6", _d6, (1, 0, 0), 1, 1e-7),
    _made("stiff_detest_E2", van_der_pol(5), (2, 0), 10),
    _made("stiff_detest_E3", _e3, (1, 1, 0), 500),
    _made("stiff_detest_E5", e5, (1.76e-3, 0, 0, 0), 1000, 1e-12),
    _made("stiff_detest_F1", _f1, (761, 0, 600, 0.1), 1000, 1e-4),
    _made("stiff_detest_F2", _f2, (1, 0), 240),
    _made("stiff_detest_F3", _f3, (4e-6, 1e-6, 0, 0, 0), 100, 1e-8),
    _made("stiff_detest_F4", oregonator, (4, 1.1, 4), 300),
    _made("stiff_detest_F5", _f5, (3.365e-7, 8.261e-3, 1.642e-3, 9.38e-6), 100, 1e-7),
)
