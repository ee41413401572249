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

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...solvers.checks import moves
from ...solvers.errors import DynamicsError
from ...solvers.march.event import Event
from ...solvers.march.events import Fired, event_value
from ...solvers.step.clocks import Each
from ...solvers.step.field import Layout, follows, transformed
from ..arguments import Request
from .differentiate import Answer
from .problem import Problem
from .time_move import Flow
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
    """The advice for an event whose gradient does not exist."""
    first = int(lost.reshape(-1).to(torch.int8).argmax())
    whose = f" of sample {first}" if lost.dim() else ""
    return (
        f"the gradient of an event{whose} at t={when.reshape(-1)[first].item():.6g} was asked for; its fn "
        "has slope 0 along the solution there (or no derivative at all), so how the event moves does not "
        "follow from it. Let fn go through 0 with a slope (y - 1.5, not y > 1.5, its relu or its cube), or "
        "detach this event's time and state."
    )


def slopes_of(g: Tensor, t: Tensor, z: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """∂g/∂t and ∂g/∂z, None each where g does not depend on it."""
    if not g.requires_grad:
        return None, None
    slope_t, slope_z = torch.autograd.grad(g.sum(), (t, z), allow_unused=True)
    return slope_t, slope_z


def differentiable_event(
    event: Event | None, layout: Layout, problem: Problem, t: float | Tensor, z: Tensor, counted: Any = 1
) -> tuple[Tensor, Tensor]:
    """(t*, z*) with their gradients, from the state z at the fixed time t (z's graph is kept).

    event: None: nothing is to follow, both are constants.
    t: one a clock; t* is float64.
    counted: as of `Problem.evaluate`.  Without a graph on z or on the event function both are constants.
    """
    clocks, total = problem.clocks, problem.clocks.total
    when = t if isinstance(t, Tensor) else torch.full((), t, dtype=torch.float64, device=z.device)
    if event is None or not follows():
        return when, z
    time = clocks.time(when, z)

    def value(time: Tensor, z: Tensor) -> Tensor:
        return event_value(event, layout.time(time), layout.unpack(z), clocks.shape(z))

    residual = value(time, z)
    if transformed() and (moves(residual) or moves(z)):
        with problem.autocast.inside():
            return _in_operators(value, problem.flow(), (when, z), residual)
    if not (residual.requires_grad or z.requires_grad):
        return when, z
    with torch.enable_grad():
        moving_t, moving_z = time.clone().requires_grad_(), z.detach().clone().requires_grad_()
        g_t, g_z = slopes_of(value(moving_t, moving_z), moving_t, moving_z)
    if not residual.requires_grad:
        if g_t is not None and g_z is None:  # a function of time alone: nothing moves the event
            return when, z
        residual = total(z * 0.0).double()  # it has no derivatives, but the event does depend on z
    with problem.autocast.inside():
        slope = problem.evaluate(time, z.detach(), counted).detach()
    rate = torch.zeros_like(when)
    if g_t is not None:
        rate = rate + g_t.double().reshape(when.shape)
    if g_z is not None:
        rate = rate + total(g_z * slope).double()
    return _AtEvent.apply(total, residual, z, when, rate, slope)


def _in_operators(
    value: Callable[[Tensor, Tensor], Tensor], flow: Flow, at: tuple[Tensor, Tensor], residual: Tensor
) -> tuple[Tensor, Tensor]:
    """(t*, z*) in plain operators, which every transform follows: right to second order.

    value: the event function; residual: its value at `at`, the fixed time and the state there.
    Two of Newton's corrections of the time, each of which doubles the order; both are 0 in value. The state
    moves along the flow.
    """
    (when, z), clocks = at, flow.clocks
    time = clocks.time(when, z)
    slope = flow.f(time, z).clone()  # func may hand back one buffer at every call

    def ahead(shift: Tensor) -> Tensor:
        return value(time + clocks.time(shift, z), z + clocks.spread(shift).to(z.dtype) * slope)

    # torch.func.grad begins within every transform, and in it the outer ones go on.
    rate = torch.func.grad(lambda shift: ahead(shift).sum())(torch.zeros_like(when))
    lost = rate.detach() == 0
    if bool(lost.any()):  # host read
        raise DynamicsError(_no_slope(lost, when))
    shift = (residual.detach() - residual) / rate
    moved = flow.follow(z, slope, when + shift)
    again = value(time + clocks.time(shift, z), moved)
    shift = shift + (again.detach() - again) / rate
    return when + shift, flow.follow(z, slope, when + shift)


def at_event(
    event: Event | None, layout: Layout, problem: Problem, fired: Fired, z: Tensor
) -> tuple[Tensor, Tensor]:
    """The same of one that fired; a clock a sample: (t* [B], z* [state]), meaningful where it did."""
    clocks, valid = problem.clocks, fired.valid
    if not isinstance(clocks, Each) or valid is None:
        return differentiable_event(event, layout, problem, fired.t, z)
    # Rows of other samples are NaN; any finite state may stand in for them, and nothing is asked of it.
    one = valid.to(torch.int8).argmax().reshape(1)
    when = torch.where(valid, fired.t, fired.t.index_select(0, one))
    state = clocks.choose(valid, z, z.detach().index_select(clocks.batch, one))
    return differentiable_event(event, layout, problem, when, state, valid)


def events_of(request: Request, problem: Problem, answer: Answer) -> tuple[list[Any], list[Any]]:
    """For each event function the times [n] and states [n, *y0.shape] at which it fired (a clock a sample:
    a list of such over the samples)."""
    layout, clocks, run, events = request.layout, problem.clocks, answer.run, request.options.watched
    detached = request.options.gradient is None
    many, axis = isinstance(clocks, Each), clocks.batch if isinstance(clocks, Each) else 0
    z0 = request.z0 if many else request.z0[None]
    found: list[list[tuple[list[Tensor], list[Tensor]]]] = [
        [([], []) for _ in range(z0.shape[axis])] for _ in events
    ]
    happened = list(zip(run.fired, answer.values[len(run.times) :], _whose(run.fired), strict=True))
    for fired, row, samples in reversed(happened) if many else happened:
        if not samples:  # a terminal event came before
            continue
        event = None if detached else events[fired.event]
        when, z = at_event(event, layout, problem, fired, row)
        own, z = (when.to(request.t), z) if many else (when.to(request.t)[None], z[None])
        for b in samples:
            times, states = found[fired.event][b]
            times.append(own[b])
            states.append(z.select(axis, b))

    no_times, no_states = request.t.new_empty(0), layout.unpack(z0.select(axis, 0)[None][:0].detach())
    t_events = [[torch.stack(times) if times else no_times for times, _ in each] for each in found]
    y_events = [
        [layout.unpack(torch.stack(states)) if states else no_states for _, states in each] for each in found
    ]
    if many:
        return t_events, y_events
    return [each[0] for each in t_events], [each[0] for each in y_events]


def _whose(fired: Sequence[Fired]) -> list[list[int]]:
    """Which samples each event happened to; with one clock to the only one."""
    valid = [one.valid for one in fired if one.valid is not None]
    if not valid:
        return [[0]] * len(fired)
    rows = torch.stack(valid).tolist()  # host read, one for all
    return [[b for b, happened in enumerate(row) if happened] for row in rows]
