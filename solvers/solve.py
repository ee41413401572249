"""The forward solves: checked settings → march → values at the times asked for."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .checks import all_finite
from .device.clocked_queue import QueuedClocks
from .device.queue import Queue, QueuedMarch
from .errors import solver_error
from .march.adams import AdamsStepper
from .march.clocked import ClockedMarch
from .march.events import EventWatch, Fired, SampleEvents
from .march.foreign import Foreign, foreign_march
from .march.grid import Grid, grid_through
from .march.host import Judge, Outcome, RungeKuttaStepper, Stop, march, march_grid
from .march.output import Collector, Hook, Place, Step, as_time
from .march.samples import SampleOutput, SampleRecorder, SampleSettings, SampleStep
from .march.stiffness import stiffness
from .march.switching import SwitchingClocks, SwitchingStepper, switch_of
from .march.unheard import march_unheard
from .march.watching import Watching
from .methods.adams import Adams
from .methods.tableau import Tableau
from .stats import Stats
from .status import Status
from .step.attempt import Clock, Rules
from .step.clocks import ONE, Norm, Tolerance
from .step.controller import PID, Pace
from .step.implicit.choose import taker_of
from .step.implicit.jacobian import Jacobian
from .step.runge_kutta import Field
from .step.taker import Taker
from .trace import Trace, stiffness_sentence


@dataclasses.dataclass(frozen=True)
class Settings:
    """What decides the steps of a solve, already checked.

    dt0: first |dt|, or None for Hairer's.
    grid: the fixed grid for given times, or None for adaptive steps.
    perturb: f jumps at the grid's points: its steps see only times strictly inside.
    adams: along the grid a multistep method, which the tableau's starts.
    foreign: a solver of scipy's, in the place of all else but the tolerance.
    jacobian: of f, for an implicit method.
    coupling: of a reversible pair's steps (`step.pairs`); None: they are the method's own.
    step_at, jump_at: times to hit; at the latter f is discontinuous.
    """

    tableau: Tableau
    tolerance: Tolerance
    norm: Norm
    controller: PID = PID()  # noqa: RUF009  (frozen)
    dt0: float | None = None
    grid: Grid | None = None
    perturb: bool = False
    adams: Adams | None = None
    foreign: Foreign | None = None
    max_steps: int = 100_000
    step_at: tuple[float, ...] = ()
    jump_at: tuple[float, ...] = ()
    jacobian: Jacobian | None = None
    coupling: float | None = None

    @property
    def fixed(self) -> bool:
        """Whether the grid is fixed beforehand."""
        return self.grid is not None

    @property
    def plain(self) -> bool:
        """Whether steps are those of `rk_step`."""
        return self.coupling is None and self.tableau.by_stages


@dataclasses.dataclass(frozen=True)
class Wish:
    """What a solve is to give besides the values at the times.

    derivatives: y'(t) at the outputs.
    every_step: outputs at every accepted step instead.
    dense: keep the steps.
    differentiable: autograd follows the steps.
    events, trace: who watches; with a clock a sample events makes the watch from the times and the state at
        the start.
    queue: attempts that decide for themselves.
    """

    derivatives: bool = False
    every_step: bool = False
    dense: bool = False
    differentiable: bool = False
    events: EventWatch | Callable[[Tensor, Tensor], SampleEvents] | None = None
    trace: Trace | None = None
    queue: Queue | None = None


@dataclasses.dataclass(frozen=True)
class Observers:
    """Who sees the steps of a solve with one clock.

    hooks: called with each accepted step.
    on_reject: with each rejected one.
    ratio: the error ratio of a step, instead of the settings' norm.
    wrap: puts an observer around the stepper.
    """

    hooks: tuple[Hook, ...] = ()
    on_reject: Callable[[Step], None] | None = None
    ratio: Callable[[Step], Tensor] | None = None
    wrap: Callable[[Any], Any] | None = None


@dataclasses.dataclass(frozen=True)
class Run:
    """What a forward solve with one clock gives.

    values [n, *z]: at the outputs, then at the events that fired; derivatives: at the outputs, where asked.
    times, places: of the outputs.
    steps: for dense output.
    end: where the solve ended.
    """

    values: Tensor
    derivatives: Tensor | None
    times: list[float]
    places: list[Place]
    fired: list[Fired]
    steps: list[Step]
    end: float
    outcome: Outcome

    @property
    def status(self) -> Status:
        """How it ended."""
        return self.outcome.status


@dataclasses.dataclass(frozen=True)
class SampleRun:
    """What a forward solve with a clock a sample gives.

    values [n, *z]: at the outputs, then at the events, the first event's last; derivatives: at the outputs,
        where asked; NaN where not computed.
    times: [n outputs, B].
    fired: in the order of the values.
    clock: how each sample ended.
    steps: for dense output.
    slope0: f at each sample's start.
    """

    values: Tensor
    derivatives: Tensor | None
    times: Tensor
    fired: list[Fired]
    clock: Clock
    steps: list[SampleStep]
    slope0: Tensor

    @property
    def status(self) -> Tensor:
        """How each sample ended, [B] int8."""
        return self.clock.status


def method_of(settings: Settings, tableau: Tableau, stats: Stats) -> Tableau | Taker:
    """What takes a method's steps in a solve with one clock. stats: counts evaluations of ∂f/∂y."""
    if settings.coupling is None and not (tableau.implicit or tableau.leapfrog):
        return tableau

    def count(jacobians: int, of_f: int) -> None:
        stats.n_jacobians, stats.nfe = stats.n_jacobians + jacobians, stats.nfe + of_f

    return taker_of(tableau, settings, ONE, count=count)


