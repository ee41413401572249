"""What is said of events beforehand: a condition that is located in time, a change at known times."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import Tensor

from ..checks import check_call
from ..errors import ArgumentError, ArgumentTypeError

Reset = Callable[[Tensor, Any], Any]  # (t, y) → y in its structure


@dataclasses.dataclass(frozen=True)
class Event:
    """The place where a function of the solution loses its sign.

    fn: (t, y) → 0-d tensor (per-sample stepping: [B]).
    terminal: the solve (the sample) ends there. None: True without a reset, False with one.
    direction: 1 fires on the way up only, −1 on the way down, 0 both ("up" in the direction in which time
        runs).
    reset: (t, y) → the state from which the solve goes on, in y's structure and dtype. Per sample it gets t
        [B, 1, …] and the whole batch, in which the rows of samples that did not fire hold the state of one
        that did; of its result only the rows that fired are taken.
    """

    fn: Callable[[Tensor, Any], Tensor]
    terminal: bool | None = None
    direction: Literal[-1, 0, 1] = 0
    reset: Reset | None = None

    def __post_init__(self) -> None:
        check_call(self.fn, "Event: fn", "fn(t, y)")
        if self.direction not in (-1, 0, 1):
            raise ArgumentError(f"Event: direction={self.direction!r} must be -1, 0 or 1.")
        if self.reset is not None:
            check_call(self.reset, "Event: reset", "reset(t, y)")
        if self.reset is not None and self.terminal:
            raise ArgumentError(
                "Event: terminal=True with a reset: a terminal event ends the solve, and nothing goes on "
                "from the state after it. Leave terminal out, or the reset."
            )
        if self.terminal is None:
            object.__setattr__(self, "terminal", self.reset is None)


@dataclasses.dataclass(frozen=True)
class Impulse:
    """A change of the state at times that are known.

    times: [n], or per sample [B, n], in any order; a time that is given twice counts once (a shorter row
        repeats one), and a time outside the solve never. They get the dtype of the solve's t, and may require
        a gradient.
    reset: as an `Event`'s.
    """

    times: Tensor | Sequence[float]
    reset: Reset

    def __post_init__(self) -> None:
        check_call(self.reset, "Impulse: reset", "reset(t, y)")
        if isinstance(self.times, (str, bytes)) or not isinstance(self.times, (Tensor, Sequence)):
            raise ArgumentTypeError(f"Impulse: times={self.times!r} must be a tensor or a list of times.")
        if isinstance(self.times, Tensor) and not self.times.dtype.is_floating_point:
            raise ArgumentTypeError(
                f"Impulse: times has dtype {self.times.dtype}; times must be floating point: times.double()."
            )


def resets(event: Event | Impulse) -> bool:
    """Whether the state changes there."""
    return isinstance(event, Impulse) or event.reset is not None
