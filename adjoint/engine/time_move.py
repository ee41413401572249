"""How a time with a gradient enters a solve: the state is moved along the flow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...solvers.step.clocks import ONE, Clocks
from ...solvers.step.field import transformed
from .transformed import refuse_second_derivative

F = Callable[[Tensor, Tensor], Tensor]


@dataclasses.dataclass(frozen=True)
class Flow:
    """f, and how its times meet the state.

    f: (time as func wants it, z) → dz.
    clocks: of the state: t is 0-d, or with a clock a sample [B].
    """

    f: F
    clocks: Clocks = ONE

    def shift(self, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """t − t, 0 with t's gradient: as func wants times, and as it broadcasts against the state."""
        moved = (t - t.detach()).to(z.dtype)
        return self.clocks.time(moved, z), self.clocks.spread(moved)

    def follow(self, z: Tensor, slope: Tensor, t: Tensor) -> Tensor:
        """z moved to second order, in plain operators; slope: f(t, z)."""
        time, (half, shift) = self.clocks.time(t.detach(), z), self.shift(t, z)
        # The first result is copied: func may hand back one buffer at every call.
        ahead = self.f(time + 0.5 * half, z + 0.5 * shift * slope).clone()
        return z + shift * (slope + (ahead - self.f(time, z)))


class _Moved(torch.autograd.Function):
    """z as a function of its time t: dz/dt = slope, which is f(t, z).

    The first derivative costs no evaluation. Where it is differentiated again (create_graph=True), it
    is that of a formula which follows the flow to second order; without a flow it is refused.
    """

    @staticmethod
    def forward(ctx: Any, flow: Flow, z: Tensor, slope: Tensor, t: Tensor, once: bool) -> Tensor:
        ctx.flow, ctx.once = flow, once
        ctx.save_for_backward(z, slope, t)
        return z.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        z, slope, t = ctx.saved_tensors
        if ctx.once or not torch.is_grad_enabled():
            product = torch.where(g == 0, 0.0, g * slope)  # 0 · NaN of a sample that has no solution there
            t_bar = ctx.flow.clocks.total(product).to(t)
            if torch.is_grad_enabled():
                (t_bar,) = refuse_second_derivative([t_bar], [g, z, t])
            return None, g, None, t_bar, None
        # Views, for partial derivatives: the slope's own graph leads to z too.
        z, slope, t = z.view_as(z), slope.view_as(slope), t.view_as(t)
        moved = ctx.flow.follow(z, slope, t)
        wanted = [x for x in (z, slope, t) if x.requires_grad]
        found = iter(torch.autograd.grad(moved, wanted, g, create_graph=True))
        return None, *(next(found) if x.requires_grad else None for x in (z, slope, t)), None


def moved_end(flow: Flow, z: Tensor, slope: Tensor, t: Tensor) -> Tensor:
    """z, the solution at the fixed time t, made to depend on t; slope: f(t, z), with its graph."""
    if transformed():
        return flow.follow(z, slope, t)
    return _Moved.apply(flow, z, slope, t, False)


def moved_once(flow: Flow, z: Tensor, slope: Tensor, t: Tensor) -> Tensor:
    """The same where z and slope have no graph to where they come from: a second derivative is refused."""
    return _Moved.apply(flow, z, slope, t, True)


def moved_start(flow: Flow, z: Tensor, t: Tensor) -> Tensor:
    """z, the state at the start t, carried back to where t is fixed: right to second order.

    Moving the start is moving the state against the flow: dL/dt_0 = −a·f(t_0, z_0). The midpoint
    rule has d²z = f_t + f_z f as the flow has it.
    """
    time, (moved, shift) = flow.clocks.time(t.detach(), z), flow.shift(t, z)
    time = time + moved
    half = z - 0.5 * shift * flow.f(time, z).clone()  # func may hand back one buffer at every call
    return z - shift * flow.f(time - 0.5 * moved, half).clone()