def stops_of(t0: float, end: float, settings: Settings) -> list[Stop]:
    """The times to hit, in the direction of time, the end last."""
    direction = math.copysign(1.0, end - t0)
    jumps = set(settings.jump_at)
    inner = {t for t in {*settings.step_at, *jumps} if 0 < (t - t0) * direction < (end - t0) * direction}
    ordered = sorted(inner, key=lambda t: t * direction)
    return [Stop(t, t in jumps) for t in ordered] + [Stop(end, end in jumps)]


def grid_of(times: Sequence[float], settings: Settings) -> tuple[Sequence[float], set[float]]:
    """The fixed grid, with the times to hit in it; and those at which f jumps.

    Raises SolverError (MAX_STEPS) as the settings' grid does.
    """
    assert settings.grid is not None
    stops = stops_of(times[0], times[-1], settings)
    grid = grid_through(times, [stop.t for stop in stops], settings.grid)
    return grid, {stop.t for stop in stops if stop.jump}


def _stepper(
    field: Field,
    z0: Tensor,
    times: Sequence[float],
    settings: Settings,
    stats: Stats,
    wish: Wish,
    observers: Observers,
) -> RungeKuttaStepper | AdamsStepper | SwitchingStepper:
    """Who takes the steps."""
    direction = math.copysign(1.0, times[-1] - times[0])
    if settings.adams is not None:
        return AdamsStepper(field, settings.adams, settings.tableau, z0, settings.tolerance, direction)
    judge, both = None, settings.tableau.between
    if not settings.fixed:
        assert wish.events is None or isinstance(wish.events, EventWatch)
        watch = None if wish.events is None else wish.events.look
        stiff = None if not both else functools.partial(stiffness, tolerance=settings.tolerance)
        judge = Judge(settings.tolerance, settings.norm, observers.ratio, watch, stiff)
    explicit, *implicit = [
        RungeKuttaStepper(
            *(field, method_of(settings, tableau, stats), z0, judge),
            direction=direction,
            keep_stages=wish.dense,
            differentiable=wish.differentiable,
        )
        for tableau in settings.tableau.parts
    ]
    return SwitchingStepper(explicit, implicit[0], switch_of(both[0])) if both else explicit


def forward_solve(
    field: Field,
    z0: Tensor,
    times: Sequence[float],
    settings: Settings,
    stats: Stats,
    wish: Wish = Wish(),
    observers: Observers = Observers(),
) -> Run:
    """Solves from times[0] to times[-1] with one clock.

    Raises SolverError where the solve cannot go on; its stats tell how far it came.
    """
    if settings.foreign is not None:
        return _foreign_solve(settings.foreign, field, z0, times, settings.tolerance, stats, wish)
    events = wish.events
    assert events is None or isinstance(events, EventWatch)
    stepper = _stepper(field, z0, times, settings, stats, wish, observers)
    last_word = functools.partial(stiffness_sentence, changes=len(settings.tableau.parts) > 1)
    collector = Collector(times, z0, wish, observers, field, settings.max_steps, last_word)
    if wish.queue is None:
        driven = stepper if observers.wrap is None else observers.wrap(stepper)
        outcome = _march(stepper, driven, times, settings, stats, collector)
    else:
        assert isinstance(stepper, RungeKuttaStepper)
        rules = Rules(settings.tableau, stepper.numeric, settings.norm, settings.controller, ONE)
        queued = QueuedMarch(stepper, rules, wish.queue, stats)
        stops = stops_of(times[0], times[-1], settings)
        outcome = queued.march(
            settings.dt0, times[0], stops, settings.max_steps, collector.accept, collector.attempt
        )
    stats.dt_last = outcome.dt
    if outcome.status not in (Status.SUCCESS, Status.EVENT):
        random = "" if outcome.status is Status.NON_FINITE else collector.random()
        error = solver_error(outcome.t, outcome.dt, outcome.status, stats, random or collector.verdict)
        error.where, error.state = collector.first_bad_entry(), stepper.y.detach()
        raise error
    collector.writer.missing()
    fired = [] if events is None else events.fired
    end = outcome.t if collector.end is None else collector.end
    writer = collector.writer
    values = writer.result([one.value for one in fired])
    slopes = None if writer.derivatives is None else torch.stack(writer.derivatives)
    run = Run(values, slopes, writer.times, writer.places, fired, collector.steps, end, outcome)
    if settings.fixed:
        _check_fixed(run, stats)
    return run


