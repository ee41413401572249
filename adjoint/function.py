"""The one torch.autograd.Function of the project: it unpacks, calls pure code, packs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..solvers.errors import SecondDerivativeError
from ..solvers.field import Autocast
from ..solvers.solve import Run

# (record of the forward pass) and (cotangents of the outputs) → (dL/dz at the start before the
# cotangent of the output there is added, gradients of θ)
Forward = Callable[[Tensor, bool], tuple[Run, Any]]
Backward = Callable[[Any, Run, list[Tensor], list[Tensor], bool], tuple[Tensor, list[Tensor]]]


@dataclasses.dataclass(frozen=True)
class Task:
    """One solve to be differentiated: everything that is not a tensor.

    forward(z0, derivatives) → (run, record);
    backward(record, run, values, g, want_theta) → (a at the start, gradients of θ).
    """

    forward: Forward
    backward: Backward
    autocast: Autocast


class Solve(torch.autograd.Function):
    """ys = solve(z0; t, θ), its gradient by the adjoint that the task chose."""

    @staticmethod
    def forward(ctx: Any, task: Task, z0: Tensor, t: Tensor, *theta: Tensor) -> Tensor:
        """The values at every t; what the backward pass needs goes on ctx."""
        run, record = task.forward(z0, t.requires_grad)
        ys = torch.stack(run.values)
        derivatives = torch.stack(run.derivatives) if run.derivatives is not None else None
        ctx.task, ctx.record = task, record
        ctx.run = dataclasses.replace(run, values=[], derivatives=None)  # the tensors are saved below
        ctx.save_for_backward(z0, t, ys, derivatives, *theta)
        return ys

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """One gradient for each input that wants one."""
        z0, t, ys, derivatives, *theta = ctx.saved_tensors
        with torch.no_grad(), ctx.task.autocast.outside():
            needs_theta = any(ctx.needs_input_grad[3:])
            values, cotangents = list(ys.unbind()), list(g.contiguous().unbind())
            a, theta_bar = ctx.task.backward(ctx.record, ctx.run, values, cotangents, needs_theta)
            t_bar = None
            if derivatives is not None:
                t_bar = (g * derivatives).flatten(1).sum(1)
                t_bar[0] = -(a * derivatives[0]).sum()  # a before the jump by g_0
                t_bar = t_bar.to(t.dtype)
            gradients = [a + cotangents[0], t_bar, *theta_bar]
        wanted = [x if need else None for x, need in zip(gradients, ctx.needs_input_grad[1:], strict=True)]
        if torch.is_grad_enabled():  # create_graph=True: the result would pass for a constant
            wanted = refuse_second_derivative(wanted, [g, z0, t, *theta])
        return None, *wanted


class _Refusal(torch.autograd.Function):
    """The identity on gradients; its own backward pass refuses."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(x.view_as(x) for x in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> tuple[None, ...]:
        raise SecondDerivativeError


def refuse_second_derivative(gradients: list[Tensor | None], inputs: list[Tensor]) -> list[Tensor | None]:
    """The same gradients, tied to the inputs, so that differentiating them again raises."""
    present = [x for x in gradients if x is not None]
    tied = iter(_Refusal.apply(len(present), *present, *inputs))
    return [None if x is None else next(tied) for x in gradients]
