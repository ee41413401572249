"""Differential equations whose solution is known: right-hand side, exact flow and drawn numbers of each.

A state is [b, D] here, whatever the user's looks like. Everything is float64 and differentiable, so the
exact gradients are autograd's through the exact flow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

Theta = tuple[Tensor, ...]
Rhs = Callable[[Tensor, Tensor, Theta], Tensor]
JUMP = 0.55  # where the right-hand side of `jump` is discontinuous; inside every span that is drawn
FREQUENCY = 20.0  # of `quadrature`: many periods within a step that y alone would allow


@dataclasses.dataclass(frozen=True)
class Flow:
    """rhs(t, y, theta): t 0-d or [b, 1], y [b, D] → [b, D].

    exact(s, s0, y0, theta): times s [n, B, 1], starts s0 [B, 1], y0 [B, D] → [n, B, D].
    draw(generator, batch, width) → (y0, theta).  uniform: all entries of y' are alike, and none depends
    on y.  rate: what a step size has to be multiplied with to be without a unit.
    only_width: the D that it is made for (0: any).
    """

    rhs: Rhs
    exact: Callable[[Tensor, Tensor, Tensor, Theta], Tensor]
    draw: Callable[[torch.Generator, int, int], tuple[Tensor, Theta]]
    uniform: bool = False
    rate: float = 1.5
    only_width: int = 0


def between(make: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    """Uniform numbers."""
    return low + (high - low) * torch.rand(shape, generator=make, dtype=torch.float64)


def extrapolated(rhs: Rhs, s: Tensor, s0: Tensor, y0: Tensor, theta: Theta) -> Tensor:
    """The flow of any smooth right-hand side by Gragg's midpoint rule extrapolated to order 12.

    Source: Hairer, Nørsett, Wanner I, II.9. Six panels of at most 0.35: its error is some 1e-14 here,
    measured against scipy's DOP853 in tests/test_fuzz.py.
    """
    panels, rows = 6, (2, 4, 6, 8, 10, 12)
    span = (s - s0) / panels
    y = y0.expand(*s.shape[:-1], y0.shape[-1])
    for i in range(panels):
        start = s0 + i * span
        table = [_midpoint(rhs, start, y, span, n, theta) for n in rows]
        for k in range(1, len(rows)):
            for j in range(len(rows) - 1, k - 1, -1):
                ratio = (rows[j] / rows[j - k]) ** 2 - 1
                table[j] = table[j] + (table[j] - table[j - 1]) / ratio
        y = table[-1]
    return y


def _midpoint(rhs: Rhs, t: Tensor, y: Tensor, span: Tensor, n: int, theta: Theta) -> Tensor:
    h = span / n
    before, now = y, y + h * rhs(t, y, theta)
    for i in range(1, n):
        before, now = now, before + 2 * h * rhs(t + i * h, now, theta)
    return now


def _linear_exact(s: Tensor, s0: Tensor, y0: Tensor, theta: Theta) -> Tensor:
    grown = torch.matrix_exp((theta[0] * (s - s0)[..., None]).contiguous())
    return (grown @ y0[..., None])[..., 0]


def _linear_draw(make: torch.Generator, batch: int, width: int) -> tuple[Tensor, Theta]:
    a = between(make, -1, 1, width, width)
    return between(make, 0.3, 1.5, batch, width), (1.2 * a / torch.linalg.matrix_norm(a, 2),)


def _logistic_exact(s: Tensor, s0: Tensor, y0: Tensor, theta: Theta) -> Tensor:
    rate, most = theta
    grown = torch.exp(rate * (s - s0))
    return most * y0 * grown / (most + y0 * (grown - 1))


def _poly_slope(t: Tensor) -> Tensor:
    """p'(t) of p(t) = 12 (t − 0.1)(t − 0.5)(t − 0.9): three zeros, far apart."""
    return 12 * (3 * t * t - 3 * t + 0.59)


def _poly(t: Tensor) -> Tensor:
    return 12 * (t - 0.1) * (t - 0.5) * (t - 0.9)


def _jump_rhs(t: Tensor, y: Tensor, theta: Theta) -> Tensor:
    return -theta[0] * y + torch.where(t < JUMP, 0.0, 1.0).to(y) * theta[1]


