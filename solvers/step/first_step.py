"""The first step size.

Source: Hairer, Nørsett, Wanner I, II.4, "Starting step size".
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .clocks import Each
from .norms import Norm, Tolerance
from .runge_kutta import Field


def _size(x: Tensor, scale: Tensor, norm: Norm) -> Tensor:
    """norm(x / scale) in float64: a quotient of 1e20 must not overflow when squared."""
    return norm(x.double() / scale.double()).double()


def initial_step(
    field: Field,
    t0: float,
    end: float,
    y0: Tensor,
    f0: Tensor,
    order: int,
    tolerance: Tolerance,
    norm: Norm,
    before_jump: bool = False,
) -> float:
    """|dt| to begin with, from f(t0, y0) and one probe.

    f is not evaluated past the end: the probe's time is clamped to it, since the sum of two rounded
    numbers may lie one rounding beyond.  before_jump: f jumps at the end, so the probe stays short of it.
    order: that of the error's exponent (Tableau.error_order). One host read.
    The probe runs under the caller's grad mode: func may differentiate inside.
    """
    direction, span = math.copysign(1.0, end - t0), abs(end - t0)
    with torch.no_grad():
        scale = tolerance.scale(y0)
        d0, d1 = _size(y0, scale, norm), _size(f0, scale, norm)
        h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1).clamp(max=span)
        step = (direction * h0).to(y0.dtype)
        time = (t0 + step).clamp(max=end) if direction > 0 else (t0 + step).clamp(min=end)
        if before_jump:
            back = torch.nextafter(time, torch.full_like(time, -direction * math.inf))
            time = torch.where(time == end, back, time)
        probe = y0 + step * f0
    k1 = field(time, probe)[0].detach()
    with torch.no_grad():
        d2 = _size(k1 - f0, scale, norm) / h0
        steepest = torch.maximum(d1, d2)
        h1 = torch.where(steepest <= 1e-15, (h0 * 1e-3).clamp(min=1e-6), (0.01 / steepest) ** (1.0 / order))
        h = torch.minimum(100.0 * h0, h1)
        # A probe that left the domain (NaN) says nothing: begin with h0, rejections do the rest.
        h = torch.where(torch.isfinite(h) & (h > 0), h, h0)
        value = float(h)  # host read
    return min(value, span) if value > 0 else 1e-6 * min(span, 1.0)


def initial_steps(
    field: Field,
    t0: Tensor,
    end: Tensor,
    direction: Tensor,
    y0: Tensor,
    f0: Tensor,
    order: int,
    tolerance: Tolerance,
    norm: Norm,
    clocks: Each,
    clock: Callable[[Tensor], Tensor],
) -> Tensor:
    """`initial_step` for each sample, [b]; norm gives one number a sample. No host read.

    clock: [b] times as f wants them.
    """
    with torch.no_grad():
        scale = tolerance.scale(y0)
        span = (end - t0).abs()
        d0, d1 = _size(y0, scale, norm), _size(f0, scale, norm)
        h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1)
        h0 = torch.minimum(torch.where(torch.isfinite(h0), h0, 1e-6), span)
        probe = torch.where(h0 == span, end, t0 + direction * h0)
        z = y0 + clocks.spread(probe - t0).to(y0.dtype) * f0
    k1 = field(clock(probe), z)[0].detach()
    with torch.no_grad():
        steepest = torch.maximum(d1, _size(k1 - f0, scale, norm) / h0)
        h1 = torch.where(steepest <= 1e-15, (h0 * 1e-3).clamp(min=1e-6), (0.01 / steepest) ** (1.0 / order))
        h = torch.minimum(100.0 * h0, h1)
        h = torch.where(torch.isfinite(h) & (h > 0), h, h0)
        return torch.minimum(torch.where(h > 0, h, 1e-6 * span), span)
