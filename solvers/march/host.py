"""The march over one clock that the host looks at after every attempt: times and decisions are Python floats.

Time and step are float64 whatever the state's dtype. A step that would pass the next stop is cut to end on
it exactly, so f is never evaluated outside the interval. The loops know times and decisions, the stepper
knows tensors. `step.attempt` decides the same in tensors, for any clocks.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence, Set
from typing import Any, Protocol

import torch
from torch import Tensor

from ..methods.tableau import Tableau
from ..stats import Stats
from ..status import Status
from ..step.attempt import Limits, Rules, first_step
from ..step.clocks import ONE, Norm, Tolerance, error_ratio, sent, times_between
from ..step.controller import PID, SLIVER, Pace, shortest_step
from ..step.runge_kutta import Evaluation, Field, StageBuffer, StageList, Stages, owned, rk_step
from ..step.taker import YES, Taker
from .output import Step, as_times, restart_time


class Stepper(Protocol):
    """What the loop asks of a stepper."""

    def attempt(self, t0: float, t1: float, *, before_jump: bool = False, evaluate_end: bool = True) -> Any:
        """Tries a step."""

    def accept(self, step: Any) -> bool | None:
        """Moves on to its end; whether the method is another one from there."""

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


def unheard(step: Any, accepted: bool, dt_next: float) -> None:
    """Nobody listens to the attempts."""


def march(
    stepper: Stepper,
    pace: Pace,
    t0: float,
    stops: Sequence[Stop],
    stats: Stats,
    on_accept: OnAccept,
    on_attempt: OnAttempt = unheard,
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
            if stats.n_accepted + stats.n_rejected >= pace.max_steps:
                return Outcome(Status.MAX_STEPS, t, pace.dt)
            left = abs(stop.t - t)
            if not left <= (1.0 + SLIVER) * pace.dt and pace.too_short(t):  # so that a dt of NaN ends here
                return Outcome(pace.failure, t, pace.dt)
            length, cut = pace.to_stop(t, left)
            t_new = stop.t if cut else t + direction * length
            taken = abs(t_new - t)
            step = stepper.attempt(t, t_new, before_jump=cut and stop.jump)
            if pace.accepts(taken, step):
                stats.n_accepted += 1
                pace.accepted(taken, step)
                on_attempt(step, True, pace.dt)
                if on_accept(step):
                    return Outcome(Status.EVENT, t_new, pace.dt)
                if stepper.accept(step):  # last: it may reuse the memory of the step's stages
                    pace.forget()
                t = t_new
            else:
                stats.n_rejected += 1
                stats.n_newton += step.unsolved
                pace.rejected(taken, step)
                on_attempt(step, False, pace.dt)
                if taken < shortest_step(t, pace.span, 0.0):
                    return Outcome(pace.failure, t, taken)
        if stop.jump and t != end:
            stepper.restart(t, after_jump=True)
            pace.forget()
    return Outcome(Status.SUCCESS, t, pace.dt)


def march_grid(
    stepper: Stepper,
    grid: Sequence[float],
    stats: Stats,
    on_accept: OnAccept,
    on_attempt: OnAttempt = unheard,
    *,
    perturb: bool = False,
    jumps: Set[float] = frozenset(),
) -> Outcome:
    """Steps along a fixed grid; nothing is rejected, and an implicit step that is not solved is the end.

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
        if step.unsolved:
            stats.n_rejected, stats.n_newton = stats.n_rejected + 1, stats.n_newton + 1
            on_attempt(step, False, abs(t_new - t))
            return Outcome(Status.NEWTON, t, abs(t_new - t))
        stats.n_accepted += 1
        on_attempt(step, True, abs(t_new - t))
        if on_accept(step):
            return Outcome(Status.EVENT, t_new, abs(t_new - t))
        stepper.accept(step)
    return Outcome(Status.SUCCESS, grid[-1], abs(grid[-1] - grid[-2]))


@dataclasses.dataclass(frozen=True)
class Judge:
    """What decides about an attempt, with one host read.

    tolerance, norm: of the error.
    ratio: the error ratio of a step, in place of them.
    watch: what else is read of an attempt (events).
    stiff: dt·|λ| of a step, where the solve asks for it.
    """

    tolerance: Tolerance
    norm: Norm
    ratio: Callable[[Step], Tensor] | None = None
    watch: Callable[[Step], Tensor] | None = None
    stiff: Callable[[Step], Tensor] | None = None

    @torch.no_grad()
    def judged(self, step: Step) -> Step:
        """The attempt with its error ratio, and whether it is finite."""
        result = step.result
        errors = result.errors()
        probe = result.probe(errors[0])
        if self.ratio is not None:
            ratio = self.ratio(step)
        else:
            ratio = error_ratio(errors, step.y0, step.y1, self.tolerance, self.norm, result.apart)
        told = [ratio, probe] if result.solved is None else [ratio, probe, result.solved.failed]
        told += [] if self.stiff is None else [self.stiff(step)]
        reads = torch.stack([x.to(probe) for x in told])
        if self.watch is not None:
            reads = torch.cat((reads.double(), self.watch(step)))
        step.error_ratio, probed, *watched = reads.tolist()  # host read
        step.unsolved = result.solved is not None and bool(watched.pop(0))
        step.stiffness = math.nan if self.stiff is None else watched.pop(0)
        step.watched = watched if self.watch is not None else None
        if not (math.isfinite(probed) and math.isfinite(step.error_ratio)):
            step.finite = step.examined()
        return step


