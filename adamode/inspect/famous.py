"""Problems that every book on the subject draws."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..solvers.lazy import Later
from .problem import Problem

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = Later("torch")  # for what is solved: the list of problems needs none


def van_der_pol(name: str, mu: float, t_end: float, stiff: bool = False) -> Problem:
    """The oscillator with damping μ(y1² − 1); it relaxes in jumps where μ is large."""

    def f(t: Tensor, y: Tensor) -> Tensor:
        y1, y2 = y
        return torch.stack((y2, mu * (1 - y1 * y1) * y2 - y1))

    f.__doc__ = f"y1' = y2, y2' = {mu:g} (1 − y1²) y2 − y1"
    source = "B. van der Pol, Philosophical Magazine 2 (1926) 978–992; HW II, IV.1"
    return Problem(name, f, (2.0, 0.0), (0.0, t_end), source, stiff=stiff)


def arenstorf_f(t: Tensor, y: Tensor) -> Tensor:
    """y1'' = y1 + 2 y2' − (1−μ) (y1+μ)/D1 − μ (y1−1+μ)/D2, y2'' = y2 − 2 y1' − (1−μ) y2/D1 − μ y2/D2,
    D1 = ((y1+μ)² + y2²)^(3/2), D2 = ((y1−1+μ)² + y2²)^(3/2), μ = 0.012277471"""
    mu = 0.012277471
    y1, y2, v1, v2 = y.split(1, -1)
    d1 = ((y1 + mu) ** 2 + y2**2) ** 1.5
    d2 = ((y1 - 1 + mu) ** 2 + y2**2) ** 1.5
    a1 = y1 + 2 * v2 - (1 - mu) * (y1 + mu) / d1 - mu * (y1 - 1 + mu) / d2
    a2 = y2 - 2 * v1 - (1 - mu) * y2 / d1 - mu * y2 / d2
    return torch.cat((v1, v2, a1, a2), -1)


def pleiades_f(t: Tensor, y: Tensor) -> Tensor:
    """xi'' = Σ over j ≠ i of mj (xj − xi)/rij, yi'' = Σ over j ≠ i of mj (yj − yi)/rij,
    rij = ((xi − xj)² + (yi − yj)²)^(3/2), mi = i, i = 1 … 7"""
    place, speed = y.unflatten(-1, (4, 7)).split(2, -2)  # [..., 2, 7]
    mass = torch.arange(1, 8, dtype=y.dtype, device=y.device)
    gap = place[..., None, :] - place[..., :, None]  # gap[i, j] = place j − place i
    d2 = (gap * gap).sum(-3, keepdim=True) + torch.eye(7, dtype=y.dtype, device=y.device)  # 1: no 0/0
    return torch.cat((speed.flatten(-2), (mass * gap / d2**1.5).sum(-1).flatten(-2)), -1)


def lorenz_f(t: Tensor, y: Tensor) -> Tensor:
    """y1' = 10 (y2 − y1), y2' = y1 (28 − y3) − y2, y3' = y1 y2 − 8/3 y3"""
    y1, y2, y3 = y
    return torch.stack((10 * (y2 - y1), y1 * (28 - y3) - y2, y1 * y2 - 8 / 3 * y3))


def rosenbrock_f(t: Tensor, y: Tensor) -> Tensor:
    """y' = −∇((1 − y1)² + 100 (y2 − y1²)²)"""
    y1, y2 = y
    gap = y2 - y1 * y1
    return torch.stack((2 * (1 - y1) + 400 * y1 * gap, -200 * gap))


def robertson_f(t: Tensor, y: Tensor) -> Tensor:
    """y1' = −0.04 y1 + 10⁴ y2 y3, y2' = 0.04 y1 − 10⁴ y2 y3 − 3·10⁷ y2², y3' = 3·10⁷ y2²"""
    y1, y2, y3 = y
    slow, back, fast = 0.04 * y1, 1e4 * y2 * y3, 3e7 * y2 * y2
    return torch.stack((back - slow, slow - back - fast, fast))


def pole_f(t: Tensor, y: Tensor) -> Tensor:
    """y' = 1 + y²"""
    return 1 + y * y


FAMOUS = (
    van_der_pol("van-der-pol", 5.0, 20.0),
    van_der_pol("van-der-pol-stiff", 50.0, 50.0, stiff=True),
    Problem(
        "arenstorf",
        arenstorf_f,
        (0.994, 0.0, 0.0, -2.00158510637908252240537862224),
        (0.0, 17.0652165601579625588917206249),
        "R. F. Arenstorf, American Journal of Mathematics 85 (1963) 27–35; HNW I, II.0",
    ),
    Problem(
        "pleiades",
        pleiades_f,
        (
            *(3, 3, -1, -3, 2, -2, 2),
            *(3, -3, 2, 0, 0, -4, 4),
            *(0, 0, 0, 0, 0, 1.75, -1.5),
            *(0, 0, 0, -1.25, 1, 0, 0),
        ),
        (0.0, 3.0),
        "HNW I, II.10: seven stars in the plane",
        plane=(0, 7),
    ),
    # The distance of two neighbours grows by e^(0.9 t): at t = 10 by 10⁴, and a reference is left.
    Problem(
        "lorenz",
        lorenz_f,
        (-8.0, 8.0, 27.0),
        (0.0, 10.0),
        "E. N. Lorenz, Journal of the Atmospheric Sciences 20 (1963) 130–141",
        plane=(0, 2),
    ),
    Problem(
        "rosenbrock",
        rosenbrock_f,
        (-1.2, 1.0),
        (0.0, 2.0),
        "H. H. Rosenbrock, The Computer Journal 3 (1960) 175–184: gradient flow of its valley",
        stiff=True,
    ),
    Problem(
        "robertson",
        robertson_f,
        (1.0, 0.0, 0.0),
        (0.0, 4.0),
        "H. H. Robertson, in J. Walsh (ed.), Numerical Analysis, an Introduction (1966) 178–182; HW II, IV.1",
        plane=(0, 2),
        log_time=True,
        stiff=True,
    ),
    # Beyond π/2 there is no solution: the span asks for what a solver must refuse.
    Problem(
        "blow-up",
        pole_f,
        (0.0,),
        (0.0, 2.0),
        "y = tan t, a pole at π/2 inside the span; what a failing solve looks like",
        solution=lambda t: (math.tan(t) if t < math.pi / 2 else math.nan,),
    ),
)
