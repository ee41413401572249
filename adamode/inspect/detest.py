"""DETEST: the 25 non-stiff problems of Hull, Enright, Fellen and Sedgwick, classes A to E, on [0, 20].

A: single equations.  B: small systems.  C: moderate systems.  D: orbits.  E: higher order.
Each takes y [..., n], and t 0-d or, where every sample has its own, [..., 1].

Source: T. E. Hull, W. H. Enright, B. M. Fellen, A. E. Sedgwick, Comparing numerical methods for
ordinary differential equations, SIAM Journal on Numerical Analysis 9 (1972) 603–637.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..solvers.lazy import Later
from .problem import Field, Problem

if TYPE_CHECKING:
    import scipy.special as special
    import torch
    from torch import Tensor
else:
    torch, special = Later("torch"), Later("scipy.special")  # for what is solved: the list needs none

_SOURCE = "Hull, Enright, Fellen, Sedgwick, SIAM J. Numer. Anal. 9 (1972) 603–637, problem "


def _problem(
    name: str,
    f: Field,
    y0: tuple[float, ...],
    solution: Callable[[float], tuple[float, ...]] | None = None,
    plane: tuple[int, int] = (0, 1),
) -> Problem:
    return Problem(f"detest-{name}", f, y0, (0.0, 20.0), _SOURCE + name.upper(), solution, plane=plane)


def a1(t: Tensor, y: Tensor) -> Tensor:
    """y' = −y"""
    return -y


def a2(t: Tensor, y: Tensor) -> Tensor:
    """y' = −y³/2"""
    return -(y**3) / 2


def a3(t: Tensor, y: Tensor) -> Tensor:
    """y' = y cos t"""
    return y * torch.cos(t)


def a4(t: Tensor, y: Tensor) -> Tensor:
    """y' = y/4 (1 − y/20)"""
    return y / 4 * (1 - y / 20)


def a5(t: Tensor, y: Tensor) -> Tensor:
    """y' = (y − t)/(y + t)"""
    return (y - t) / (y + t)


def b1(t: Tensor, y: Tensor) -> Tensor:
    """y1' = 2 (y1 − y1 y2), y2' = −(y2 − y1 y2)"""
    y1, y2 = y.split(1, -1)
    return torch.cat((2 * (y1 - y1 * y2), y1 * y2 - y2), -1)


def b2(t: Tensor, y: Tensor) -> Tensor:
    """y1' = −y1 + y2, y2' = y1 − 2 y2 + y3, y3' = y2 − y3"""
    y1, y2, y3 = y.split(1, -1)
    return torch.cat((y2 - y1, y1 - 2 * y2 + y3, y2 - y3), -1)


def b3(t: Tensor, y: Tensor) -> Tensor:
    """y1' = −y1, y2' = y1 − y2², y3' = y2²"""
    y1, y2, _ = y.split(1, -1)
    return torch.cat((-y1, y1 - y2 * y2, y2 * y2), -1)


def b4(t: Tensor, y: Tensor) -> Tensor:
    """y1' = −y2 − y1 y3/r, y2' = y1 − y2 y3/r, y3' = y1/r, r = √(y1² + y2²)"""
    y1, y2, y3 = y.split(1, -1)
    r = torch.sqrt(y1 * y1 + y2 * y2)
    return torch.cat((-y2 - y1 * y3 / r, y1 - y2 * y3 / r, y1 / r), -1)


def b5(t: Tensor, y: Tensor) -> Tensor:
    """y1' = y2 y3, y2' = −y1 y3, y3' = −0.51 y1 y2"""
    y1, y2, y3 = y.split(1, -1)
    return torch.cat((y2 * y3, -y1 * y3, -0.51 * y1 * y2), -1)


def _rigid_body(t: float) -> tuple[float, ...]:
    """Jacobi's sn, cn, dn with k² = 0.51."""
    return tuple(float(x) for x in special.ellipj(t, 0.51)[:3])


def _chain(y: Tensor, flow: Tensor) -> Tensor:
    """What flows from each component into the next."""
    zero = torch.zeros_like(y[..., :1])
    return torch.cat((-flow, zero), -1) + torch.cat((zero, flow), -1)


