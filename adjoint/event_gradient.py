"""The derivative of an event's time and state, by the implicit function theorem.

g(t*, y(t*; θ); φ) = 0 gives dt* = −(g_y · dy + g_φ · dφ)/(g_t + g_y · f), dy at fixed time; then the
state moves with the time, y* = y(t*) + f dt*. φ: parameters of the event function itself.

Source: R. T. Q. Chen, B. Amos, M. Nickel, Learning neural event functions for ordinary differential
equations, ICLR 2021, App. B.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..solvers.batched_events import SamplesFired, sample_event
from ..solvers.events import Event
from ..solvers.state import Layout
from ..solvers.stepper import clock
from .problem import Problem
from .sample_engine import SampleProblem


def differentiable_event(
    event: Event, layout: Layout, problem: Problem, t: float, z: Tensor
) -> tuple[Tensor, Tensor]:
    """(t*, z*) with their gradients, from the state z at the fixed time t (z's graph is kept).

    t* is float64. Without a graph on z or on the event function both are constants.
    """
    when = torch.full((), t, dtype=torch.float64, device=z.device)
    if not torch.is_grad_enabled():
        return when, z
    residual = event.fn(clock(t, z), layout.unpack(z)).reshape(()).double()
    if not residual.requires_grad:
        return when, z
    with problem.autocast.inside():
        slope = problem.plain(clock(t, z), z.detach()).detach()
        problem.stats.nfe = problem.stats.nfe + 1
    moving_t, moving_z = clock(t, z).requires_grad_(), z.detach().requires_grad_()
    with torch.enable_grad():
        g = event.fn(moving_t, layout.unpack(moving_z)).reshape(())
    g_t, g_z = torch.autograd.grad(g, (moving_t, moving_z), allow_unused=True)
    rate = torch.zeros_like(when)
    if g_t is not None:
        rate = rate + g_t.double()
    if g_z is not None:
        rate = rate + (g_z * slope).sum().double()
    shift = -(residual - residual.detach()) / rate
    return when + shift, z + shift.to(z.dtype) * slope


def differentiable_sample_event(
    event: Event, layout: Layout, problem: SampleProblem, record: SamplesFired, z: Tensor
) -> tuple[Tensor, Tensor]:
    """The same for each sample: (t* [B], z* [state]), meaningful where the record is valid."""
    axes = problem.axes
    batch = axes.batch_size(problem.z0)
    valid = torch.zeros(batch, dtype=torch.bool, device=z.device).index_copy(0, record.index, record.valid)
    when = torch.zeros(batch, dtype=torch.float64, device=z.device).index_copy(0, record.index, record.t)
    mask = axes.spread(valid)
    # Rows of other samples are NaN; any finite state may stand in for them.
    one = valid.to(torch.int8).argmax().reshape(1)
    model = z.detach().index_select(axes.batch, one)
    when = torch.where(valid, when, when.index_select(0, one))
    state = torch.where(mask, z, model)
    if not torch.is_grad_enabled():
        return when, state
    time = axes.clock(when, z)
    residual = sample_event(event, time, state, layout)
    if not residual.requires_grad:
        return when, state
    with problem.autocast.inside(), torch.no_grad():
        slope = problem.plain(time, state.detach())
        problem.stats.nfe, problem.stats.n_calls = problem.stats.nfe + valid, problem.stats.n_calls + 1
    moving_t, moving_z = time.clone().requires_grad_(), state.detach().requires_grad_()
    with torch.enable_grad():
        g = sample_event(event, moving_t, moving_z, layout)
    g_t, g_z = torch.autograd.grad(g.sum(), (moving_t, moving_z), allow_unused=True)
    rate = torch.zeros_like(when)
    if g_t is not None:
        rate = rate + g_t.double().reshape(batch)
    if g_z is not None:
        rate = rate + axes.per_sample(g_z * slope).sum(1).double()
    shift = torch.where(valid, -(residual - residual.detach()) / torch.where(valid, rate, 1.0), 0.0)
    return when + shift, state + axes.spread(shift.to(z.dtype)) * slope
