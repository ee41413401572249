"""`Signal`: an input u(t) given by samples."""

from __future__ import annotations

import copy
from typing import Literal, get_args, overload

import torch
from torch import Tensor

from ...solvers.checks import check_readable
from ...solvers.errors import ArgumentError, ArgumentTypeError, DynamicsError, check_choice
from ...solvers.methods.tableau import Tableau
from .knots import knots
from .reader import Reader

Kind = Literal["hold", "linear", "cubic", "hermite"]
KINDS = get_args(Kind)
# How many derivatives are continuous across a sample's time; −1: the signal jumps there.
SMOOTH = {"hold": -1, "linear": 0, "hermite": 1, "cubic": 2}


class Signal:
    """u(t) from samples at times, for ``solve(func, …, signal=…)``, which calls func(t, y, u).

    times: [T], or [B, T] with each sample's own; strictly increasing, T ≥ 2; a sample with fewer times
        repeats its last one, and the values there are ignored.
    values: […, T, U]; with a batch its axis comes first. They may require a gradient. NaN is a missing value,
        which is interpolated in its channel; times before the first known value, and after the last, take
        that value; a channel without a known value is 0.
    kind: how u runs between the samples. "hold": the last sample's value; "linear"; "cubic": the natural
        cubic spline; "hermite": the cubic with backward differences as slopes, which looks no further ahead
        than the next sample.
    mask: […, T, U] or […, T] of bool, or of numbers: missing where False or 0.

    The solver ends steps on the times, of each sample on its own; at those of "hold" a step sees the value on
    its side.
    Raises ArgumentTypeError or ArgumentError for anything else.
    Sources: those of `adjoint.signals.knots`.
    """

    def __init__(self, times: Tensor, values: Tensor, kind: Kind = "linear", *, mask: Tensor | None = None):
        check_choice("kind", kind, KINDS)
        for name, value in (("times", times), ("values", values)):
            if not isinstance(value, Tensor) or not value.is_floating_point():
                what = value.dtype if isinstance(value, Tensor) else type(value).__name__
                raise ArgumentTypeError(f"Signal: {name} is {what}; give a tensor of floats.")
            check_readable(value.detach(), f"Signal: {name}")
        _check_shapes(times, values)
        self.times, self.values, self.kind, self.order = times, values, kind, 0
        self.sample_times = times.detach().to(values.device, torch.float64)
        _check_order(self.sample_times)
        self.seen = _seen(self.sample_times, values.detach(), mask)
        self._reader: tuple[int | None, Reader] | None = None

    def __repr__(self) -> str:
        return (
            f"Signal(times: {list(self.times.shape)}, values: {list(self.values.shape)}, kind={self.kind!r})"
        )

    @property
    def jumps(self) -> bool:
        """Whether u differs on the two sides of its samples' times."""
        return self.smooth < 0

    @property
    def smooth(self) -> int:
        """How many derivatives are continuous across the samples' times; −1: u jumps."""
        return SMOOTH[self.kind] - self.order

    def jumps_for(self, tableau: Tableau) -> bool:
        """Whether f with this input jumps at its kinks: for a Rosenbrock method ∂f/∂t is part of f."""
        return self.smooth < any(part.gamma for part in tableau.parts)

    def __call__(self, t: Tensor, per_sample: bool = False) -> Tensor:
        """u at times of any shape, [*t.shape, …, U]. Outside the signal's times the nearest sample's holds.

        per_sample: t.shape[-1] is the batch, each sample is asked its own times, and the result is
            [*t.shape, …, U] without another axis for the samples.
        At a time of "hold" it is the value that begins there. Differentiable in t and in the values.
        """
        return self._asked(t, per_sample, self.order)

    @overload
    def derivative(self) -> Signal: ...
    @overload
    def derivative(self, t: Tensor, per_sample: bool = False) -> Tensor: ...
    def derivative(self, t: Tensor | None = None, per_sample: bool = False) -> Signal | Tensor:
        """u'(t) in the shapes of u(t); without t the derivative as a signal of its own, for a neural CDE.

        At a kink it is that of the interval which begins there, at the last time of the one that ends. It is
        0 for "hold".  Raises ArgumentError for a second derivative.
        """
        if self.order:
            raise ArgumentError(
                "Signal: this is a derivative already, and u'' is not available: keep the signal itself."
            )
        if t is not None:
            return self._asked(t, per_sample, 1)
        other = copy.copy(self)
        other.order, other._reader = 1, None
        return other

    def reader(self, dtype: torch.dtype, order: int | None = None) -> Reader:
        """The reader of u that a solve uses, in that dtype."""
        table = self.knots()
        own = self.order if order is None else order
        return Reader(table, self.sample_times, dtype, held=self.kind == "hold", order=own)

    def knots(self) -> Tensor:
        """Values, and slopes, at all times, with a graph to the values."""
        times, values = self.sample_times, self.values
        if times.dim() == 2:
            values = values.expand(len(times), -1, -1) if values.dim() == 2 else values
            times = times.view(len(times), *[1] * (values.dim() - 3), -1)
        return knots(self.kind, times[..., None], values, self.seen)

    def at(self, t: Tensor, samples: int) -> Tensor:
        """u(t), [samples, U], for a field. t: 0-d, or [samples, 1] with a time for each."""
        reader = self._kept()
        if reader.own and reader.samples != samples:
            raise DynamicsError(f"the input signal has {reader.samples} samples, the state {samples}.")
        u = reader(t)
        return u.expand(samples, -1) if not reader.own and t.dim() == 0 else u

    def _kept(self) -> Reader:
        """A reader in the values' dtype; made anew where they have changed, or want a gradient."""
        values = self.values
        version = None if values.is_inference() else values._version
        if values.requires_grad and torch.is_grad_enabled():
            return self.reader(values.dtype)
        if self._reader is None or self._reader[0] != version:
            self._reader = version, self.reader(values.dtype)
        return self._reader[1]

    def _asked(self, t: Tensor, per_sample: bool, order: int) -> Tensor:
        if not isinstance(t, Tensor) or not t.is_floating_point():
            what = t.dtype if isinstance(t, Tensor) else type(t).__name__
            raise ArgumentTypeError(f"t of a signal is {what}; give a tensor of floats.")
        reader = self._kept() if order == self.order else self.reader(self.values.dtype, order)
        t = t.to(self.values.device)
        if not per_sample:
            rows = t.reshape(1, -1).expand(reader.samples, -1)
            value = reader.value(reader.places(rows))
            value = value.view(reader.samples, t.numel(), *reader.tail).movedim(1, 0)
            return value.reshape(*t.shape, *([reader.samples] if reader.own else []), *reader.tail)
        if not reader.own:
            raise ArgumentError(
                "per_sample=True needs a signal with a batch: times [B, T] or values [B, …, T, U]."
            )
        if t.dim() == 0 or t.shape[-1] != reader.samples:
            raise ArgumentError(
                f"t has shape {tuple(t.shape)}; per_sample=True needs t.shape[-1] == {reader.samples}."
            )
        value = reader.value(reader.places(t.reshape(-1, reader.samples).t()))
        value = value.view(reader.samples, -1, *reader.tail).movedim(1, 0)
        return value.reshape(*t.shape, *reader.tail)


