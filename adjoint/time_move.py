"""How a time with a gradient enters a solve that autograd follows: the state is moved along the flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .transformed import transformed

F = Callable[[Tensor, Tensor], Tensor]


def _own(f: F) -> F:
    """f with its result in memory of its own: func may hand back one buffer at every call."""
    return lambda t, z: f(t, z).clone()


class _Moved(torch.autograd.Function):
    """z as a function of its time t: dz/dt = slope, which is f(t, z).

    The first derivative costs no evaluation. Where it is differentiated again (create_graph=True), it
    is that of a formula which follows the flow to second order.
    """

    @staticmethod
    def forward(ctx: Any, f: F, z: Tensor, slope: Tensor, t: Tensor) -> Tensor:
        ctx.f = f
        ctx.save_for_backward(z, slope, t)
        return z.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        z, slope, t = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return None, g, None, (g * slope).sum().to(t.dtype)
        # Views, for partial derivatives: the slope's own graph leads to z too.
        z, slope, t = z.view_as(z), slope.view_as(slope), t.view_as(t)
        moved = _along_flow(ctx.f, z, slope, t)
        wanted = [x for x in (z, slope, t) if x.requires_grad]
        found = iter(torch.autograd.grad(moved, wanted, g, create_graph=True))
        return None, *(next(found) if x.requires_grad else None for x in (z, slope, t))


def moved_end(f: F, z: Tensor, slope: Tensor, t: Tensor) -> Tensor:
    """z, the solution at the fixed time t, made to depend on t: 0-d, with a gradient."""
    if transformed():
        return _along_flow(f, z, slope, t)
    return _Moved.apply(f, z, slope, t)


def _along_flow(f: F, z: Tensor, slope: Tensor, t: Tensor) -> Tensor:
    """The formula that follows the flow from z to second order, in plain operators."""
    shift = (t - t.detach()).to(z.dtype)
    time = t.detach().to(z.dtype)
    f = _own(f)
    bend = f(time + 0.5 * shift, z + 0.5 * shift * slope) - f(time, z)
    return z + shift * (slope + bend)


def moved_start(f: F, z: Tensor, t: Tensor) -> Tensor:
    """z, the state at the start t, carried back to where t is fixed: right to second order.

    Moving the start is moving the state against the flow: dL/dt_0 = −a·f(t_0, z_0). The midpoint
    rule has d²z = f_t + f_z f as the flow has it.
    """
    shift = (t - t.detach()).to(z.dtype)
    time = t.detach().to(z.dtype) + shift
    half = 0.5 * shift
    f = _own(f)
    return z - shift * f(time - half, z - half * f(time, z))
