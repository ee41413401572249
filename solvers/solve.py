"""The forward solve with one step size: checked settings → loop → values at the times asked for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .controller import PID
from .errors import solver_error
from .loop import Outcome, Pace, Stats, Stop, march, march_grid
from .norms import Norm, Tolerance
from .output import OutputWriter, Place
from .status import Status
from .step import Field
from .stepper import RungeKuttaStepper, Step
from .tableau import Tableau

Hook = Callable[[Step], "bool | None"]
Grid = Callable[[Sequence[float]], Sequence[float]]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What decides the steps of a solve, already checked.

    dt0: first |dt|, or None for Hairer's.  grid: the fixed grid for given times, or None for
    adaptive steps.
    perturb: f jumps at the grid's points: its steps see only times strictly inside.
    step_at, jump_at: times to hit; at the latter f is discontinuous.
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

    @property
    def fixed(self) -> bool:
        """Whether the grid is fixed beforehand."""
        return self.grid is not None


@dataclasses.dataclass
class Run:
    """What a forward solve gives: values and (where asked) derivatives at the times, their places."""

    values: list[Tensor]
    derivatives: list[Tensor] | None
    places: list[Place]
    stats: Stats
    outcome: Outcome


def stops_of(t0: float, end: float, settings: Settings) -> list[Stop]:
    """The times to hit, in the direction of time, the end last."""
    direction = math.copysign(1.0, end - t0)
    jumps = set(settings.jump_at)
    inner = {t for t in {*settings.step_at, *jumps} if 0 < (t - t0) * direction < (end - t0) * direction}
    ordered = sorted(inner, key=lambda t: t * direction)
    return [Stop(t, t in jumps) for t in ordered] + [Stop(end, end in jumps)]


def uniform_grid(times: Sequence[float], dt: float) -> list[float]:
    """times[0], times[0] ± dt, … and times[-1] exactly; the last step may be shorter."""
    t0, end = times[0], times[-1]
    direction = math.copysign(1.0, end - t0)
    n = max(1, math.ceil(abs(end - t0) / dt - 1e-9))
    return [t0 + direction * dt * i for i in range(n)] + [end]


def forward_solve(
    field: Field,
    z0: Tensor,
    times: Sequence[float],
    settings: Settings,
    stats: Stats,
    *,
    hooks: Sequence[Hook] = (),
    on_step: Hook | None = None,
    judge: Callable[[Step], Tensor] | None = None,
    on_reject: Callable[[Step], None] | None = None,
    differentiable: bool = False,
    derivatives: bool = False,
    keep_stages: bool = False,
    wrap: Callable[[RungeKuttaStepper], Any] | None = None,
) -> Run:
    """Solves from times[0] to times[-1].

    hooks, on_step: called with each accepted step; one that returns True ends the solve.
    judge: the error ratio of a step, instead of the settings' norm.  on_reject: of each rejected one.
    wrap: puts an observer around the stepper (torchdiffeq's callbacks).
    Raises SolverError where the solve cannot go on; its stats tell how far it came.
    """
    stepper = RungeKuttaStepper(
        field,
        settings.tableau,
        z0,
        None if settings.fixed else settings.tolerance,
        settings.norm,
        keep_stages=keep_stages,
        differentiable=differentiable,
    )
    stepper.judge = judge
    stepper.direction = math.copysign(1.0, times[-1] - times[0])
    writer = OutputWriter(times, z0, derivatives=derivatives)

    def on_accept(step: Step) -> bool:
        writer(step)
        ends = [hook(step) for hook in (*hooks, on_step) if hook is not None]
        return any(ends)

    outcome = _march(stepper, times, settings, stats, on_accept, on_reject, wrap)
    stats.dt_last = outcome.dt
    if outcome.status not in (Status.SUCCESS, Status.EVENT):
        raise solver_error(outcome.t, outcome.dt, outcome.status, stats)
    if settings.fixed:
        _check_fixed(writer, times, stats)
    return Run(writer.values, writer.derivatives, writer.places, stats, outcome)


def _march(
    stepper: RungeKuttaStepper,
    times: Sequence[float],
    settings: Settings,
    stats: Stats,
    on_accept: Callable[[Step], bool],
    on_reject: Callable[[Step], None] | None,
    wrap: Callable[[RungeKuttaStepper], Any] | None,
) -> Outcome:
    """Chooses the grid or the first step, and runs the loop."""
    t0, end = times[0], times[-1]
    jumps_at_start = t0 in settings.jump_at or settings.perturb
    stepper.restart(t0, after_jump=jumps_at_start)
    driven = stepper if wrap is None else wrap(stepper)
    if settings.fixed:
        assert settings.grid is not None
        return march_grid(driven, settings.grid(times), stats, on_accept, perturb=settings.perturb)
    stops = stops_of(t0, end, settings)
    dt0 = settings.dt0
    if dt0 is None:
        dt0 = stepper.initial_step(t0, end)
    pace = Pace(settings.controller, settings.tableau.error_order, dt0)
    return march(driven, pace, t0, stops, settings.max_steps, stats, on_accept, on_reject)


def _check_fixed(writer: OutputWriter, times: Sequence[float], stats: Stats) -> None:
    """Fixed steps cannot reject, so NaN is looked for in what is returned (one host read)."""
    fine = torch.stack([torch.isfinite(value.detach()).all() for value in writer.values])
    if not bool(fine.all()):  # host read
        first = int((~fine).nonzero()[0])
        raise solver_error(
            times[first],
            stats.dt_first,
            Status.NON_FINITE,
            stats,
            "A fixed step cannot be shortened: give a shorter one, or an adaptive method.",
        )
