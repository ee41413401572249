"""The first step size.

Source: Hairer, Nørsett, Wanner I, II.4, "Starting step size".
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .attempt import Here, Limits, Rules, settled
from .norms import Tolerance
from .runge_kutta import Field

# Of that text: sizes below SMALL count as none, and then TINY is tried; a hundredth of the scale is the
# change that a first step aims at; FLAT is a slope of none.
SMALL, TINY, AIM, FLAT = 1e-5, 1e-6, 0.01, 1e-15


def first_step(
    rules: Rules,
    field: Field,
    limits: Limits,
    tolerance: Tolerance,
    here: Here,
    seen_at: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """|dt| of each clock to begin with, from f(t0, y0) and one probe; no host read.

    here: the clocks' t is the start, k = f(t0, y0).  seen_at: times as f wants them, where f jumps at some.
    f is not evaluated past the end, and the probe runs under the caller's grad mode: func may
    differentiate inside.
    """
    clocks, (clock, y, k) = rules.clocks, here
    t, end, direction = clock.t, limits.end, limits.direction

    with torch.no_grad():
        scale = tolerance.scale(y).double()

        def size(x: Tensor) -> Tensor:
            """In float64: a quotient of 1e20 must not overflow when squared."""
            return settled(rules.norm(x.double() / scale).double())

        span = (end - t).abs()
        d0, d1 = size(y), size(k)
        h0 = torch.where((d0 < SMALL) | (d1 < SMALL), TINY, AIM * d0 / d1)
        h0 = settled(torch.minimum(torch.where(torch.isfinite(h0), h0, TINY), span))
        ahead = t + direction * h0
        probe = settled(torch.where((ahead - end) * direction >= 0, end, ahead))
        z = settled(y + clocks.spread(probe - t).to(y.dtype) * k)
    time = clocks.time(probe, y) if seen_at is None else seen_at(probe)
    k1 = field(time, z)[0].detach()
    with torch.no_grad():
        steepest = torch.maximum(d1, size(k1 - k) / h0)
        shape = (AIM / steepest) ** (1.0 / rules.tableau.error_order)
        h1 = torch.where(steepest <= FLAT, (h0 * 1e-3).clamp(min=TINY), shape)
        h = torch.minimum(100.0 * h0, h1)
        # A probe that left the domain (NaN) says nothing: begin with h0, rejections do the rest.
        h = torch.where(torch.isfinite(h) & (h > 0), h, h0)
        h = torch.where(h > 0, torch.minimum(h, span), TINY * span.clamp(max=1.0))
        return clocks.led(h, torch.ones_like(h, dtype=torch.bool))
