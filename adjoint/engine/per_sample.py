"""`solve` with a step size for each sample: from a request to a Solution."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...solvers.checks import check_sample_times
from ...solvers.errors import ArgumentError
from ...solvers.march.clocked_events import SampleEvents, SamplesFired
from ...solvers.march.clocked_output import ends_of
from ...solvers.march.host import Stats
from ...solvers.march.samples import SampleNorm, SampleSettings, Together
from ...solvers.solution import Query, Solution
from ...solvers.step.clocks import Each, Groups, each
from ...solvers.step.layout import Layout
from ...solvers.trace import SampleTrace
from ...solvers.transforms import check_readable
from ..arguments import Request, check_groups, own_norm
from ..dynamics.adapt import check_independent_samples, wrap
from ..dynamics.protocol import Dynamics
from .dense import SampleQuery
from .event_gradient import differentiable_sample_event
from .problem import Speed
from .sample_engine import SampleAnswer, SampleProblem, SampleWish, differentiate_samples


def solve_samples(request: Request) -> Solution:
    """The solve; no sample raises, each has its status."""
    options, t, layout = request.options, request.t, request.layout
    check_independent_samples(request.func)
    problem = make_problem(request)
    answer = differentiate_samples(problem, options.gradient)
    n = len(answer.run.times)
    y, own_t = answer.values[:n], t if t.dim() == 1 else t.t()
    if options.save == "steps":
        own_t = answer.run.times.to(t)
    elif options.save == "end":
        y, own_t = y[-1:], own_t[-1:]
    with torch.set_grad_enabled(torch.is_grad_enabled() and options.gradient is not None):
        t_events, y_events = _events(request, problem, answer)
    trace = None if problem.wish.trace is None else problem.wish.trace.rows()
    value, derivative = _queries(problem, answer, request) if options.dense else (None, None)
    return Solution(
        own_t,
        layout.unpack(y),
        answer.run.rows.status,
        problem.stats,
        t_events,
        y_events,
        trace,
        value,
        derivative,
    )


def make_problem(request: Request) -> SampleProblem:
    """The engine's problem."""
    options, z0, t, stats = request.options, request.z0, request.t, Stats()
    clocks = each(1 if isinstance(request.func, Dynamics) else 0, z0.dim())
    batch = clocks.batch_size(z0)
    times = check_sample_times(t, z0, batch)
    moved = t.to(z0.device, non_blocking=True)  # its gradient finds its way back
    wide = moved if t.dim() == 2 else moved.expand(batch, -1)
    if options.save != "times":
        times, wide = ends_of(times), ends_of(wide)
    start = clocks.time(times[:, 0], z0)
    plain, make_dynamics, autocast = wrap(
        request.func, request.layout, z0, start, options.params, stats, cast=False
    )
    events = SampleEvents(options.events, request.layout, clocks) if options.events else None
    wish = SampleWish(
        every_step=options.save == "steps",
        dense=options.dense,
        events=events,
        trace=SampleTrace(request.tableau) if options.trace else None,
    )
    settings = _settings(request, clocks, batch, times)
    speed = Speed(options.sync_every, options.compile)
    return SampleProblem(
        plain, make_dynamics, z0, wide, times, clocks, settings, autocast, stats, wish, speed, request.func
    )


def _settings(request: Request, clocks: Each, batch: int, times: Tensor) -> SampleSettings:
    options, z0 = request.options, request.z0
    stops = sorted({*request.stops, *request.jumps})
    dt0 = options.dt0
    if dt0 is not None:
        dt0 = torch.as_tensor(dt0, dtype=torch.float64, device=z0.device).detach()
        if dt0.dim() > 1 or dt0.numel() not in (1, batch) or not bool((dt0 > 0).all()):
            raise ArgumentError(
                f"dt0={options.dt0!r} must be positive: one number, or one for each of the {batch} samples."
            )
        dt0 = dt0.expand(batch)
    together = None
    if isinstance(options.stepping, Tensor):
        ids, n = check_groups(options.stepping, times, batch)
        norms = functools.partial(sample_norm, options.norm, request.layout)
        together = Together(ids, n, norms)
        if dt0 is not None and bool((Groups(ids, n, dt0 > 0).largest(dt0) != dt0).any()):  # host read
            raise ArgumentError(f"dt0={options.dt0!r} must be the same for all samples of a group.")
    return SampleSettings(
        request.tableau,
        request.tolerance,
        sample_norm(options.norm, request.layout, clocks),
        options.controller,
        dt0,
        options.dt,
        options.max_steps,
        torch.tensor(stops, dtype=torch.float64, device="cpu").to(z0.device, non_blocking=True),
        torch.tensor([t in request.jumps for t in stops], dtype=torch.bool, device="cpu").to(
            z0.device, non_blocking=True
        ),
        options.compact,
        together=together,
    )


