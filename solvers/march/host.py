"""Stepping with one step size for the whole state. Times and decisions only, no formula, no tensor.

Time and step are Python floats (float64) whatever the state's dtype. A step that would pass the
next stop is cut to end on it exactly, so f is never evaluated outside the interval.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence, Set
from typing import Any, Protocol

from ..stats import Stats as Stats
from ..status import Status
from ..step.controller import PID


class Attempt(Protocol):
    """What the loop looks at in an attempted step."""

    error_ratio: float
    finite: bool


class Stepper(Protocol):
    """What the loop asks of a stepper."""

    def attempt(self, t0: float, t1: float, *, before_jump: bool = False, evaluate_end: bool = True) -> Any:
        """Tries a step."""

    def accept(self, step: Any) -> None:
        """Moves on."""

    def restart(self, t: float, *, after_jump: bool = False) -> None:
        """Evaluates the first stage anew."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How the loop ended: status, the time reached, the |dt| it would try next."""

    status: Status
    t: float
    dt: float


@dataclasses.dataclass(frozen=True)
class Stop:
    """A time that a step must end on; jump: f is discontinuous there."""

    t: float
    jump: bool = False


OnAccept = Callable[[Any], "bool | None"]
OnAttempt = Callable[[Any, bool, float], None]  # step, accepted, the |dt| proposed next


def shortest_step(t: float, span: float, dt_min: float) -> float:
    """The least |dt| that is still a step at t: dt_min, or ten times the spacing of floats there.

    At t = 0 that spacing is 5e-324: a step of 1e-20 of the whole interval gets nowhere either (of a
    unit of time, where the interval is longer: steps may grow tenfold each).
    """
    return max(dt_min, 10.0 * math.ulp(t), 1e-20 * min(span, 1.0))


@dataclasses.dataclass
class Pace:
    """The step size and what the controller remembers of the steps before."""

    controller: PID
    order: int
    dt: float
    e1: float = 1.0
    e2: float = 1.0
    after_rejection: bool = False
    non_finite: bool = False
    span: float = 0.0

    def too_short(self, t: float) -> bool:
        """Whether dt is no step any more at t. With force_dt_min it is raised to dt_min instead."""
        low = self.controller.dt_min
        if self.dt >= shortest_step(t, self.span, low):
            return False
        if self.controller.force_dt_min and low > 0 and not self.non_finite:
            self.dt = low
            return False
        return True

    def accepts(self, taken: float, step: Attempt) -> bool:
        """The decision."""
        # A thousandth: t + dt_min is rounded, and the step before a stop may be that much longer.
        forced = self.controller.force_dt_min and taken <= 1.001 * self.controller.dt_min
        return step.finite and (step.error_ratio <= 1.0 or forced)

    def accepted(self, taken: float, ratio: float) -> None:
        """dt after an accepted step of length taken."""
        grown = taken * self.controller.factor_accepted(
            ratio, self.e1, self.e2, self.order, self.after_rejection
        )
        # Cut short: its small error says little, the step wanted before stands. (t + dt) − t is rounded,
        # so a whole step may look an ulp shorter than dt.
        if taken < 0.999 * self.dt:
            self.dt = max(grown, self.dt)
        else:
            self.dt, self.e1, self.e2 = grown, ratio, self.e1
        self.dt = min(self.dt, self.controller.dt_max)
        self.after_rejection = self.non_finite = False

    def rejected(self, taken: float, step: Attempt) -> None:
        """dt after a rejected step."""
        self.non_finite = not step.finite
        ratio = math.nan if self.non_finite else step.error_ratio
        self.dt = taken * self.controller.factor_rejected(ratio, self.order)
        self.after_rejection = True

    @property
    def failure(self) -> Status:
        """Why no shorter step is left."""
        return Status.NON_FINITE if self.non_finite else Status.STEP_UNDERFLOW


def march(
    stepper: Stepper,
    pace: Pace,
    t0: float,
    stops: Sequence[Stop],
    max_steps: int,
    stats: Stats,
    on_accept: OnAccept,
    on_attempt: OnAttempt | None = None,
) -> Outcome:
    """Steps from t0 over all stops to the last, adapting the step size.

    pace: with the first |dt| to try.  on_accept may return True to end there (an event).
    on_attempt: sees every attempt.
    """
    t, end = t0, stops[-1].t
    direction = math.copysign(1.0, end - t0)
    pace.span = abs(end - t0) if math.isfinite(end) else 0.0
    pace.dt = stats.dt_first = min(pace.dt, pace.controller.dt_max)
    for stop in stops:
        while t != stop.t:
            if stats.n_steps >= max_steps:
                return Outcome(Status.MAX_STEPS, t, pace.dt)
            left = abs(stop.t - t)
            if not left <= 1.001 * pace.dt and pace.too_short(t):  # so that a dt of NaN ends here
                return Outcome(pace.failure, t, pace.dt)
            cut = left <= 1.001 * pace.dt  # a thousandth longer, rather than leave a sliver
            t_new = stop.t if cut else t + direction * pace.dt
            taken = abs(t_new - t)
            step = stepper.attempt(t, t_new, before_jump=cut and stop.jump)
            if pace.accepts(taken, step):
                stats.n_accepted += 1
                pace.accepted(taken, step.error_ratio)
                if on_attempt is not None:
                    on_attempt(step, True, pace.dt)
                if on_accept(step):
                    return Outcome(Status.EVENT, t_new, pace.dt)
                stepper.accept(step)  # last: it may reuse the memory of the step's stages
                t = t_new
            else:
                stats.n_rejected += 1
                pace.rejected(taken, step)
                if on_attempt is not None:
                    on_attempt(step, False, pace.dt)
                if taken < shortest_step(t, pace.span, 0.0):
                    return Outcome(pace.failure, t, taken)
        if stop.jump and t != end:
            stepper.restart(t, after_jump=True)
            pace.e1 = pace.e2 = 1.0
    return Outcome(Status.SUCCESS, t, pace.dt)


def march_grid(
    stepper: Stepper,
    grid: Sequence[float],
    stats: Stats,
    on_accept: OnAccept,
    on_attempt: OnAttempt | None = None,
    *,
    perturb: bool = False,
    jumps: Set[float] = frozenset(),
) -> Outcome:
    """Steps along a fixed grid; nothing is rejected.

    perturb: f jumps at grid points, so each step sees only times strictly inside it.
    jumps: the grid points at which f jumps.
    """
    last = len(grid) - 2
    stats.dt_first = abs(grid[1] - grid[0])
    for i, (t, t_new) in enumerate(itertools.pairwise(grid)):
        if i > 0 and (perturb or t in jumps):
            stepper.restart(t, after_jump=True)
        before = perturb or t_new in jumps
        step = stepper.attempt(t, t_new, before_jump=before, evaluate_end=i < last and not before)
        stats.n_accepted += 1
        if on_attempt is not None:
            on_attempt(step, True, abs(t_new - t))
        if on_accept(step):
            return Outcome(Status.EVENT, t_new, abs(t_new - t))
        stepper.accept(step)
    return Outcome(Status.SUCCESS, grid[-1], abs(grid[-1] - grid[-2]))
