"""A field with an input signal: f(t, h) = g(t, [h, u(t)]), u given by samples."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from ...solvers.errors import ArgumentError, ArgumentTypeError, DynamicsError
from ..checks import check_sizes
from .field import Field, Gradients, copied


class Signal:
    """u(t) from samples, linear between them. It is data: no gradient flows into it.

    times: [T], strictly increasing, T ≥ 2.
    values: [T, U] for all samples of a batch, or [B, T, U].
    Its kinks lie at the times: name them in ``step_at`` and no step crosses one.
    Raises ArgumentTypeError or ArgumentError for anything else.
    """

    def __init__(self, times: Tensor, values: Tensor):
        for name, value in (("times", times), ("values", values)):
            if not isinstance(value, Tensor) or not value.is_floating_point():
                what = value.dtype if isinstance(value, Tensor) else type(value).__name__
                raise ArgumentTypeError(f"Signal: {name} is {what}; give a tensor of floats.")
        if times.ndim != 1 or len(times) < 2 or not bool((times.diff() > 0).all()):  # host read
            raise ArgumentError(
                f"Signal: times, {tuple(times.shape)}, must be [T], strictly increasing, T ≥ 2."
            )
        if values.ndim not in (2, 3) or values.shape[-2] != len(times):
            raise ArgumentError(
                f"Signal: values have shape {tuple(values.shape)}; with {len(times)} times they must be "
                f"[{len(times)}, U] or [B, {len(times)}, U]."
            )
        if values.requires_grad:
            raise ArgumentError("Signal: values require grad, but no gradient flows there: values.detach().")
        if not bool(values.isfinite().all()):  # host read
            raise ArgumentError("Signal: values are not all finite.")
        self.times, self.values = times, values

    def at(self, t: Tensor, samples: int) -> Tensor:
        """u(t), [samples, U]. t: 0-d, or [samples, 1] with a time for each.

        Outside the times the nearest sample's value holds.
        """
        values = self.values
        if values.ndim == 3 and len(values) != samples:
            raise DynamicsError(f"the input signal is of {len(values)} samples, the state of {samples}.")
        t = t.to(self.times.dtype)
        # Contiguous, since searchsorted warns of a copy otherwise.
        i = (torch.searchsorted(self.times, t.contiguous(), right=True) - 1).clamp(0, len(self.times) - 2)
        share = ((t - self.times[i]) / (self.times[i + 1] - self.times[i])).clamp(0, 1)
        if t.ndim == 0:
            i = i.reshape(1)
            left, right = values.index_select(-2, i), values.index_select(-2, i + 1)
            u = torch.lerp(left, right, share.to(values.dtype)).squeeze(-2)
            return u.expand(samples, -1) if values.ndim == 2 else u
        if values.ndim == 2:
            return torch.lerp(values[i[:, 0]], values[i[:, 0] + 1], share.to(values.dtype))
        row = torch.arange(samples, dtype=torch.int64, device=values.device)
        return torch.lerp(values[row, i[:, 0]], values[row, i[:, 0] + 1], share.to(values.dtype))


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
        if signal.values.shape[-1] != self.inputs:
            raise ArgumentError(
                f"the signal has {signal.values.shape[-1]} inputs; this field takes {self.inputs}."
            )
        other = copy.copy(self)
        other.signal = signal
        return other

    def for_solve(self) -> Any:
        """With g as in the solve."""
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
        """Those of g: the signal has none."""
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