class RungeKuttaStepper:
    """A Runge–Kutta method on one state with one clock.

    field: counts and checks itself.
    method: an explicit one's tableau, or what takes other steps.
    judge: None: fixed steps, no error is estimated.
    direction: of time.
    keep_stages: each accepted step owns its stages (dense output, interpolating adjoint).
    differentiable: out of place, under the caller's grad mode.
    """

    def __init__(
        self,
        field: Field,
        method: Tableau | Taker,
        y0: Tensor,
        judge: Judge | None,
        *,
        direction: float = 1.0,
        keep_stages: bool = False,
        differentiable: bool = False,
    ):
        self.taker = method if isinstance(method, Taker) else None
        self.tableau = tableau = method.tableau if isinstance(method, Taker) else method
        self.field, self.raw_field, self.y = owned(field) if differentiable else field, field, y0
        self.first_field = owned(field)  # a first stage outlives the next evaluation, the probe's
        self.judge, self.direction, self.keep = judge, direction, keep_stages
        self.differentiable = differentiable
        self.numeric = tableau.numeric(y0.dtype, y0.device)
        prepare = getattr(field, "prepare", None)  # of one that wants the times of its next calls as floats
        self.announce: Callable[[list[float]], None] | None = None if self.taker else prepare
        self.first: Evaluation | None = None
        self.first_time: Tensor | None = None
        self.beside_jump = False
        self.chained = False
        self._stages: Stages | None = None

    def restart(self, t: float, *, after_jump: bool = False) -> None:
        """Evaluates the first stage anew at t (just after t where f jumps there)."""
        time = restart_time(t, self.y, self.direction if after_jump else 0.0)
        if self.announce is not None:
            self.announce([t])
        self.beside_jump = after_jump
        self.first, self.first_time, self.chained = self.first_field(time, self.y), time, False
        if after_jump and self.taker is not None:
            self.taker.restarted(YES)

    def initial_step(self, t0: float, end: float, *, before_jump: bool = False) -> float:
        """|dt| to begin with (HNW II.4); one evaluation, one host read. before_jump: f jumps at the end."""
        assert self.first is not None
        assert self.judge is not None
        start, last, direction = sent([t0, end, self.direction], self.y.device).unbind()
        here = (start, self.y, self.first[0])
        rules = Rules(self.tableau, self.numeric, self.judge.norm, PID(), ONE)

        def short_of_end(time: Tensor) -> Tensor:
            seen = time.to(self.y.dtype)
            back = torch.nextafter(seen, torch.full_like(seen, -self.direction * math.inf))
            return torch.where(seen == end, back, seen)

        seen_at = short_of_end if before_jump else None
        limits = Limits(last, last, direction, direction)
        return float(first_step(rules, self.field, limits, self.judge.tolerance, here, seen_at))  # host read

    def attempt(self, t0: float, t1: float, *, before_jump: bool = False, evaluate_end: bool = True) -> Step:
        """Tries the step from t0 to t1; nothing changes until `accept`.

        before_jump: f jumps at t1, so the last stages are evaluated just before t1.
        """
        hosts = times_between(t0, t1, self.numeric.c)
        times = as_times(hosts, self.y)
        if before_jump:
            back = torch.full_like(times[0], -math.inf * self.direction)
            pairs = zip(times, self.numeric.c, strict=True)
            times = [torch.nextafter(t, back) if c == 1 else t for t, c in pairs]
        if self.first is None:
            self.restart(t0)
        assert self.first is not None
        if self.first_time is not None:
            times[0] = self.first_time
        if self.announce is not None:
            self.announce(hosts[1:])
        stages = self.fresh_stages(t1 - t0)
        explicit = functools.partial(rk_step, tableau=self.tableau, evaluate_end=evaluate_end)
        result = (self.taker or explicit)(self.field, self.y, self.first, times, stages=stages)
        plain = not (before_jump or (self.beside_jump and self.first_time is not None))
        step = Step(t0, t1, self.y, result, self.tableau, self.field, self.chained, times, plain=plain)
        if self.judge is not None:
            return self.judge.judged(step)
        step.unsolved = result.solved is not None and bool(result.solved.failed)  # host read
        return step

    def fresh_stages(self, dt: float) -> Stages:
        """Where the stages of a step go: memory that the next step writes over, unless they are kept."""
        if self.differentiable:
            return StageList(self.numeric, dt)
        if isinstance(self._stages, StageBuffer):
            return self._stages.again(dt)
        self._stages = StageBuffer(self.numeric, self.y, dt)
        return self._stages

    def take_over(self, other: RungeKuttaStepper) -> None:
        """Goes on from where another stepper on the same field has come."""
        self.y, self.first, self.first_time = other.y, other.first, other.first_time
        self.beside_jump, self.chained = other.beside_jump, other.chained
        if self.taker is not None:
            self.taker.restarted(YES)

    def accept(self, step: Step) -> None:
        """Moves on to the step's end."""
        self.y = step.y1
        if self.taker is not None:
            self.taker.accepted(YES)
        if len(step.saved) < self.tableau.n_stages:
            self.first, self.first_time, self.chained = None, None, False
            return
        k, saved = step.last
        if isinstance(self._stages, StageBuffer):
            if self.keep:
                self._stages = None
            else:
                # A rejected attempt overwrites the last stage, so it moves to the first's place.
                self._stages.put(0, k)
                k = self._stages.get(0)
        self.first, self.first_time, self.chained = (k, saved), None, True
