"""`solve` with one step size: from a request to a Solution."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from ...solvers.checks import check_positive, check_times
from ...solvers.errors import ArgumentError, ArgumentTypeError, SolverError
from ...solvers.march.events import EventWatch
from ...solvers.march.host import Stats
from ...solvers.march.stepper import clock
from ...solvers.solution import Query, Solution
from ...solvers.solve import Settings, Wish, uniform_grid
from ...solvers.trace import Trace
from ..arguments import Request, norm_of
from ..dynamics.adapt import wrap
from .dense import DenseQuery
from .differentiate import Answer, differentiate
from .event_gradient import differentiable_event
from .problem import Problem, Speed


def solve_shared(request: Request) -> Solution:
    """The solve; raises SolverError where it cannot go on."""
    options, t, layout = request.options, request.t, request.layout
    times = check_times(t)
    if isinstance(options.dt0, Tensor):
        raise ArgumentTypeError("dt0 is a tensor: with shared stepping give one number.")
    if options.dt0 is not None:
        check_positive(options.dt0, "dt0")
    problem = make_problem(request, times)
    try:
        answer = differentiate(problem, options.gradient)
    except SolverError as error:
        if problem.wish.trace is not None:
            error.trace = problem.wish.trace.rows()  # a solve that failed is the one to study
        raise
    run = answer.run
    n = len(run.times)
    y, own_t = answer.values[:n], t
    if options.save == "steps":
        own_t = torch.tensor(run.times, dtype=t.dtype, device=t.device)
    elif options.save == "end":
        y, own_t = y[-1:], t[-1:]
    with torch.set_grad_enabled(torch.is_grad_enabled() and options.gradient is not None):
        t_events, y_events = _events(request, problem, answer, n)
    trace = None if problem.wish.trace is None else problem.wish.trace.rows()
    value, derivative = _queries(problem, answer, request) if options.dense else (None, None)
    return Solution(
        own_t,
        layout.unpack(y),
        run.outcome.status,
        problem.stats,
        t_events,
        y_events,
        trace,
        value,
        derivative,
    )


def make_problem(request: Request, times: list[float]) -> Problem:
    """The engine's problem."""
    options, z0, stats = request.options, request.z0, Stats()
    assert not isinstance(options.dt0, Tensor)  # refused at the door
    settings = Settings(
        request.tableau,
        request.tolerance,
        norm_of(options.norm, request.layout),
        options.controller,
        dt0=options.dt0,
        grid=None
        if options.dt is None
        else functools.partial(uniform_grid, dt=options.dt, most=options.max_steps),
        max_steps=options.max_steps,
        step_at=request.stops,
        jump_at=request.jumps,
    )
    watch = None
    if options.events:
        watch = EventWatch(options.events, request.layout.unpack, times[0], z0.detach())
    t = request.t.to(z0.device, non_blocking=True)  # its gradient finds its way back
    if options.save == "end":
        times, t = [times[0], times[-1]], torch.stack((t[0], t[-1]))
    wish = Wish(
        every_step=options.save == "steps",
        dense=options.dense,
        watch=watch,
        trace=Trace(stats) if options.trace else None,
    )
    plain, make_dynamics, autocast = wrap(
        request.func, request.layout, z0, clock(times[0], z0), options.params, stats, cast=False
    )
    return Problem(
        plain,
        make_dynamics,
        z0,
        t,
        times,
        settings,
        autocast,
        stats,
        wish=wish,
        speed=Speed(options.sync_every, options.compile),
        func=request.func,
        named=options.params is not None,
    )


def _events(request: Request, problem: Problem, answer: Answer, n: int) -> tuple[list[Any], list[Any]]:
    """For each event function the times [n] and states [n, *y0.shape] at which it fired."""
    layout, t = request.layout, request.t
    times: list[list[Tensor]] = [[] for _ in request.options.events]
    states: list[list[Tensor]] = [[] for _ in request.options.events]
    for row, fired in zip(answer.values[n:], answer.run.fired, strict=True):
        event = request.options.events[fired.event]
        when, z = differentiable_event(event, layout, problem, fired.t, row)
        times[fired.event].append(when.to(t))
        states[fired.event].append(z)
    none_t, none_z = t.new_empty(0), request.z0.new_empty((0, *request.z0.shape))
    return (
        [torch.stack(found) if found else none_t for found in times],
        [layout.unpack(torch.stack(found) if found else none_z) for found in states],
    )


def _queries(problem: Problem, answer: Answer, request: Request) -> tuple[Query, Query]:
    layout = request.layout
    query = DenseQuery(problem, answer, detached=request.options.gradient is None)

    def refuse(per_sample: bool) -> None:
        if per_sample:
            raise ArgumentError("per_sample=True needs a solve with stepping='per_sample'.")

    def value(t: Tensor, per_sample: bool) -> Any:
        refuse(per_sample)
        return layout.unpack(query.value(t))

    def derivative(t: Tensor, per_sample: bool) -> Any:
        refuse(per_sample)
        return layout.unpack(query.derivative(t))

    return value, derivative
