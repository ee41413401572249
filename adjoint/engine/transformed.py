"""A solve with a transform of torch.func, or forward-mode AD, around it: what works, and what is refused.

Plain operators carry every transform but `vmap`, so `Direct` does: what carries a tangent is solved its way,
whatever the gradient choice, and so is `Discrete` under a transform that asks for a gradient, since both are
the derivative of the same steps. Another adjoint's gradient is another number, so it is refused there: it is
one `Function` of torch whose rules are for torch.autograd alone. Where no derivative is seen in the inputs
and in func's first value, an adjoint is the solve itself, and a later value that carries one is an error.
What is batched by `vmap` cannot be read by the host.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ...solvers.checks import check_readable, followed, has_tangent
from ...solvers.errors import ArgumentError, SecondDerivativeError
from ...solvers.step.field import around
from ...solvers.step.implicit.jacobian import Jacobian
from ..gradients import Direct, Discrete, Gradient

_WAY_OUT = (
    "use gradient=adamode.Discrete() or Direct() (adamode.odeint), which every transform but vmap can "
    "differentiate, or torch.autograd.grad in the transform's place."
)


def gradient_under(
    gradient: Gradient | None, value: Tensor, inputs: Iterable[Tensor], jacobian: Jacobian | None
) -> Gradient | None:
    """The gradient choice to go on with under a transform; ArgumentError where it would have none.

    value: of func at the start: what it uses besides the state shows in what it returns.
    inputs: the state, the times.
    jacobian: of an implicit method.
    """
    check_readable(value, "what func returns")
    if gradient is None or isinstance(gradient, Direct):
        return gradient
    tensors = (*inputs, value)
    if any(map(has_tangent, tensors)):
        return _through(jacobian)
    if not around():
        return gradient
    if not (torch.is_grad_enabled() and any(map(followed, tensors))):
        return None  # torch applies no Function there, and none is needed
    if not isinstance(gradient, Discrete):
        name = type(gradient).__name__
        raise ArgumentError(
            f"a transform of torch.func is around this solve, and gradient={name}() has no rule for it: "
            f"{_WAY_OUT}"
        )
    return _through(jacobian)


def _through(jacobian: Jacobian | None) -> Direct:
    """Through the steps, where their systems have matrices."""
    if jacobian is not None and jacobian.free:
        raise ArgumentError(
            "linear_solver='gmres' under a transform of torch.func, or with a tangent: derivatives are "
            "followed through factored matrices. Choose linear_solver='lu', or torch.autograd.grad and "
            "gradient=Discrete()."
        )
    return Direct()


def check_untransformed(t: Tensor) -> None:
    """ArgumentError where a query t of an adjoint's dense output is followed by another than autograd."""
    if around() or has_tangent(t):
        what = "a transform of torch.func" if around() else "forward-mode AD"
        raise ArgumentError(
            f"{what} is around a query of the dense output, and an adjoint has no rule for it: use "
            "gradient=adamode.Direct(), or torch.autograd.grad in the transform's place."
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