def c1(t: Tensor, y: Tensor) -> Tensor:
    """y1' = −y1, yi' = y(i−1) − yi, y10' = y9"""
    return _chain(y, y[..., :-1])


def c2(t: Tensor, y: Tensor) -> Tensor:
    """y1' = −y1, yi' = (i−1) y(i−1) − i yi, y10' = 9 y9"""
    rates = torch.arange(1, y.shape[-1], dtype=y.dtype, device=y.device)
    return _chain(y, rates * y[..., :-1])


def c3(t: Tensor, y: Tensor) -> Tensor:
    """yi' = y(i−1) − 2 yi + y(i+1), zero beyond both ends"""
    zero = torch.zeros_like(y[..., :1])
    return torch.cat((zero, y[..., :-1]), -1) - 2 * y + torch.cat((y[..., 1:], zero), -1)


# Masses of the Sun with the inner planets, and of Jupiter, Saturn, Uranus, Neptune, Pluto; time in 100 days.
_GRAVITY, _SUN = 2.95912208286, 1.00000597682
_PLANETS = (0.000954786104043, 0.000285583733151, 0.0000437273164546, 0.0000517759138449, 0.00000277777777778)
_POSITIONS = (
    *(3.42947415189, 3.35386959711, 1.35494901715),
    *(6.64145542550, 5.97156957878, 2.18231499728),
    *(11.2630437207, 14.6952576794, 6.27960525067),
    *(-30.1552268759, 1.65699966404, 1.43785752721),
    *(-21.1238353380, 28.4465098142, 15.3882659679),
)
_VELOCITIES = (
    *(-0.557160570446, 0.505696783289, 0.230578543901),
    *(-0.415570776342, 0.365682722812, 0.169143213293),
    *(-0.325325669158, 0.189706021964, 0.0877265322780),
    *(-0.0240476254170, -0.287659532608, -0.117219543175),
    *(-0.176860753121, -0.216393453025, -0.0148647893090),
)


def c5(t: Tensor, y: Tensor) -> Tensor:
    """five outer planets: xj'' = k² (−(m0 + mj) xj/rj³ + Σ over k ≠ j of mk ((xk − xj)/djk³ − xk/rk³))"""
    x, v = y.unflatten(-1, (2, 5, 3)).unbind(-3)
    m = torch.tensor(_PLANETS, dtype=y.dtype, device=y.device)[:, None]
    pull = x / (x * x).sum(-1, keepdim=True) ** 1.5
    gap = x[..., None, :, :] - x[..., None, :]  # gap[j, k] = xk − xj
    d2 = (gap * gap).sum(-1) + torch.eye(5, dtype=y.dtype, device=y.device)  # the 1 keeps 0/0 away
    others = (m * (gap / d2[..., None] ** 1.5 - pull[..., None, :, :])).sum(-2) + m * pull
    acceleration = _GRAVITY * (others - (_SUN + m) * pull)
    return torch.cat((v.flatten(-2), acceleration.flatten(-2)), -1)


def orbit(t: Tensor, y: Tensor) -> Tensor:
    """y1'' = −y1/r³, y2'' = −y2/r³, r = √(y1² + y2²)"""
    x, v = y.split(2, -1)
    return torch.cat((v, -x / (x * x).sum(-1, keepdim=True) ** 1.5), -1)


def _kepler(eccentricity: float) -> Callable[[float], tuple[float, ...]]:
    """The closed orbit by Kepler's equation u − ε sin u = t."""
    width = math.sqrt(1 - eccentricity**2)

    def solution(t: float) -> tuple[float, ...]:
        u = t
        for _ in range(100):
            step = (u - eccentricity * math.sin(u) - t) / (1 - eccentricity * math.cos(u))
            u -= step
            if abs(step) <= 1e-15 * max(1.0, abs(u)):
                break
        rate = 1 / (1 - eccentricity * math.cos(u))
        return (
            *(math.cos(u) - eccentricity, width * math.sin(u)),
            *(-math.sin(u) * rate, width * math.cos(u) * rate),
        )

    return solution


