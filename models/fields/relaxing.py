"""A field that draws each entry of the state to a learnt value at a rate of its own: for stiff systems."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...solvers.errors import ArgumentError, ArgumentTypeError
from .field import Field, Gradients, copied


class Relaxing(Field):
    """f(t, h) = r ⊙ (sinh g(t, x) − h) on h, [B, n], where g's input x begins with h.

    inner: g, a `Field` that gives n features.
    rates: r_i > 0, one an entry of h: one over the time in which the entry changes by its own size.
    With a large rate an entry follows sinh gᵢ, so that its value is learnt and not a tiny difference of large
    rates, and any state comes back. sinh lets an entry with a small rate change by many powers of ten faster,
    where g is only a few units larger.
    Source: the scaling of equations by a rate is that of S. Kim, W. Ji, S. Deng, Y. Ma, C. Rackauckas, Stiff
    neural ordinary differential equations, Chaos 31, 093122 (2021), who have one for all entries; sinh and −h
    are ours.
    Raises ArgumentTypeError or ArgumentError for another inner field or rates that are not positive numbers.
    """

    rates: Tensor

    def __init__(self, inner: Field, rates: Sequence[float]):
        super().__init__()
        if not isinstance(inner, Field) or inner.channels_in is None or inner.channels_out is None:
            raise ArgumentTypeError(
                f"Relaxing: inner is a {type(inner).__name__}; give a Linear or MLP field."
            )
        numbers = isinstance(rates, Sequence) and all(isinstance(r, int | float) for r in rates)
        if not numbers or not all(0 < r < math.inf for r in rates):
            raise ArgumentError(f"Relaxing: rates={rates!r} must be positive and finite, one an entry of h.")
        if len(rates) != inner.channels_out or inner.channels_in < len(rates):
            raise ArgumentError(
                f"Relaxing: there are {len(rates)} rates, and the inner field gives {inner.channels_out} "
                f"features from {inner.channels_in}; it must give one a rate and take at least as many."
            )
        self.inner = inner
        self.channels_in, self.channels_out = inner.channels_in, inner.channels_out
        self.beside = inner.channels_in - len(rates)  # features of x that are not h
        dtype, device = torch.get_default_dtype(), torch.get_default_device()
        self.register_buffer("rates", torch.tensor(rates, dtype=dtype, device=device))

    def for_solve(self) -> Any:
        """The field with g as in the solve."""
        return copied(self, inner=self.inner.for_solve(), rates=self.rates)

    def reference(self, t: Tensor, h: Tensor) -> Tensor:
        """r ⊙ (sinh g(t, x) − h)."""
        return self.rates * (self.inner.reference(t, h).sinh() - h[:, : self.channels_out])

    def forward(self, t: Tensor, h: Tensor) -> tuple[Tensor, Any]:
        """(f, (g's saved, ∂f/∂g = r cosh g))."""
        g, saved = self.inner.forward(t, h)
        g = g.to(h.dtype)  # autocast shortens it
        return self.rates * (g.sinh() - h[:, : self.channels_out]), (saved, self.rates * g.cosh())

    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """(x̄, g's deltas): x̄ = (∂g/∂x)ᵀ(r cosh g ⊙ c) − r ⊙ c."""
        own, slope = saved
        bar, deltas = self.inner.vjp(own, cotangent * slope)
        return bar - self._seen(cotangent * self.rates), deltas

    def parameter_gradients(self, saved: list[Any], deltas: list[Any], weights: Tensor | None) -> Gradients:
        """The gradients of g: the rates are given."""
        return self.inner.parameter_gradients([own for own, _ in saved], deltas, weights)

    @property
    def linearised(self) -> Any:
        """(t, h) → (f, ∂f/∂x), [B, n] and [B, n, in]; None where g has no `linearised`."""
        return self._linearised if getattr(self.inner, "linearised", None) is not None else None

    def _linearised(self, t: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        g, slopes = self.inner.linearised(t, h)  # type: ignore[operator]
        g = g.to(h.dtype)
        f = self.rates * (g.sinh() - h[:, : self.channels_out])
        return f, (self.rates * g.cosh())[:, :, None] * slopes - self._seen(torch.diag(self.rates))

    def _seen(self, x: Tensor) -> Tensor:
        """x, [..., n], with zeros for the features beside h."""
        return nn.functional.pad(x, (0, self.beside)) if self.beside else x
