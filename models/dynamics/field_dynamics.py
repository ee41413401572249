"""The common part of the dynamics: a field, learnt scalars that stay in their range, and their gradients.

A dynamics learns a raw number θ of any size and uses value(θ): rates in (0, 1) through the
sigmoid, positive strengths through the softplus. Start values are given as the number that is
meant (``alpha=0.37``); the inverse finds the raw number from which it comes out again.
"""

from __future__ import annotations

import abc
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...adjoint.dynamics.protocol import Dynamics
from ...solvers.errors import ArgumentError, DynamicsError
from ..checks import number
from ..fields.by_autograd import AutogradField, as_field
from ..fields.field import JOINED_BELOW, Field, Gradients, copied, per_sample

Linearised = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
# A full block [B, D, D], a diagonal one [B, D] or 0-d, or a number times the identity.
Slopes = Sequence[Sequence[Tensor | float]]
_PACKAGE = __name__.partition(".")[0]


class FieldDynamics(nn.Module, Dynamics, abc.ABC):
    """A dynamics around a field f, with the scalars that it learns beside it.

    field: f; any function or module is taken, see `as_field`.
    ``scalars``: the names of the raw parameters, in the order of `theta`.
    ``choices``: the attributes that its repr shows.
    """

    blocks: tuple[str, ...]
    scalars: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    domain = ""  # where F is defined, in words, with what to take instead; "" for everywhere
    joined = 1  # blocks that the field sees, side by side in dim 1

    def __init__(self, field: Any):
        super().__init__()
        self.field = as_field(field, joined=self.joined)

    def extra_repr(self) -> str:
        """Of the repr: what was chosen besides the field."""
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self.choices)

    def theta(self) -> tuple[Tensor, ...]:
        """The raw scalars, then the field's parameters."""
        return (*(getattr(self, name) for name in self.scalars), *self.field.theta())

    def for_solve(self) -> Any:
        """With its field, and what it makes of its scalars, as in one solve."""
        find = getattr(self.field, "for_solve", None)  # a field of the user's need not have it
        return copied(self, field=self.field if find is None else find(), _made=self._make())

    _made: Any = None

    def _make(self) -> Any:
        """The values that `forward` takes of the scalars: the same at every call of a solve."""
        return None

    @property
    def jacobian(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """(t, z) → ∂F/∂z of each sample, [B, K D, K D], for a state [K, B, D]; None where the field has no
        `linearised`, or the class is a user's, whose equation may be another."""
        find = getattr(self.field, "linearised", None)
        own = all(type(x).__module__.partition(".")[0] == _PACKAGE for x in (self, self.field))
        return functools.partial(self._jacobian, find) if own and find is not None else None

    def _jacobian(self, find: Linearised, t: Tensor, z: Tensor) -> Tensor:
        joined = z[0] if self.joined == 1 else torch.cat(z.unbind(), 1)
        f, slopes = find(t, joined)
        rows = self._slopes(t, z, f.to(z.dtype), slopes.to(z.dtype))
        return torch.cat([torch.cat([block_of(x, z) for x in row], 2) for row in rows], 1)

    @abc.abstractmethod
    def _slopes(self, t: Tensor, z: Tensor, f: Tensor, slopes: Tensor) -> Slopes:
        """∂F_i/∂z_j as rows of blocks; slopes: of the field, [B, D, joined D]. t: 0-d or [B, 1]."""

    def divergence(self, t: Tensor, z: Tensor) -> Tensor:
        """The divergence tr ∂F/∂z of each sample's whole state, [B], differentiable under grad mode.

        Closed where it is so (`divergence_rate`), else a trace of the field, exact.
        z: [K, B, *S]; t: as of `forward`.
        """
        rate = self.divergence_rate(t)
        if rate is None:
            return self._divergence(t, z)
        return (rate.to(z.dtype) * z[0, 0].numel()).reshape(-1).expand(z.shape[1])

    def divergence_rate(self, t: Tensor) -> Tensor | None:
        """The divergence for each entry of a block, 0-d or of t's shape, where it depends on no state; None
        where it does."""
        return None

    def divergence_integral(self, start: Tensor, end: Tensor) -> Tensor | None:
        """The integral of `divergence_rate` over the time from start to end, each 0-d; None where it depends
        on the state."""
        rate = self.divergence_rate(start)  # the same at all times; a class where it is not says its own
        return None if rate is None else rate * (end - start)

    def _divergence(self, t: Tensor, z: Tensor) -> Tensor:
        raise NotImplementedError

    @property
    def _plain_field(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The field as f(t, x); a field of the user's may have the four methods alone."""
        field = self.field
        return field if isinstance(field, Field | AutogradField) else lambda t, x: field.forward(t, x)[0]

    @property
    def channels_last(self) -> bool:
        """Whether the field is faster on blocks [B, C, H, W] in channels-last memory."""
        return getattr(self.field, "channels_last", False)

    def parameter_gradients(self, saved: list[Any], deltas: list[Any], weights: Tensor | None) -> Gradients:
        """The field's: a dynamics without scalars saves the field's activations alone."""
        return tuple(self.field.parameter_gradients(saved, deltas, weights))


def block_of(x: Tensor | float, z: Tensor) -> Tensor:
    """A block of a Jacobian, [B, D, n]. z: the state."""
    if isinstance(x, Tensor) and x.dim() == 3:
        return x
    diagonal = x.to(z.dtype) if isinstance(x, Tensor) else z.new_full((), x)
    return torch.diag_embed(diagonal.expand(z.shape[1:]))


class Sigmoid:
    """(−∞, ∞) → (0, 1)."""

    @staticmethod
    def value(raw: Tensor) -> Tensor:
        """s = 1/(1 + e^−θ)."""
        return torch.sigmoid(raw)

    @staticmethod
    def derivative(raw: Tensor) -> Tensor:
        """ds/dθ = s(1 − s)."""
        s = torch.sigmoid(raw)
        return s * (1 - s)

    @staticmethod
    def inverse(name: str, value: float) -> float:
        """θ = log(s/(1 − s)).  Raises ArgumentError outside the open interval (0, 1)."""
        value = number(name, value)
        if not 0 < value < 1:  # False for NaN too
            raise ArgumentError(f"{name}={value!r} is not between 0 and 1; give a number strictly inside.")
        return math.log(value) - math.log1p(-value)


class Softplus:
    """(−∞, ∞) → (0, ∞)."""

    @staticmethod
    def value(raw: Tensor) -> Tensor:
        """p = log(1 + e^θ)."""
        return F.softplus(raw)

    @staticmethod
    def derivative(raw: Tensor) -> Tensor:
        """dp/dθ = sigmoid(θ)."""
        return torch.sigmoid(raw)

    @staticmethod
    def inverse(name: str, value: float) -> float:
        """θ = log(e^p − 1), written so that large p do not overflow.  Raises ArgumentError for p ≤ 0."""
        value = number(name, value)
        if not 0 < value < math.inf:
            raise ArgumentError(f"{name}={value!r} is not positive and finite; give a number above 0.")
        return value + math.log(-math.expm1(-value))


def raw_parameter(raw: float, *, learnable: bool) -> nn.Parameter:
    """A 0-d parameter in torch's default dtype; with ``learnable=False`` it needs no gradient."""
    return nn.Parameter(torch.tensor(raw, dtype=torch.get_default_dtype()), requires_grad=learnable)


def fitted(f: Tensor, z: Tensor) -> Tensor:
    """f in the state's dtype (autocast shortens f); DynamicsError where it has not the shape of a block."""
    if f.shape != z.shape[1:]:
        raise DynamicsError(
            f"the field returned {tuple(f.shape)} for a block of the state of {tuple(z.shape[1:])}: "
            "dh must have h's shape."
        )
    return f if f.dtype is z.dtype else f.to(z.dtype)


def grouped(
    stages: Sequence[tuple[Tensor, ...]], weights: Tensor | None
) -> list[tuple[tuple[Tensor, ...], Tensor | None]]:
    """(blocks, weight) of each stage; small blocks, [B, …], joined over the stages to one group.

    weights: [n], [n, B] or None; a group's weight is 0-d, one for each row of its blocks, or None.
    """
    n, first = len(stages), stages[0][0]
    if n == 1 or first.numel() >= JOINED_BELOW:
        return [(blocks, None if weights is None else weights[i]) for i, blocks in enumerate(stages)]
    if weights is not None:
        weights = (weights if weights.ndim == 2 else weights[:, None].expand(n, first.shape[0])).reshape(-1)
    return [(tuple(torch.cat(blocks) for blocks in zip(*stages, strict=True)), weights)]


def paired(a: Tensor, slope: Tensor, weight: Tensor | None) -> Tensor:
    """Σ w ⟨a, x⟩ over a group, 0-d. a, slope: [B, …]; slope is written over. weight: 0-d, [B] or None."""
    product = slope.mul_(a)
    if weight is not None:
        product = product.mul_(per_sample(weight, product))
    return product.sum()


def total(parts: list[Tensor]) -> Tensor:
    """The sum of groups' parts."""
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum()
