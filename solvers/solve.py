"""The forward solve with one step size: checked settings → loop → values at the times asked for."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .device.queue import Queue, QueuedMarch
from .errors import solver_error
from .march.events import EventWatch, Fired
from .march.host import Outcome, Pace, Stats, Stop, march, march_grid
from .march.output import OutputWriter, Place
from .march.stepper import RungeKuttaStepper, Step
from .march.stiffness import stiffness_sentence
from .methods.tableau import Tableau
from .status import Status
from .step.attempt import Rules
from .step.clocks import ONE
from .step.controller import PID
from .step.norms import Norm, Tolerance
from .step.runge_kutta import Field
from .trace import Trace

Hook = Callable[[Step], "bool | None"]
Grid = Callable[[Sequence[float]], Sequence[float]]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What decides the steps of a solve, already checked.

    dt0: first |dt|, or None for Hairer's.  grid: the fixed grid for given times, or None for
    adaptive steps.
    perturb: f jumps at the grid's points: its steps see only times strictly inside.
    step_at, jump_at: times to hit; at the latter f is discontinuous.
    queue: attempts that decide for themselves, where the solve allows it (`why_not_queued`).
    """

    tableau: Tableau
    tolerance: Tolerance
    norm: Norm
    controller: PID = PID()  # noqa: RUF009  (frozen)
    dt0: float | None = None
    grid: Grid | None = None
    perturb: bool = False
    max_steps: int = 100_000
    step_at: tuple[float, ...] = ()
    jump_at: tuple[float, ...] = ()
    queue: Queue | None = None

    @property
    def fixed(self) -> bool:
        """Whether the grid is fixed beforehand."""
        return self.grid is not None


@dataclasses.dataclass
class Run:
    """What a forward solve gives.

    times, values, derivatives (where asked), places: of the outputs; after them those of the events
    that fired.  steps: the steps themselves, for dense output.  end: where the solve ended.
    """

    times: list[float]
    values: list[Tensor]
    derivatives: list[Tensor] | None
    places: list[Place]
    fired: list[Fired]
    steps: list[Step]
    end: float
    stats: Stats
    outcome: Outcome


@dataclasses.dataclass(frozen=True)
class Wish:
    """What a solve is to record besides the values at the times.

    derivatives: y'(t) at the outputs.  every_step: outputs at every accepted step instead.
    dense: keep the steps.  watch: events.  trace: rows for study.
    """

    derivatives: bool = False
    every_step: bool = False
    dense: bool = False
    watch: EventWatch | None = None
    trace: Trace | None = None


def stops_of(t0: float, end: float, settings: Settings) -> list[Stop]:
    """The times to hit, in the direction of time, the end last."""
    direction = math.copysign(1.0, end - t0)
    jumps = set(settings.jump_at)
    inner = {t for t in {*settings.step_at, *jumps} if 0 < (t - t0) * direction < (end - t0) * direction}
    ordered = sorted(inner, key=lambda t: t * direction)
    return [Stop(t, t in jumps) for t in ordered] + [Stop(end, end in jumps)]


def uniform_grid(times: Sequence[float], dt: float, most: float = math.inf) -> list[float]:
    """times[0], times[0] ± dt, … and times[-1] exactly; the last step may be shorter.

    Raises SolverError (MAX_STEPS) where more than `most` steps would be needed.
    """
    t0, end = times[0], times[-1]
    direction = math.copysign(1.0, end - t0)
    steps = abs(end - t0) / dt - 1e-9
    if steps > most:
        raise solver_error(
            t0, dt, Status.MAX_STEPS, Stats(), f"A fixed step of dt={dt:g} makes {steps:.3g} steps."
        )
    n = max(1, math.ceil(steps))
    return [t0 + direction * dt * i for i in range(n)] + [end]


def forward_solve(
    field: Field,
    z0: Tensor,
    times: Sequence[float],
    settings: Settings,
    stats: Stats,
    *,
    wish: Wish = Wish(),
    hooks: Sequence[Hook] = (),
    on_step: Hook | None = None,
    on_reject: Callable[[Step], None] | None = None,
    judge: Callable[[Step], Tensor] | None = None,
    differentiable: bool = False,
    wrap: Callable[[RungeKuttaStepper], Any] | None = None,
) -> Run:
    """Solves from times[0] to times[-1].

    hooks, on_step: called with each accepted step.  on_reject: with each rejected one.
    judge: the error ratio of a step, instead of the settings' norm.
    wrap: puts an observer around the stepper (torchdiffeq's callbacks).
    Raises SolverError where the solve cannot go on; its stats tell how far it came.
    """
    stepper = RungeKuttaStepper(
        field,
        settings.tableau,
        z0,
        None if settings.fixed else settings.tolerance,
        settings.norm,
        keep_stages=wish.dense,
        differentiable=differentiable,
    )
    stepper.judge = judge
    stepper.direction = math.copysign(1.0, times[-1] - times[0])
    if wish.watch is not None:
        stepper.watch = wish.watch.look
    listeners = [hook for hook in (*hooks, on_step) if hook is not None]
    collector = Collector(times, z0, wish, listeners, on_reject)
    collector.limit, collector.stats = settings.max_steps, stats
    outcome = _march(stepper, times, settings, stats, collector, wrap)
    stats.dt_last = outcome.dt
    if outcome.status not in (Status.SUCCESS, Status.EVENT):
        error = solver_error(outcome.t, outcome.dt, outcome.status, stats, collector.verdict)
        error.where, error.state = collector.first_bad_entry(), stepper.y.detach()
        raise error
    run = collector.run(outcome, stats)
    if settings.fixed:
        _check_fixed(run, stats)
    return run


