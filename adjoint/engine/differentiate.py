"""From checked arguments to differentiable values: which gradient runs how."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...solvers.device.queue import Queue
from ...solvers.errors import ReconstructionError
from ...solvers.march.stepper import clock
from ...solvers.solve import Run, forward_solve
from ...solvers.step.field import CountedField
from ..dynamics.protocol import Dynamics
from ..gradient import Direct, Discrete, Gradient
from .function import Solve, Task
from .problem import Problem, Walk
from .speed import queue_for, with_derivatives
from .time_move import Flow, moved_end, moved_start
from .transformed import gradient_allowed, moves, transformed
from .walks import Recording, record_for


def _raise(error: ReconstructionError) -> None:
    raise error


@dataclasses.dataclass
class Answer:
    """values: [n, *z], the outputs and after them the events that fired; run: the rest.

    again: how to walk the same steps back for other times (None where there is no adjoint).
    """

    values: Tensor
    run: Run
    again: WalkBack | None = None


@dataclasses.dataclass(frozen=True)
class WalkBack:
    """An adjoint for any times inside the solve.

    backward(times, places, values, g, want_theta) → (dL/dz at the start, gradients of θ); the first
    time is the start.
    """

    theta: tuple[Tensor, ...]
    backward: Walk


def differentiate(problem: Problem, gradient: Gradient | None) -> Answer:
    """Solves, with the gradient asked for where one can flow."""
    with problem.autocast.outside():
        if transformed():
            gradient = _gradient_allowed(problem, gradient)
        if isinstance(gradient, Direct):
            return _direct(problem)
        if gradient is None or not torch.is_grad_enabled():
            return _without_gradient(problem)
        dynamics = problem.make_dynamics()
        theta = dynamics.theta()
        if not any(x.requires_grad for x in (problem.z0, problem.t, *theta)):
            return _without_gradient(problem, torch.enable_grad)  # func may differentiate inside
        runs: list[Run] = []
        queue = queue_for(problem, gradient)
        recording = record_for(problem, dynamics, gradient, queue=queue)
        task = _task(problem, dynamics, runs, recording, queue)
        many = isinstance(gradient, Discrete) and (queue is None or queue.owner is None)
        task = dataclasses.replace(task, many=many)
        values = Solve.apply(task, problem.z0, problem.t, *theta)
        return Answer(values, runs.pop(), WalkBack(theta, recording.walk))


def _gradient_allowed(problem: Problem, gradient: Gradient | None) -> Gradient | None:
    """`gradient_allowed` for a shared-step solve."""
    problem.stats.nfe += 1
    start = clock(problem.times[0], problem.z0)
    events = problem.wish.watch is not None
    inputs = (problem.z0, problem.t)
    return gradient_allowed(gradient, lambda: problem.plain(start, problem.z0), inputs, events=events)


def _stacked(run: Run) -> Tensor:
    """The outputs, then the states at the events."""
    return torch.stack([*run.values, *(fired.value for fired in run.fired)])


def _without_gradient(problem: Problem, mode: Callable[[], Any] = torch.no_grad) -> Answer:
    """Nothing is recorded. mode: the grad mode of func."""

    def plain(t: Tensor, z: Tensor) -> tuple[Tensor, None]:
        with mode():
            return problem.plain(t, z).detach(), None

    with torch.no_grad():
        field = CountedField(plain, problem.stats)
        z0 = problem.z0.detach()
        settings = dataclasses.replace(problem.settings, queue=queue_for(problem, None))
        run = forward_solve(
            field, z0, problem.times, settings, problem.stats, wish=problem.wish, **problem.observers
        )
        return Answer(_stacked(run), run)


def _direct(problem: Problem) -> Answer:
    """Through the steps by autograd; a time enters by moving the state along the flow."""

    def value(t: Tensor, z: Tensor) -> Tensor:
        problem.stats.nfe += 1
        return problem.plain(t, z)

    flow = Flow(value)
    queue_for(problem, Direct())  # there is none: it says why
    field = CountedField(lambda t, z: (problem.plain(t, z), None), problem.stats)
    t, z0, stats = problem.t, problem.z0, problem.stats
    follows = torch.is_grad_enabled() or transformed()
    timed = follows and moves(t)
    start = z0
    if timed:
        start = moved_start(flow, z0, t[0])
    run = forward_solve(
        field,
        start,
        problem.times,
        problem.settings,
        stats,
        wish=dataclasses.replace(problem.wish, derivatives=timed),
        differentiable=follows,
        **problem.observers,
    )
    run.values[0] = z0
    if timed:
        assert run.derivatives is not None
        own = dict(enumerate(t))
        if problem.wish.every_step:
            own = {0: t[0]}
            if run.times[-1] == problem.times[-1]:  # else the last step ends at an event
                own[len(run.values) - 1] = t[-1]
        for i, time in own.items():
            if i and run.places[i].step != -2:  # neither the start nor past a terminal event
                run.values[i] = moved_end(flow, run.values[i], run.derivatives[i], time)
    return Answer(_stacked(run), run)


def _task(
    problem: Problem,
    dynamics: Dynamics,
    runs: list[Run],
    recording: Recording,
    queue: Queue | None,
) -> Task:
    """The forward pass under the dynamics whose VJP will be used, and the chosen walk back."""

    def forward(z0: Tensor, derivatives: bool) -> tuple[Tensor, Tensor | None, Run]:
        field = dynamics.forward if recording.saves else lambda t, z: (dynamics.value(t, z), None)
        run = forward_solve(
            CountedField(field, problem.stats),
            z0.detach(),
            problem.times,
            dataclasses.replace(problem.settings, queue=with_derivatives(queue, derivatives)),
            problem.stats,
            wish=dataclasses.replace(
                problem.wish, derivatives=derivatives, dense=problem.wish.dense or recording.dense
            ),
            hooks=recording.hooks,
            **problem.observers,
        )
        values = _stacked(run)
        slopes = torch.stack(run.derivatives) if run.derivatives is not None else None
        if slopes is not None and problem.wish.every_step and run.times[-1] != problem.times[-1]:
            slopes[-1] = 0.0  # the last step ends at an event, at no time that was given
        # The function saves the stacked tensors; the record must not hold them a second time.
        run.values.clear()
        run.derivatives = None
        runs.append(run)
        return values, slopes, run

    def guarded(run: Run, values: Tensor, g: Tensor, want: bool) -> tuple[Tensor, list[Tensor]]:
        stats = problem.stats
        stats.nfe_backward = stats.nfe_recomputed = 0
        stats.n_accepted_backward = stats.n_rejected_backward = 0
        times = [*run.times, *(fired.t for fired in run.fired)]
        places = [*run.places, *(fired.place for fired in run.fired)]
        with problem.guard():
            return recording.walk(times, places, list(values.unbind()), list(g.unbind()), want)

    def time_gradient(g: Tensor, derivatives: Tensor, a: Tensor) -> Tensor:
        """dL/dt_i = g_i · y'(t_i), dL/dt_0 = −a · f(t_0, z_0) with a before the jump by g_0."""
        t_bar = (g[: len(derivatives)] * derivatives).reshape(len(derivatives), -1).sum(1)
        t_bar[0] = -(a * derivatives[0]).sum()
        if problem.wish.every_step:  # only the first and the last are times that were given
            inner = t_bar.new_zeros(len(problem.times) - 2)
            t_bar = torch.cat((t_bar[:1], inner, t_bar[-1:]))
        return t_bar

    return Task(forward, guarded, time_gradient, problem.autocast)