def _foreign_solve(
    foreign: Foreign,
    field: Field,
    z0: Tensor,
    times: Sequence[float],
    tolerance: Tolerance,
    stats: Stats,
    wish: Wish,
) -> Run:
    """The same by a solver of scipy's, without a graph."""
    with torch.no_grad():
        steps = foreign_march(foreign, lambda t, z: [field(t, z[0])[0]], [z0], times, tolerance, stats)
        rows = [z0, *(z for (z,) in steps)]
        slopes = None
        if wish.derivatives:
            pairs = zip(times, rows, strict=True)
            slopes = torch.stack([field(as_time(t, z), z)[0].clone() for t, z in pairs])
    outcome = Outcome(Status.SUCCESS, times[-1], stats.dt_last)
    places = [Place(i, 1.0) for i in range(-1, len(times) - 1)]
    return Run(torch.stack(rows), slopes, list(times), places, [], [], times[-1], outcome)


def _march(
    stepper: RungeKuttaStepper | AdamsStepper | SwitchingStepper,
    driven: Any,
    times: Sequence[float],
    settings: Settings,
    stats: Stats,
    collector: Collector,
) -> Outcome:
    """Chooses the grid or the first step, and runs the loop. driven: the stepper, or what wraps it."""
    t0, end = times[0], times[-1]
    accept, attempt = collector.accept, collector.attempt
    beside = t0 in settings.jump_at or settings.perturb
    if settings.fixed:
        grid, jumps = grid_of(times, settings)
        alone = driven is stepper and collector.only_outputs and not (beside or jumps or settings.perturb)
        if (
            alone
            and isinstance(stepper, RungeKuttaStepper)
            and stepper.announce is None
            and stepper.taker is None
        ):
            return march_unheard(stepper, grid, stats, collector.writer)
        stepper.restart(t0, after_jump=beside)
        return march_grid(driven, grid, stats, accept, attempt, perturb=settings.perturb, jumps=jumps)
    assert not isinstance(stepper, AdamsStepper)
    stepper.restart(t0, after_jump=beside)
    dt0 = settings.dt0
    if dt0 is None:
        dt0 = stepper.initial_step(t0, end, before_jump=end in settings.jump_at)
    pace = Pace(settings.controller, dt0, settings.max_steps)
    return march(driven, pace, t0, stops_of(t0, end, settings), stats, accept, attempt)


def _check_fixed(run: Run, stats: Stats) -> None:
    """Fixed steps cannot reject, so NaN is looked for in what is returned (one host read)."""
    n = len(run.times)
    if all_finite(run.values[:n]):
        return
    flags = torch.isfinite(run.values[:n].detach()).reshape(n, -1).all(1).tolist()  # host read
    lost = [
        t for t, fine, place in zip(run.times, flags, run.places, strict=True) if not fine and place.reached
    ]
    if lost:
        raise solver_error(
            lost[0],
            stats.dt_first,
            Status.NON_FINITE,
            stats,
            "A fixed step cannot be shortened: give a shorter one, or an adaptive method.",
        )


def sample_solve(
    field: Field,
    z0: Tensor,
    times: Tensor,
    settings: SampleSettings,
    stats: Stats,
    wish: Wish = Wish(),
    recorder: SampleRecorder | None = None,
) -> SampleRun:
    """Solves each sample over its own times [B, T] (float64, each row monotone or all equal).

    recorder: keeps what an adjoint needs.
    Raises for no sample: the clocks say how each ended, and in stats each number is one a sample.
    """
    assert not isinstance(wish.events, EventWatch)
    followed = wish.differentiable and torch.is_grad_enabled()
    output = SampleOutput(times, z0, settings.clocks, wish.derivatives, followed, wish.every_step)
    on_attempt = None if wish.trace is None else wish.trace.attempt
    watching = Watching(recorder, wish.events, on_attempt, wish.dense)
    solve: ClockedMarch
    if wish.differentiable or not settings.plain or not _only_the_end(settings, output, watching):
        kind = SwitchingClocks if settings.tableau.between else ClockedMarch
        solve = kind(field, z0, settings, output, watching, differentiable=wish.differentiable)
    else:
        solve = QueuedClocks(field, z0, settings, output, wish.queue or Queue())
    clock = solve.run(stats)
    output.trim()
    slopes = None if output.derivatives is None else output.result(output.derivatives)
    values = output.result(output.values)
    fired = [] if solve.events is None else solve.events.fired()
    if fired:
        values = torch.cat((values, torch.stack([one.value for one in fired])))
    return SampleRun(values, slopes, output.times, fired, clock, solve.steps, solve.slope0)


def _only_the_end(settings: SampleSettings, output: SampleOutput, watching: Watching) -> bool:
    """Whether nothing is wanted that the host must see to at each attempt."""
    inside = output.every_step or output.derivatives is not None or output.rows.shape[1] > 2
    stops = settings.stops.shape[-1] or settings.fresh_first or settings.dt is not None
    return not (inside or stops or watching != Watching())