def e1(t: Tensor, y: Tensor) -> Tensor:
    """y1' = y2, y2' = −y2/(t + 1) − (1 − 0.25/(t + 1)²) y1"""
    y1, y2 = y.split(1, -1)
    return torch.cat((y2, -y2 / (t + 1) - (1 - 0.25 / (t + 1) ** 2) * y1), -1)


def _bessel(t: float) -> tuple[float, ...]:
    """J½(t + 1) = √(2/(π (t + 1))) sin(t + 1), and its derivative."""
    x = t + 1
    scale = math.sqrt(2 / (math.pi * x))
    return scale * math.sin(x), scale * (math.cos(x) - math.sin(x) / (2 * x))


def e2(t: Tensor, y: Tensor) -> Tensor:
    """y1' = y2, y2' = (1 − y1²) y2 − y1"""
    y1, y2 = y.split(1, -1)
    return torch.cat((y2, (1 - y1 * y1) * y2 - y1), -1)


def e3(t: Tensor, y: Tensor) -> Tensor:
    """y1' = y2, y2' = y1³/6 − y1 + 2 sin(2.78535 t)"""
    y1, y2 = y.split(1, -1)
    return torch.cat((y2, y1**3 / 6 - y1 + 2 * torch.sin(2.78535 * t)), -1)


def e4(t: Tensor, y: Tensor) -> Tensor:
    """y1' = y2, y2' = 0.032 − 0.4 y2²"""
    y2 = y[..., 1:]
    return torch.cat((y2, 0.032 - 0.4 * y2 * y2), -1)


def _falling(t: float) -> tuple[float, ...]:
    s = math.sqrt(0.032 * 0.4) * t
    return 30 + math.log(math.cosh(s)) / 0.4, math.sqrt(0.032 / 0.4) * math.tanh(s)


def e5(t: Tensor, y: Tensor) -> Tensor:
    """y1' = y2, y2' = √(1 + y2²)/(25 − t)"""
    y2 = y[..., 1:]
    return torch.cat((y2, torch.sqrt(1 + y2 * y2) / (25 - t)), -1)


def _pursuit(t: float) -> tuple[float, ...]:
    s = 25 / (25 - t)
    return (25 * math.log(s) - t + t * t / 50) / 2, (s - 1 / s) / 2


def _unit(n: int) -> tuple[float, ...]:
    return (1.0, *[0.0] * (n - 1))


def _orbits() -> list[Problem]:
    found = []
    for i, e in enumerate((0.1, 0.3, 0.5, 0.7, 0.9), 1):
        start = (1 - e, 0.0, 0.0, math.sqrt((1 + e) / (1 - e)))
        found.append(_problem(f"d{i}", orbit, start, _kepler(e)))
    return found


DETEST = (
    _problem("a1", a1, (1.0,), lambda t: (math.exp(-t),)),
    _problem("a2", a2, (1.0,), lambda t: (1 / math.sqrt(t + 1),)),
    _problem("a3", a3, (1.0,), lambda t: (math.exp(math.sin(t)),)),
    _problem("a4", a4, (1.0,), lambda t: (20 / (1 + 19 * math.exp(-t / 4)),)),
    _problem("a5", a5, (4.0,)),
    _problem("b1", b1, (1.0, 3.0)),
    _problem("b2", b2, (2.0, 0.0, 1.0)),
    _problem("b3", b3, (1.0, 0.0, 0.0)),
    _problem("b4", b4, (3.0, 0.0, 0.0)),
    _problem("b5", b5, (0.0, 1.0, 1.0), _rigid_body),
    _problem("c1", c1, _unit(10)),
    _problem("c2", c2, _unit(10)),
    _problem("c3", c3, _unit(10)),
    _problem("c4", c3, _unit(51)),
    _problem("c5", c5, (*_POSITIONS, *_VELOCITIES)),
    *_orbits(),
    _problem("e1", e1, _bessel(0.0), _bessel),
    _problem("e2", e2, (2.0, 0.0)),
    _problem("e3", e3, (0.0, 0.0)),
    _problem("e4", e4, (30.0, 0.0), _falling),
    _problem("e5", e5, (0.0, 0.0), _pursuit),
)
