"""A module or function f(t, h) of a user's own where a `Field` of known channels is needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ...solvers.errors import ArgumentTypeError
from .by_autograd import AutogradField
from .field import Field, Gradients, copied


class OwnField(Field):
    """Your own f(t, h), its VJP by autograd, with the channels that it takes and gives.

    field: a module, or a function without parameters, from h [B, channels_in, …] to [B, channels_out, …].
    channels_in, channels_out: entries of dim 1.
    Raises ArgumentTypeError for what cannot be called.
    """

    def __init__(self, field: Callable[[Tensor, Tensor], Tensor], channels_in: int, channels_out: int):
        super().__init__()
        if not callable(field):
            raise ArgumentTypeError(f"field={field!r} cannot be called; give a module or a function f(t, h).")
        params = None if isinstance(field, nn.Module) else ()
        self.inner = AutogradField(field, params, channels_out=channels_out)
        self.channels_in, self.channels_out = channels_in, channels_out

    @property
    def field(self) -> Any:
        """The user's own."""
        return self.inner.func

    def theta(self) -> tuple[Tensor, ...]:
        """The parameters of f that require gradients, each once."""
        return self.inner.theta()

    def for_solve(self) -> Any:
        """The field with the parameters of now."""
        return copied(self, inner=self.inner.for_solve())

    def reference(self, t: Tensor, h: Tensor) -> Tensor:
        """f(t, h) itself."""
        return self.inner.func(t, h)

    def forward(self, t: Tensor, h: Tensor) -> tuple[Tensor, Any]:
        """(f, its graph)."""
        return self.inner.forward(t, h)

    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """By autograd through the graph of f."""
        return self.inner.vjp(saved, cotangent)

    def parameter_gradients(self, saved: list[Any], deltas: list[Any], weights: Tensor | None) -> Gradients:
        """One weighted call of autograd over all stages."""
        return self.inner.parameter_gradients(saved, deltas, weights)