def _jump_exact(s: Tensor, s0: Tensor, y0: Tensor, theta: Theta) -> Tensor:
    a, b = theta

    def smooth(s: Tensor, s0: Tensor, y: Tensor, late: Tensor) -> Tensor:
        rest = late * b / a
        return rest + torch.exp(-a * (s - s0)) * (y - rest)

    late, late0 = (s >= JUMP).double(), (s0 >= JUMP).double()
    at = smooth(torch.full_like(s0, JUMP), s0, y0, late0)
    crossed = smooth(s, torch.full_like(s0, JUMP), at, late)
    return torch.where(late == late0, smooth(s, s0, y0, late0), crossed)


def _swing_rhs(t: Tensor, y: Tensor, theta: Theta) -> Tensor:
    return -theta[0] * torch.sin(y) + theta[1] * torch.cos(t) * y.roll(1, -1)


def _ball_exact(s: Tensor, s0: Tensor, y0: Tensor, theta: Theta) -> Tensor:
    h, v, past = y0[:, :1], y0[:, 1:], s - s0
    return torch.cat((h + v * past - 0.5 * theta[0] * past**2, v - theta[0] * past), -1)


def _ball_draw(make: torch.Generator, batch: int, width: int) -> tuple[Tensor, Theta]:
    y0 = torch.cat((between(make, 0.3, 0.6, batch, 1), between(make, 1, 2, batch, 1)), 1)
    return y0, (between(make, 4, 6),)


def _draws(
    y0: tuple[float, float], *theta: tuple[float, float]
) -> Callable[[torch.Generator, int, int], tuple[Tensor, Theta]]:
    """Starts and 0-d parameters between given numbers."""

    def draw(make: torch.Generator, batch: int, width: int) -> tuple[Tensor, Theta]:
        return between(make, *y0, batch, width), tuple(between(make, *ends) for ends in theta)

    return draw


FLOWS: dict[str, Flow] = {
    "linear": Flow(lambda t, y, th: y @ th[0].T, _linear_exact, _linear_draw),
    "wave": Flow(  # non-autonomous
        lambda t, y, th: th[0] * torch.cos(th[1] * t) * y,
        lambda s, s0, y0, th: y0 * torch.exp(th[0] * (torch.sin(th[1] * s) - torch.sin(th[1] * s0)) / th[1]),
        _draws((0.4, 1.4), (0.6, 1.2), (1.5, 3.0)),
        rate=3.0,
    ),
    "logistic": Flow(
        lambda t, y, th: th[0] * y * (1 - y / th[1]),
        _logistic_exact,
        _draws((0.3, 0.7), (0.8, 1.4), (1.1, 1.6)),
    ),
    "cubic": Flow(
        lambda t, y, th: -th[0] * y**3,
        lambda s, s0, y0, th: y0 / torch.sqrt(1 + 2 * th[0] * y0**2 * (s - s0)),
        _draws((0.3, 0.7), (0.2, 0.4)),
    ),
    "quadrature": Flow(  # the parameter's integrand is all that a step has to resolve
        lambda t, y, th: th[0] * (1 + torch.sin(FREQUENCY * t)) + 0 * y,
        lambda s, s0, y0, th: (
            y0 + th[0] * (s - s0 - (torch.cos(FREQUENCY * s) - torch.cos(FREQUENCY * s0)) / FREQUENCY)
        ),
        _draws((0.3, 1.0), (0.7, 1.3)),
        uniform=True,
        rate=20.0,
    ),
    "poly": Flow(
        lambda t, y, th: th[0] * _poly_slope(t) + 0 * y,
        lambda s, s0, y0, th: y0 + th[0] * (_poly(s) - _poly(s0)),
        _draws((-0.3, 0.3), (0.7, 1.3)),
        uniform=True,
        rate=3.0,
    ),
    "itself": Flow(
        lambda t, y, th: y,
        lambda s, s0, y0, th: y0 * torch.exp(s - s0),
        _draws((0.3, 1.0)),
    ),
    "jump": Flow(_jump_rhs, _jump_exact, _draws((0.5, 1.5), (0.8, 1.4), (0.8, 1.6))),
    "swing": Flow(
        _swing_rhs,
        lambda s, s0, y0, th: extrapolated(_swing_rhs, s, s0, y0, th),
        _draws((0.3, 1.2), (0.6, 1.4), (0.4, 0.9)),
    ),
    "ball": Flow(
        lambda t, y, th: torch.stack((y[:, 1], -th[0] + 0 * y[:, 1]), 1),
        _ball_exact,
        _ball_draw,
        only_width=2,
    ),
}