class Collector:
    """Everything that listens to the loop: outputs, events, dense output, trace, an adjoint's hooks."""

    def __init__(
        self,
        times: Sequence[float],
        z0: Tensor,
        wish: Wish,
        hooks: Sequence[Hook],
        on_reject: Callable[[Step], None] | None,
    ):
        self.wish, self.hooks, self.on_reject = wish, hooks, on_reject
        self.writer = OutputWriter(times, z0, derivatives=wish.derivatives, every_step=wish.every_step)
        self.steps: list[Step] = []
        self.end: float | None = None
        self.last: Step | None = None
        self.limit, self.stats, self.verdict = math.inf, Stats(), ""

    def accept(self, step: Step) -> bool:
        """Of each accepted step; True where a terminal event ends the solve."""
        if self.wish.watch is not None:
            self.end = self.wish.watch.check(step)
        self.writer(step, self.end)
        if self.wish.dense:
            step.complete()
            self.steps.append(step)
        for hook in self.hooks:
            hook(step)
        return self.end is not None

    def attempt(self, step: Step, accepted: bool, dt_next: float) -> None:
        """Of each attempt."""
        self.last = step
        if self.stats.n_steps >= self.limit:
            self.verdict = stiffness_sentence(step)  # now: an accepted step's stages are overwritten
        if self.wish.trace is not None:
            self.wish.trace.attempt(step, accepted, dt_next)
        if not accepted and self.on_reject is not None:
            self.on_reject(step)

    def first_bad_entry(self) -> tuple[int, ...] | None:
        """Where the last attempt first was not finite (host reads, only on the way to an error)."""
        if self.last is None or self.last.finite:
            return None
        stages = self.last.result.stages
        for k in [stages.get(i) for i in range(len(self.last.saved))] + [self.last.y1]:
            bad = (~torch.isfinite(k)).nonzero()
            if len(bad):
                return tuple(bad[0].tolist())
        return None

    def run(self, outcome: Outcome, stats: Stats) -> Run:
        """The result; outputs that an event left out are NaN, and lie nowhere."""
        w = self.writer
        missing = 0 if w.every_step else len(w.wanted) - len(w.times)
        w.times += list(w.wanted[len(w.wanted) - missing :]) if missing else []
        for _ in range(missing):
            w.values.append(torch.full_like(w.values[0], math.nan))
            w.places.append(Place(-2, 1.0))
            if w.derivatives is not None:
                w.derivatives.append(torch.zeros_like(w.values[0]))
        fired = [] if self.wish.watch is None else self.wish.watch.fired
        end = outcome.t if self.end is None else self.end
        return Run(w.times, w.values, w.derivatives, w.places, fired, self.steps, end, stats, outcome)


def _march(
    stepper: RungeKuttaStepper,
    times: Sequence[float],
    settings: Settings,
    stats: Stats,
    collector: Collector,
    wrap: Callable[[RungeKuttaStepper], Any] | None,
) -> Outcome:
    """Chooses the grid or the first step, and runs the loop."""
    t0, end = times[0], times[-1]
    accept, attempt = collector.accept, collector.attempt
    if settings.queue is not None:
        return _march_queued(stepper, times, settings, stats, collector)
    stepper.restart(t0, after_jump=t0 in settings.jump_at or settings.perturb)
    driven = stepper if wrap is None else wrap(stepper)
    if settings.fixed:
        assert settings.grid is not None
        stops = stops_of(t0, end, settings)
        grid = settings.grid(times)
        if len(stops) > 1:
            pieces = itertools.pairwise([t0, *(stop.t for stop in stops)])
            grid = [t0, *itertools.chain.from_iterable(settings.grid(piece)[1:] for piece in pieces)]
        jumps = {stop.t for stop in stops if stop.jump}
        return march_grid(driven, grid, stats, accept, attempt, perturb=settings.perturb, jumps=jumps)
    dt0 = settings.dt0
    if dt0 is None:
        dt0 = stepper.initial_step(t0, end, before_jump=end in settings.jump_at)
    pace = Pace(settings.controller, settings.tableau.error_order, dt0)
    return march(driven, pace, t0, stops_of(t0, end, settings), settings.max_steps, stats, accept, attempt)


def _march_queued(
    stepper: RungeKuttaStepper, times: Sequence[float], settings: Settings, stats: Stats, collector: Collector
) -> Outcome:
    """The loop whose attempts decide for themselves."""
    assert settings.queue is not None
    rules = Rules(settings.tableau, stepper.numeric, settings.norm, settings.controller, ONE)
    t0, stops = times[0], stops_of(times[0], times[-1], settings)
    queued = QueuedMarch(stepper, rules, settings.queue, stats)
    return queued.march(settings.dt0, t0, stops, settings.max_steps, collector.accept, collector.attempt)


def _check_fixed(run: Run, stats: Stats) -> None:
    """Fixed steps cannot reject, so NaN is looked for in what is returned (one host read)."""
    reached = [(t, v) for t, v, p in zip(run.times, run.values, run.places, strict=True) if p.step != -2]
    fine = torch.stack([torch.isfinite(value.detach()).all() for _, value in reached])
    flags = fine.tolist()  # host read
    if not all(flags):
        raise solver_error(
            reached[flags.index(False)][0],
            stats.dt_first,
            Status.NON_FINITE,
            stats,
            "A fixed step cannot be shortened: give a shorter one, or an adaptive method.",
        )