def sample_norm(norm: str | Callable[[Any], Tensor], layout: Layout, clocks: Each) -> SampleNorm:
    """The error norm of each sample, [b], or of its group, where clocks are in groups. For a pytree "rms" is
    the largest of its leaves' RMS; of a norm of the caller's the group's largest counts."""
    if callable(norm):
        own, groups = own_norm(norm, layout, lambda z: (clocks.batch_size(z),)), clocks.groups
        return own if groups is None else lambda z: groups.largest(own(z)).to(z.dtype)
    if norm == "max":
        return clocks.maximum
    if layout.single and norm == "blocks" and clocks.batch == 1:  # a Dynamics' blocks [K, B, …]
        return clocks.block_rms
    if layout.single:
        return clocks.rms
    return lambda z: torch.stack([clocks.of(leaf).rms(leaf) for leaf in layout.leaves(z)]).amax(0)


def _events(request: Request, problem: SampleProblem, answer: SampleAnswer) -> tuple[list[Any], list[Any]]:
    """For each event function, for each sample: the times [n] and states [n, *S] at which it fired."""
    layout, clocks = request.layout, problem.clocks
    batch, options = clocks.batch_size(request.z0), request.options
    times: list[list[list[Tensor]]] = [[[] for _ in range(batch)] for _ in options.events]
    states: list[list[list[Tensor]]] = [[[] for _ in range(batch)] for _ in options.events]
    fired = problem.wish.events.fired if problem.wish.events is not None else []
    for k, (record, samples) in enumerate(zip(fired, _who(fired), strict=True)):
        if not samples:  # a terminal event came before
            continue
        row = answer.values[-1 - k]
        when, z = differentiable_sample_event(options.events[record.event], layout, problem, record, row)
        own = when.to(request.t)
        for b in samples:
            times[record.event][b].append(own[b])
            states[record.event][b].append(z.select(clocks.batch, b))
    none_t = request.t.new_empty(0)
    none_z = request.z0.select(clocks.batch, 0).new_empty((0, *request.z0.select(clocks.batch, 0).shape))

    def tree(found: list[Tensor]) -> Any:
        stacked = torch.stack(found) if found else none_z
        if layout.single:
            return stacked
        whole = dataclasses.replace(layout, batched=True)
        return whole.unpack(stacked)

    return (
        [[torch.stack(one) if one else none_t for one in each] for each in times],
        [[tree(one) for one in each] for each in states],
    )


def _who(fired: Sequence[SamplesFired]) -> list[list[int]]:
    """Which samples each record is about."""
    if not fired:
        return []
    marked = [torch.where(record.valid, record.index, -1) for record in fired]
    flat = iter(torch.cat(marked).tolist())  # host read, one for all
    return [[b for b in itertools.islice(flat, len(row)) if b >= 0] for row in marked]


def _queries(problem: SampleProblem, answer: SampleAnswer, request: Request) -> tuple[Query, Query]:
    layout, z0 = request.layout, problem.z0
    query = SampleQuery(problem, answer, detached=request.options.gradient is None)
    batch = problem.clocks.batch_size(z0)

    def ask(t: Tensor, per_sample: bool, question: Callable[[Tensor], Tensor]) -> Any:
        if per_sample and (t.dim() == 0 or t.shape[-1] != batch):
            raise ArgumentError(
                f"t has shape {tuple(t.shape)}; per_sample=True needs t.shape[-1] == {batch}."
            )
        check_readable(t, "t")
        t = t.to(z0.device, non_blocking=True)
        rows = t.reshape(-1, batch) if per_sample else t.reshape(-1, 1).expand(-1, batch)
        front = t.shape[:-1] if per_sample else t.shape
        return layout.unpack(question(rows).reshape(*front, *z0.shape))

    def value(t: Tensor, per_sample: bool) -> Any:
        return ask(t, per_sample, query.value)

    def derivative(t: Tensor, per_sample: bool) -> Any:
        return ask(t, per_sample, query.derivative)

    return value, derivative
