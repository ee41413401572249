"""A solve with a transform of torch.func, or forward-mode AD, around it: what works, and what is refused.

Plain operators carry every transform but `vmap`, so `Direct` does. An adjoint is one `Function` of torch
whose rules are for torch.autograd alone: it is refused where a derivative could be asked for, and is no more
than the solve itself where none can. What is batched by `vmap` cannot be read by the host.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ...solvers.checks import around, check_readable, followed, has_tangent
from ...solvers.errors import ArgumentError, SecondDerivativeError
from ..arguments import Direct, Gradient

_WAY_OUT = (
    "use gradient=adamode.Direct() (adamode.odeint), which every transform but vmap can differentiate, or "
    "torch.autograd.grad in the transform's place."
)


def gradient_allowed(
    gradient: Gradient | None, value: Tensor, inputs: Iterable[Tensor], *, events: bool
) -> Gradient | None:
    """The gradient choice to go on with under a transform; ArgumentError where it would have none.

    value: of func at the start: what it uses besides the state shows in what it returns.
    inputs: the state, the times, the parameters.
    events: whether some are watched.
    """
    check_readable(value, "what func returns")
    tensors = (*inputs, value)
    tangents = any(map(has_tangent, tensors))
    if events and (around() or tangents):
        raise ArgumentError(
            "a transform of torch.func is around this solve, and the derivative of an event's time has no "
            "rule for it: use torch.autograd.grad in its place, or solve without events."
        )
    if gradient is None or isinstance(gradient, Direct):
        return gradient
    flows = around() and torch.is_grad_enabled() and any(map(followed, tensors))
    if tangents or flows:
        what = "a transform of torch.func" if around() else "forward-mode AD"
        raise ArgumentError(f"{what} is around this solve, and an adjoint has no rule for it: {_WAY_OUT}")
    return None if around() else gradient  # torch applies no Function there, and none is needed


def check_untransformed() -> None:
    """ArgumentError where a query of an adjoint's dense output has a transform of torch.func around it."""
    if around():
        raise ArgumentError(
            "a transform of torch.func is around a query of the dense output, and an adjoint has no rule for "
            f"it: {_WAY_OUT}"
        )


class _Refusal(torch.autograd.Function):
    """The identity; its backward pass refuses."""

    @staticmethod
    def forward(ctx: Any, why: Exception, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.why = why
        return tuple(x.view_as(x) for x in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> tuple[None, ...]:
        raise ctx.why


def refuse_second_derivative(
    gradients: list[Tensor | None], inputs: list[Tensor], why: str = ""
) -> list[Tensor | None]:
    """The same gradients, tied to the inputs, so that differentiating them again raises (and says why)."""
    present = [x for x in gradients if x is not None]
    tied = iter(refuse_gradient(present, inputs, SecondDerivativeError(*([why] if why else []))))
    return [None if x is None else next(tied) for x in gradients]


def refuse_gradient(values: list[Tensor], inputs: list[Tensor], why: Exception) -> list[Tensor]:
    """The same values, tied to the inputs, so that differentiating them raises."""
    return list(_Refusal.apply(why, len(values), *values, *inputs))
