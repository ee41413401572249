"""From a checked problem to differentiable values: which gradient runs how, whatever the clocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...solvers.device.queue import Queue
from ..dynamics.protocol import Dynamics
from ..gradient import Direct, Discrete, Gradient
from ..recording import Recording, Result, Seen
from .function import Solve, Task
from .problem import Problem
from .speed import queue_for, with_derivatives
from .time_move import moved_end, moved_start
from .transformed import gradient_allowed, moves, transformed
from .walks import record_for


@dataclasses.dataclass(frozen=True)
class WalkBack:
    """An adjoint for any times inside the solve; theta: what it gives gradients for."""

    theta: tuple[Tensor, ...]
    walk: Callable[[Seen, Tensor, bool], Result]


@dataclasses.dataclass(frozen=True)
class Answer:
    """values: [n, *z], the outputs and after them the events that fired; run: the rest.

    start: the state that the steps began with.  slopes: f at the start, where a time wants a gradient.
    again: how to walk the same steps back for other times (None where there is no adjoint).
    """

    values: Tensor
    run: Any
    start: Tensor
    slopes: Tensor | None = None
    again: WalkBack | None = None


def differentiate(problem: Problem, gradient: Gradient | None) -> Answer:
    """Solves, with the gradient asked for where one can flow."""
    with problem.autocast.outside():
        if transformed():
            gradient = _allowed(problem, gradient)
        if isinstance(gradient, Direct):
            return _direct(problem)
        if gradient is None or not torch.is_grad_enabled():
            return _without_gradient(problem)
        dynamics = problem.make_dynamics()
        if any(x.requires_grad for x in (problem.z0, problem.t, *dynamics.theta())):
            return _by_adjoint(problem, dynamics, gradient)
        return _without_gradient(problem, torch.enable_grad)  # func may differentiate inside


def _allowed(problem: Problem, gradient: Gradient | None) -> Gradient | None:
    """`gradient_allowed` for a problem."""
    events, inputs = problem.wish.events is not None, (problem.z0, problem.t)
    evaluate = lambda: problem.evaluate(problem.start, problem.z0)  # noqa: E731
    return gradient_allowed(gradient, evaluate, inputs, events=events)


def _without_gradient(problem: Problem, mode: Callable[[], Any] = torch.no_grad) -> Answer:
    """Nothing is recorded. mode: the grad mode of func."""

    def plain(t: Tensor, z: Tensor) -> tuple[Tensor, None]:
        with mode():
            return problem.plain(t, z).detach(), None

    with torch.no_grad():
        z0 = problem.z0.detach()
        run = problem.solve(z0, plain, dataclasses.replace(problem.wish, queue=queue_for(problem, None)))
        return Answer(run.values, run, z0)


def _direct(problem: Problem) -> Answer:
    """Through the steps by autograd; a time enters by moving the state along the flow."""
    queue_for(problem, Direct())  # there is none: it says why
    z0, t, follows = problem.z0, problem.t, torch.is_grad_enabled() or transformed()
    timed = follows and moves(t)
    start = z0
    if timed:
        start = moved_start(problem.flow(start=True), z0, t[..., 0])
    wish = dataclasses.replace(problem.wish, derivatives=timed, differentiable=follows)
    run = problem.solve(start, lambda t, z: (problem.plain(t, z), None), wish)
    values = [z0, *run.values[1:]]
    if timed:
        flow = problem.flow()
        for i, time in problem.own_times(run):
            slope = torch.where(torch.isnan(run.derivatives[i]), 0.0, run.derivatives[i])
            values[i] = moved_end(flow, values[i], slope, time)
    return Answer(torch.stack(values), run, start)


def _by_adjoint(problem: Problem, dynamics: Dynamics, gradient: Gradient) -> Answer:
    """Under the dynamics whose VJP will be used, with the walk back that was chosen."""
    queue = queue_for(problem, gradient)
    recording = record_for(problem, dynamics, gradient, queue=queue)
    many = isinstance(gradient, Discrete) and (queue is None or queue.owner is None)
    solved = _Solved(problem, dynamics, recording, queue)
    theta = dynamics.theta()
    task = Task(solved.forward, solved.backward, solved.time_gradient, problem.autocast, many)
    values = Solve.apply(task, problem.z0, problem.t, *theta)
    run = solved.run
    return Answer(values, run, problem.z0, solved.slopes, WalkBack(theta, recording.walk))


class _Solved:
    """The forward pass and its way back, as `Solve` calls them; run is there when forward has been."""

    run: Any
    slopes: Tensor | None

    def __init__(self, problem: Problem, dynamics: Dynamics, recording: Recording, queue: Queue | None):
        self.problem, self.dynamics, self.recording, self.queue = problem, dynamics, recording, queue

    def forward(self, z0: Tensor, derivatives: bool) -> tuple[Tensor, Tensor | None]:
        """(values, y' at the outputs where asked)."""
        problem, recording, evaluate = self.problem, self.recording, self.dynamics.forward
        if not recording.saves:
            evaluate = lambda t, z: (self.dynamics.value(t, z), None)  # noqa: E731
        wish = dataclasses.replace(
            problem.wish,
            derivatives=derivatives,
            dense=problem.wish.dense or recording.dense,
            queue=with_derivatives(self.queue, derivatives),
        )
        run = problem.solve(z0.detach(), evaluate, wish, recording)
        # No view of the values: they become the Function's output, whose node holds this object.
        self.run = dataclasses.replace(run, values=run.values.new_empty(0), derivatives=None)
        self.slopes = None if run.derivatives is None else run.derivatives[:1].clone()
        return run.values, run.derivatives

    def backward(self, values: Tensor, g: Tensor, want: bool) -> Result:
        """The walk back."""
        stats = self.problem.stats
        stats.nfe_backward = stats.nfe_recomputed = 0
        stats.n_accepted_backward = stats.n_rejected_backward = 0
        with self.problem.guard():
            return self.recording.walk(self.problem.seen(self.run, values), g, want)

    def time_gradient(self, g: Tensor, derivatives: Tensor, a: Tensor) -> Tensor:
        """dL/dt_i = g_i · y'(t_i), dL/dt_0 = −a · f(t_0, z_0) with a before the jump by g_0."""
        along = torch.cat((-a[None], g[1 : len(derivatives)]))
        product = torch.where(along == 0, 0.0, along * derivatives)  # 0 · NaN of a sample that failed
        return self.problem.to_times(self.problem.clocks.totals(product), self.run)