def _check_shapes(times: Tensor, values: Tensor) -> None:
    if times.requires_grad:
        raise ArgumentError(
            "Signal: times require grad, but steps end on them, and step times are constants: times.detach()."
        )
    if times.ndim not in (1, 2) or times.shape[-1] < 2 or not times.numel():
        raise ArgumentError(
            f"Signal: times, {tuple(times.shape)}, must be [T] or [B, T], strictly increasing, T ≥ 2."
        )
    n = times.shape[-1]
    fits = values.ndim >= 2 and values.shape[-2] == n and values.numel()
    if not fits or (times.ndim == 2 and values.ndim > 2 and len(values) != len(times)):
        batch = "" if times.ndim == 1 else f"{len(times)}, "
        raise ArgumentError(
            f"Signal: values have shape {tuple(values.shape)}; with times {tuple(times.shape)} they must be "
            f"[{n}, U] or [{batch or 'B, '}…, {n}, U]."
        )


def _check_order(times: Tensor) -> None:
    """Strictly increasing, but for a last one that is repeated. A host read; one more of what is wrong."""
    steps, rest = times.diff(dim=-1), times[..., :-1] == times[..., -1:]
    wrong = ~((steps > 0) | (rest & (times.dim() == 2) & (steps == 0))) | ~times[..., 1:].isfinite()
    if not bool(wrong.any() | ~times.isfinite().all()):  # host read
        return
    rows, found = times.reshape(-1, times.shape[-1]).tolist(), wrong.reshape(-1, steps.shape[-1]).tolist()
    for b, (row, flags) in enumerate(zip(rows, found, strict=True)):
        if any(flags) or row[0] - row[0] != 0:
            i = flags.index(True) if any(flags) else 0
            whose = f"[{b}]" if times.dim() == 2 else ""
            more = "; a sample with fewer repeats its last time" if times.dim() == 2 else ""
            raise ArgumentError(
                f"Signal: times must be finite and strictly increasing{more}, but times{whose}[{i}]="
                f"{row[i]!r} is followed by {row[i + 1]!r}: sort them, and give one value a time."
            )


def _seen(times: Tensor, values: Tensor, mask: Tensor | None) -> Tensor | None:
    """Which entries are known and count, like values; None: all. One host read."""
    seen = ~values.isnan()
    if mask is not None:
        seen = seen & _as_mask(mask, values)
    if times.dim() == 2:
        place = torch.arange(times.shape[-1], dtype=torch.int64, device=times.device)
        counts = place <= (times < times[:, -1:]).sum(-1, keepdim=True)
        if values.dim() == 2:
            seen = seen.expand(len(times), -1, -1)
        seen = seen & counts.view(len(times), *[1] * (seen.dim() - 3), -1, 1)
    infinite = values.isinf() & seen
    flags = torch.stack((seen.all(), seen.any(), infinite.any()))
    everything, anything, bad = flags.tolist()  # host read
    if bad:
        index = tuple(infinite.nonzero()[0].tolist())
        raise ArgumentError(
            f"Signal: values are not all finite: entry {index} is infinite; a missing value is NaN."
        )
    if not anything:
        raise ArgumentError("Signal: all values are missing (NaN), so there is nothing to interpolate.")
    return None if everything else seen


def _as_mask(mask: Tensor, values: Tensor) -> Tensor:
    shapes = (values.shape, values.shape[:-1])
    if not isinstance(mask, Tensor) or mask.shape not in shapes:
        found = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise ArgumentError(
            f"Signal: mask is {found}; it must be a tensor of shape {tuple(shapes[0])} or "
            f"{tuple(shapes[1])}: False or 0 where a value is missing."
        )
    known = mask.detach().to(values.device) != 0
    return known if known.shape == values.shape else known[..., None].expand_as(values)
