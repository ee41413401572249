"""The derivative of an event's time and state, by the implicit function theorem.

g(t*, y(t*; θ); φ) = 0 gives dt* = −(g_y · dy + g_φ · dφ)/(g_t + g_y · f), dy at fixed time; then the
state moves with the time, y* = y(t*) + f dt*. φ: parameters of the event function itself.

Where the slope g_t + g_y · f is 0 at the event (relu and clamp at their edge, sign, a bool, v³ at its
root), the theorem says nothing. Time and state are what they are without a gradient; a backward pass
that asks for theirs raises. (NaN would not do: relu's own backward pass turns it into 0.)

Source: R. T. Q. Chen, B. Amos, M. Nickel, Learning neural event functions for ordinary differential
equations, ICLR 2021, App. B.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...solvers.errors import DynamicsError
from ...solvers.march.clocked_events import SampleEvents, SamplesFired, sample_event
from ...solvers.march.events import Event
from ...solvers.march.output import clock
from ...solvers.step.clocks import Each
from ...solvers.step.field import Layout
from ..arguments import Request
from .differentiate import Answer
from .problem import Problem, SampleProblem
from .transformed import refuse_second_derivative

TWICE = (
    "second derivative: the gradient of an event's time and state is hand-derived and not itself "
    "differentiable. Take the second derivative of a solve that ends at a given time."
)
Sum = Callable[[Tensor], Tensor]  # over a state's entries, of each clock


class _AtEvent(torch.autograd.Function):
    """(t*, z*) as they are, depending on the event function's residual as well as on z at the fixed time.

    rate: dg/dt along the solution; slope: f at the event; total: sums a state for each clock.
    """

    @staticmethod
    def forward(
        ctx: Any, total: Sum, residual: Tensor, z: Tensor, when: Tensor, rate: Tensor, slope: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.total = total
        ctx.save_for_backward(residual, z, when, rate, slope)
        return when.clone(), z.clone()

    @staticmethod
    def backward(ctx: Any, g_when: Tensor, g_z: Tensor) -> tuple[Tensor | None, ...]:
        residual, z, when, rate, slope = ctx.saved_tensors
        along = torch.where(g_z == 0, 0.0, g_z * slope)  # 0 · NaN of what no loss depends on
        shift = g_when + ctx.total(along).double()
        lost = (rate == 0) & (shift != 0)
        if bool(lost.any()):  # host read
            raise DynamicsError(_no_slope(lost, when))
        found = torch.where(shift == 0, 0.0, -shift / rate).to(residual.dtype)
        if torch.is_grad_enabled():  # create_graph=True: slope and rate would pass for constants
            tied = refuse_second_derivative([found, g_z], [g_when, g_z, residual, z], TWICE)
            return None, *tied, None, None, None
        return None, found, g_z, None, None, None


def _no_slope(lost: Tensor, when: Tensor) -> str:
    """What to do about an event whose gradient does not exist."""
    first = int(lost.reshape(-1).to(torch.int8).argmax())
    whose = f" of sample {first}" if lost.dim() else ""
    return (
        f"the gradient of an event{whose} at t={when.reshape(-1)[first].item():.6g} was asked for; its fn "
        "has slope 0 along the solution there (or no derivative at all), so how the event moves does not "
        "follow from it. Let fn go through 0 with a slope (y - 1.5, not y > 1.5, its relu or its cube), or "
        "detach this event's time and state."
    )


def _slopes(g: Tensor, t: Tensor, z: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """∂g/∂t and ∂g/∂z, None each where g does not depend on it."""
    if not g.requires_grad:
        return None, None
    slope_t, slope_z = torch.autograd.grad(g.sum(), (t, z), allow_unused=True)
    return slope_t, slope_z


def _linked(
    event: Callable[[Tensor, Tensor], Tensor],
    f: Callable[[], Tensor],
    total: Sum,
    when: Tensor,
    time: Tensor,
    z: Tensor,
) -> tuple[Tensor, Tensor]:
    """(when, z) with the gradients of an event there.

    event(t, z): its function, one float64 number a clock.  f(): dz/dt there, evaluated where needed.
    time: `when` as f wants it.
    """
    if not torch.is_grad_enabled():
        return when, z
    residual = event(time, z)
    if not (residual.requires_grad or z.requires_grad):
        return when, z
    with torch.enable_grad():
        moving_t, moving_z = time.clone().requires_grad_(), z.detach().clone().requires_grad_()
        g_t, g_z = _slopes(event(moving_t, moving_z), moving_t, moving_z)
    if not residual.requires_grad:
        if g_t is not None and g_z is None:  # a function of time alone: nothing moves the event
            return when, z
        residual = total(z * 0.0).double()  # it has no derivatives, but the event does depend on z
    slope = f().detach()
    rate = torch.zeros_like(when)
    if g_t is not None:
        rate = rate + g_t.double().reshape(when.shape)
    if g_z is not None:
        rate = rate + total(g_z * slope).double()
    return _AtEvent.apply(total, residual, z, when, rate, slope)


def differentiable_event(
    event: Event, layout: Layout, problem: Problem, t: float, z: Tensor
) -> tuple[Tensor, Tensor]:
    """(t*, z*) with their gradients, from the state z at the fixed time t (z's graph is kept).

    t* is float64. Without a graph on z or on the event function both are constants.
    """

    def function(time: Tensor, state: Tensor) -> Tensor:
        return event.fn(time, layout.unpack(state)).reshape(()).double()

    def slope() -> Tensor:
        problem.stats.nfe = problem.stats.nfe + 1
        with problem.autocast.inside():
            return problem.plain(clock(t, z), z.detach())

    when = torch.full((), t, dtype=torch.float64, device=z.device)
    return _linked(function, slope, torch.sum, when, clock(t, z), z)


def differentiable_sample_event(
    event: Event, layout: Layout, problem: SampleProblem, record: SamplesFired, z: Tensor
) -> tuple[Tensor, Tensor]:
    """The same for each sample: (t* [B], z* [state]), meaningful where the record is valid."""
    clocks: Each = problem.clocks
    batch = clocks.batch_size(problem.z0)
    valid = torch.zeros(batch, dtype=torch.bool, device=z.device).index_copy(0, record.index, record.valid)
    when = torch.zeros(batch, dtype=torch.float64, device=z.device).index_copy(0, record.index, record.t)
    # Rows of other samples are NaN; any finite state may stand in for them, and nothing is asked of it.
    one = valid.to(torch.int8).argmax().reshape(1)
    when = torch.where(valid, when, when.index_select(0, one))
    state = torch.where(clocks.spread(valid), z, z.detach().index_select(clocks.batch, one))
    time = clocks.time(when, z)

    def slope() -> Tensor:
        stats = problem.stats
        stats.nfe, stats.n_calls = stats.nfe + valid, stats.n_calls + 1
        with problem.autocast.inside(), torch.no_grad():
            return problem.plain(time, state.detach())

    return _linked(
        lambda t, y: sample_event(event, t, y, layout),
        slope,
        lambda x: clocks.per_sample(x).sum(1),
        when,
        time,
        state,
    )


def events_of(request: Request, problem: Problem, answer: Answer) -> tuple[list[Any], list[Any]]:
    """For each event function the times [n] and states [n, *y0.shape] at which it fired (a clock a sample:
    a list of such over the samples)."""
    if isinstance(problem, SampleProblem):
        return _of_each_sample(request, problem, answer)
    layout, t, events = request.layout, request.t, request.options.events
    times: list[list[Tensor]] = [[] for _ in events]
    states: list[list[Tensor]] = [[] for _ in events]
    for row, fired in zip(answer.values[len(answer.run.times) :], answer.run.fired, strict=True):
        when, z = differentiable_event(events[fired.event], layout, problem, fired.t, row)
        times[fired.event].append(when.to(t))
        states[fired.event].append(z)
    none_t, none_z = t.new_empty(0), request.z0.new_empty((0, *request.z0.shape))
    return (
        [torch.stack(found) if found else none_t for found in times],
        [layout.unpack(torch.stack(found) if found else none_z) for found in states],
    )


def _of_each_sample(request: Request, problem: SampleProblem, answer: Answer) -> tuple[list[Any], list[Any]]:
    layout, clocks, events = request.layout, problem.clocks, request.options.events
    watched = problem.wish.events
    assert isinstance(watched, SampleEvents)
    batch, fired = clocks.batch_size(request.z0), watched.fired
    times: list[list[list[Tensor]]] = [[[] for _ in range(batch)] for _ in events]
    states: list[list[list[Tensor]]] = [[[] for _ in range(batch)] for _ in events]
    for k, (record, samples) in enumerate(zip(fired, _who(fired), strict=True)):
        if not samples:  # a terminal event came before
            continue
        row = answer.values[-1 - k]
        when, z = differentiable_sample_event(events[record.event], layout, problem, record, row)
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
