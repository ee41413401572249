"""Integrating until an event, as torchdiffeq's ``event_fn`` means it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...solvers.errors import ArgumentError, DynamicsError, TooManySteps
from ...solvers.march.events import Event, signed
from ...solvers.march.output import as_time
from ...solvers.solve import Settings, Wish
from ...solvers.status import Status
from ...solvers.step.field import Layout
from ..engine.differentiate import differentiate
from ..engine.event_gradient import differentiable_event
from ..engine.problem import SharedProblem
from ..gradients import Gradient
from .awaited import MOST_STEPS, AwaitedEvent

MOST_FIXED_STEPS = 20_000
# Where a solve without an end is given up: steps grow tenfold each where nothing changes any more.
HORIZON = {torch.float32: 1e30, torch.float64: 1e300}
NEVER = "event_fn never changed its sign."
ENDLESS = (
    "The steps grew until time left the range of the dtype: nothing changes the state's course any more."
)


def combined_event(event_fn: Callable[[Tensor, Any], Tensor], t0: Tensor, y0: Any) -> tuple[Event, bool]:
    """One scalar event from a function of any shape, and whether it is zero at the start already.

    The event is where any entry first leaves the sign that it had at the start. Of a bool, False has a sign
    too.
    """
    with torch.no_grad():
        start = event_fn(t0, y0)
        if isinstance(start, (int, float)):
            start = torch.full((), start, dtype=t0.dtype, device=t0.device)
        if not isinstance(start, Tensor) or not start.numel() or start.is_complex():
            kind = (
                f"{start.dtype} of shape {tuple(start.shape)}" if isinstance(start, Tensor) else type(start)
            )
            raise DynamicsError(f"event_fn returned {kind}; it must return a tensor of real numbers.")
        start = signed(start)
        signs = torch.sign(start)

    def first_change(t: Tensor, y: Any) -> Tensor:
        return (signed(event_fn(t, y)) * signs).min()

    fn = event_fn if start.dim() == 0 else first_change
    return Event(fn), bool((start == 0).any())  # host read


def until_event(
    problem: SharedProblem,
    layout: Layout,
    event_fn: Callable[[Tensor, Any], Tensor],
    gradient: Gradient,
    step_size: float | None,
) -> tuple[Tensor, Any]:
    """(event time, [y0, y at the event]), both differentiable.

    problem: the solve from the start; its second time says the direction only.
    event_fn: callable (t, y).
    step_size: of a fixed-step method.
    Raises SolverError where the event never comes.
    """
    t, z0 = problem.t, problem.z0
    if len(problem.times) != 2:
        raise ArgumentError(f"event_fn needs t of length 2 (start, direction); t has {len(problem.times)}.")
    t0 = problem.times[0]
    event, already = combined_event(event_fn, as_time(t0, z0), layout.unpack(z0.detach()))
    if already:
        return t[0], layout.unpack(torch.stack((z0, z0)))
    direction = math.copysign(1.0, problem.times[1] - t0)
    settings = _endless(problem.settings, t0, direction, step_size)
    problem = dataclasses.replace(
        problem,
        times=[t0, direction * HORIZON[z0.dtype]],
        settings=settings,
        wish=Wish(events=AwaitedEvent(event, layout.unpack, t0, z0, settings.tolerance, problem.stats)),
    )
    try:
        answer = differentiate(problem, gradient)
    except TooManySteps as error:
        never = f"{NEVER} {error.detail}"
        raise TooManySteps(error.t, error.dt, error.status, error.stats, never) from error
    if not answer.run.fired:
        stats, never = problem.stats, f"{NEVER} {ENDLESS}"
        raise TooManySteps(answer.run.end, stats.dt_last, Status.MAX_STEPS, stats, never)
    fired = answer.run.fired[0]
    when, z = differentiable_event(event, layout, problem, fired.t, answer.values[2])
    return when.to(t.dtype), layout.unpack(torch.stack((answer.values[0], z)))


def _endless(settings: Settings, t0: float, direction: float, step_size: float | None) -> Settings:
    """Settings for a solve whose end is not known."""
    if not settings.fixed:
        return dataclasses.replace(settings, max_steps=min(settings.max_steps, MOST_STEPS))
    if step_size is None:
        raise ArgumentError("event_fn with a fixed-step method needs options={'step_size': …}.")

    def grid(times: Sequence[float]) -> list[float]:
        """Forwards without an end; a reverse solve has one."""
        if abs(times[-1]) not in HORIZON.values():
            return list(settings.grid(times)) if settings.grid is not None else list(times)
        return [t0 + direction * step_size * i for i in range(MOST_FIXED_STEPS + 1)]

    return dataclasses.replace(settings, grid=grid)
