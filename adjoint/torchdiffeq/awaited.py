"""An event that a solve without an end waits for, and when it is no longer waited for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...solvers.errors import TooManySteps
from ...solvers.march.events import Event, EventWatch
from ...solvers.march.output import Step
from ...solvers.stats import Stats
from ...solvers.status import Status
from ...solvers.step.clocks import Tolerance

MOST_STEPS = 100_000
FIRST_STEPS = 500  # of the first window; each next one is twice as long; the third and later are judged
DOUBLINGS = 60  # of the span, at whose ends the event function is asked whether it will change with time


class Window(NamedTuple):
    """Some consecutive steps: bounds of the state and of the event function.

    low, high: the least and the largest of each entry of the state at the steps' ends.
    gap: the least modulus of the event function where it was evaluated.
    """

    low: Tensor
    high: Tensor
    gap: float

    def joined(self, other: Window) -> Window:
        """Both together."""
        low, high = torch.minimum(self.low, other.low), torch.maximum(self.high, other.high)
        return Window(low, high, min(self.gap, other.gap))


class AwaitedEvent(EventWatch):
    """Watches the one event of a solve without an end, and gives up where nothing speaks for it.

    It gives up after a window of steps, as long as all those before it, in which
    - the state stayed within the bounds of the window before (by a hundredth of their width, or ten times
      the tolerance: a period, a rest),
    - the event function came nearer to 0 so slowly that it would take more than 100,000 steps, if at all,
      and has the same sign with this state at later times.
    The watch costs two small operations a step and a host read a window.
    Raises TooManySteps.
    """

    def __init__(
        self,
        event: Event,
        unpack: Callable[[Tensor], Any],
        t0: float,
        z0: Tensor,
        tolerance: Tolerance,
        stats: Stats,
    ):
        super().__init__([event], unpack, t0, z0)
        self.t0, self.tolerance, self.stats = t0, tolerance, stats
        self.window: Window | None = None
        self.last: Window | None = None
        self.until = FIRST_STEPS

    def check(self, step: Step) -> float | None:
        """The time of the event, if it lies in the step."""
        end = super().check(step)
        if end is None:
            self._wait(step)
        return end

    @torch.no_grad()
    def _wait(self, step: Step) -> None:
        y, sizes = step.y1.detach(), [abs(value) for value in self.values[0]]
        seen = Window(y, y, min([size for size in sizes if not math.isnan(size)], default=math.inf))
        self.window = seen if self.window is None else self.window.joined(seen)
        if self.n_accepted < self.until:
            return
        if self.last is not None and self.until > 2 * FIRST_STEPS and self._hopeless(step):
            raise TooManySteps(
                step.t1,
                abs(step.dt),
                Status.MAX_STEPS,
                self.stats,
                f"In the later half of {self.n_accepted} steps the state kept within the bounds that it had "
                "before (a period, or a rest), and event_fn came no nearer to 0.",
            )
        self.last, self.window, self.until = self.window, None, 2 * self.until

    def _hopeless(self, step: Step) -> bool:
        """Whether nothing speaks for the event."""
        assert self.last is not None
        assert self.window is not None
        before, now = self.last, self.window
        scale = self.tolerance.atol + self.tolerance.rtol * torch.maximum(before.low.abs(), before.high.abs())
        room = 0.01 * (before.high - before.low) + 10.0 * scale
        stayed = ((now.low >= before.low - room) & (now.high <= before.high + room)).all()
        gained = before.gap - now.gap
        steps = now.gap / gained * 0.5 * self.n_accepted if gained > 0 else math.inf
        waiting = steps > MOST_STEPS and bool(stayed)  # host read
        return waiting and not self._changes_with_time(step)

    def _changes_with_time(self, step: Step) -> bool:
        """Whether the event function has another sign with this state at some later time."""
        span = step.t1 - self.t0
        times = [step.t1 + span * 2.0**k for k in range(DOUBLINGS)]
        (now,) = self.before
        ahead = self.evaluate(times, step.y1)
        return any(value <= 0 if now > 0 else value >= 0 if now < 0 else now == 0 for value in ahead)
