"""The one torch.autograd.Function of the project: it unpacks, calls pure code, packs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...solvers.errors import SecondDerivativeError
from ...solvers.step.field import Autocast
from .transformed import check_one_cotangent

# z0, whether derivatives at the outputs are wanted → values, derivatives [T, *z]
Forward = Callable[[Tensor, bool], tuple[Tensor, Tensor | None]]
# values, their cotangents, whether θ's gradients are wanted
# → dL/dz at the start before the cotangent of the output there is added, gradients of θ
Backward = Callable[[Tensor, Tensor, bool], tuple[Tensor, list[Tensor]]]
# cotangents, derivatives, dL/dz at the start → dL/dt
TimeGradient = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclasses.dataclass(frozen=True)
class Task:
    """One solve to be differentiated: everything that is not a tensor.

    many: its walk back is right for several cotangents at once, of torch.autograd.grad's is_grads_batched.
    """

    forward: Forward
    backward: Backward
    time_gradient: TimeGradient
    autocast: Autocast
    many: bool = False


class Solve(torch.autograd.Function):
    """ys = solve(z0; t, θ), its gradient by the adjoint that the task chose."""

    @staticmethod
    def forward(ctx: Any, task: Task, z0: Tensor, t: Tensor, *theta: Tensor) -> Tensor:
        """The values at every t; what the backward pass needs goes on ctx."""
        ys, derivatives = task.forward(z0, t.requires_grad)
        ctx.task = task
        ctx.save_for_backward(z0, t, ys, derivatives, *theta)
        return ys

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """One gradient for each input that wants one."""
        z0, t, ys, derivatives, *theta = ctx.saved_tensors
        task, wants = ctx.task, ctx.needs_input_grad
        check_one_cotangent(g, task.many)
        with torch.no_grad(), task.autocast.outside():
            g = g.contiguous()
            a, theta_bar = task.backward(ys, g, any(wants[3:]))
            t_bar = None
            if derivatives is not None:
                t_bar = task.time_gradient(g, derivatives, a).to(t.dtype)
            gradients = [a + g[0], t_bar, *theta_bar]
        wanted = [x if need else None for x, need in zip(gradients, wants[1:], strict=True)]
        if torch.is_grad_enabled():  # create_graph=True: the result would pass for a constant
            wanted = refuse_second_derivative(wanted, [g, z0, t, *theta])
        return None, *wanted


class _Refusal(torch.autograd.Function):
    """The identity on gradients; its own backward pass refuses."""

    @staticmethod
    def forward(ctx: Any, why: str, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.why = why
        return tuple(x.view_as(x) for x in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> tuple[None, ...]:
        raise SecondDerivativeError(*([ctx.why] if ctx.why else []))


def refuse_second_derivative(
    gradients: list[Tensor | None], inputs: list[Tensor], why: str = ""
) -> list[Tensor | None]:
    """The same gradients, tied to the inputs, so that differentiating them again raises (and says why)."""
    present = [x for x in gradients if x is not None]
    tied = iter(_Refusal.apply(why, len(present), *present, *inputs))
    return [None if x is None else next(tied) for x in gradients]
