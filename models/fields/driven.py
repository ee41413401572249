"""A field with an input signal: f(t, h) = g(t, [h, u(t)])."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from ...adjoint.signals.signal import Signal as Signal
from ...solvers.errors import ArgumentError, ArgumentTypeError, DynamicsError
from ..checks import check_sizes
from .field import Field, Gradients, copied


class Driven(Field):
    """f(t, h) = g(t, [h, u(t)]) on h, [B, n]; the VJP is g's without the columns of u.

    inner: g, a `Field` on n + U features.
    inputs: U.
    `with_signal` gives the same field, with the same parameters, driven by a `Signal`. A solve keeps
    the one that it began with, so its backward pass sees its own input and no later one's.
    """

    def __init__(self, inner: Field, *, inputs: int = 1):
        super().__init__()
        if not isinstance(inner, Field) or inner.channels_in is None:
            raise ArgumentTypeError(f"Driven: inner is a {type(inner).__name__}; give a Linear or MLP field.")
        check_sizes(inputs=inputs)
        if inputs >= inner.channels_in:
            raise ArgumentError(
                f"Driven: inputs={inputs!r} must be a whole number in 1 … {inner.channels_in - 1}, since "
                f"the inner field takes {inner.channels_in} features of which h has at least one."
            )
        self.inner, self.inputs = inner, inputs
        self.channels_in, self.channels_out = inner.channels_in - inputs, inner.channels_out
        self.signal: Signal | None = None

    def with_signal(self, signal: Signal) -> Driven:
        """This field driven by ``signal``; the parameters are shared, not copied."""
        if signal.values.requires_grad:
            raise ArgumentError(
                "the signal's values require grad, but none flows to a field's input: values.detach(), or "
                "solve(func, …, signal=signal) with func(t, y, u)."
            )
        if signal.values.ndim > 3:
            raise ArgumentError(
                f"the signal's values have shape {tuple(signal.values.shape)}; a field takes [T, U] or "
                "[B, T, U]."
            )
        if signal.values.shape[-1] != self.inputs:
            raise ArgumentError(
                f"the signal has {signal.values.shape[-1]} inputs; this field takes {self.inputs}."
            )
        other = copy.copy(self)
        other.signal = signal
        return other

    def for_solve(self) -> Any:
        """The field with g as in the solve."""
        return copied(self, inner=self.inner.for_solve())

    def reference(self, t: Tensor, h: Tensor) -> Tensor:
        """g(t, [h, u(t)])."""
        return self.inner.reference(t, self._joined(t, h))

    def forward(self, t: Tensor, h: Tensor) -> tuple[Tensor, Any]:
        """(f, g's saved)."""
        return self.inner.forward(t, self._joined(t, h))

    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """(h̄, g's deltas): h̄ is the first columns of g's; the columns of u belong to data."""
        both, deltas = self.inner.vjp(saved, cotangent)
        return both[:, : self.channels_in], deltas

    def parameter_gradients(self, saved: list[Any], deltas: list[Any], weights: Tensor | None) -> Gradients:
        """The gradients of g: the signal has none."""
        return self.inner.parameter_gradients(saved, deltas, weights)

    def _joined(self, t: Tensor, h: Tensor) -> Tensor:
        if self.signal is None:
            raise DynamicsError(
                "this field has no input signal yet: field.with_signal(Signal(times, values))."
            )
        self._check(h)
        return torch.cat((h, self.signal.at(t, len(h)).to(h.dtype)), dim=1)

    def __getstate__(self) -> dict[str, Any]:
        # The signal is a batch's data and no part of a saved field.
        return {**self.__dict__, "signal": None}
