"""What `solve` returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Generic

from torch import Tensor
from typing_extensions import TypeVar

from .errors import ArgumentError, ArgumentTypeError
from .stats import Count, Length, Stats
from .status import Status
from .trace import TraceRow

State = TypeVar("State", default=Any)  # y0's type: a tensor or a pytree of such
Ending = TypeVar("Ending", bound="Status | Tensor", default=Any)

# t (any shape), whether each sample has its own times → values or derivatives in y0's structure
Query = Callable[[Tensor, bool], Any]


@dataclasses.dataclass(frozen=True)
class Solution(Generic[State, Ending, Count, Length]):
    """The solution of an initial value problem.

    t: [T], the times of y (per-sample times: [T, B]), on the device of the t that was given, as t_events are;
        all else is on y0's.
    y: [T, *y0.shape], or a pytree of such in y0's structure; NaN where a sample failed or an event ended the
        solve before.
    status: a Status; per sample an int8 tensor [B] of its values.
    stats: what it cost; the backward pass fills its part when it has run.
    t_events, y_events: one entry an event function: [n] and [n, *y0.shape] (per sample: lists over samples);
        where resets are among the events, one entry a member of `events`, the states before each reset.
    y_after: of a solve with resets, as y_events: the states after each (y_events' where nothing is reset).
    trace: one row an attempt, where asked for.
    """

    t: Tensor
    y: State
    status: Ending
    stats: Stats[Count, Length]
    t_events: list[Any] = dataclasses.field(default_factory=list)
    y_events: list[Any] = dataclasses.field(default_factory=list)
    trace: list[TraceRow] | None = None
    _value: Query | None = dataclasses.field(default=None, repr=False)
    _derivative: Query | None = dataclasses.field(default=None, repr=False)
    _penalties: Mapping[str, Tensor] = dataclasses.field(default_factory=dict, repr=False)
    y_after: list[Any] = dataclasses.field(default_factory=list)

    def __call__(self, t: Tensor, per_sample: bool = False) -> State:
        """y at any t inside the solve, [*t.shape, *y0.shape]; needs ``dense=True``.

        per_sample: t.shape[-1] is B and asks each sample for its own times: [*t.shape, *S].
        Raises ArgumentError for a time outside the solve.
        """
        found: State = self._ask(self._value, t, per_sample)
        return found

    def derivative(self, t: Tensor, per_sample: bool = False) -> State:
        """dy/dt of the dense output at any t, shaped as `__call__`'s result.

        Differentiable with gradient=Direct() only; otherwise detached.
        """
        found: State = self._ask(self._derivative, t, per_sample)
        return found

    def penalty(self, name: str) -> Tensor:
        """A penalty that was asked for, 0-d (per sample [B]; NaN of a sample that did not arrive).

        name: "kinetic", "jacobian", "error" or "stiffness": one of solve(..., penalties=(…,)).
        Differentiable as y is. Raises ArgumentError for one that was not asked for.
        """
        if name in self._penalties:
            return self._penalties[name]
        given = f"penalties={tuple(self._penalties)!r}" if self._penalties else "no penalties"
        raise ArgumentError(
            f"penalty {name!r}: this solve was given {given}; solve with penalties=({name!r},)."
        )

    @staticmethod
    def _ask(query: Query | None, t: Tensor, per_sample: bool) -> Any:
        if query is None:
            raise ArgumentError("this solution has no dense output: solve with dense=True.")
        if not isinstance(t, Tensor) or not t.dtype.is_floating_point:
            raise ArgumentTypeError(f"t={t!r} must be a floating-point tensor of times.")
        return query(t, per_sample)
