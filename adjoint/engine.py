"""From checked arguments to differentiable values: which gradient runs how."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..solvers.errors import ReconstructionError
from ..solvers.field import Autocast, CountedField
from ..solvers.loop import Stats
from ..solvers.methods import get_method
from ..solvers.norms import Tolerance
from ..solvers.solve import Run, Settings, forward_solve
from ..solvers.status import Status
from ..solvers.stepper import Step
from .backsolve import BacksolveWalk
from .discrete import DiscreteWalk
from .dynamics import Dynamics
from .function import Solve, Task
from .gradient import Backsolve, Direct, Discrete, Gradient
from .record import Tape


def _raise(error: ReconstructionError) -> None:
    raise error


@dataclasses.dataclass(frozen=True)
class Problem:
    """One solve, checked and packed.

    plain: f(t, z) → dz under the caller's grad mode; dynamics: the same with its VJP (made when a
    gradient is wanted).  times: floats; t: the tensor they came from.  too_far: what happens to a
    reconstruction error past its limit.  observers: keyword arguments of `forward_solve` (callbacks).
    """

    plain: Callable[[Tensor, Tensor], Tensor]
    make_dynamics: Callable[[], Dynamics]
    z0: Tensor
    t: Tensor
    times: Sequence[float]
    settings: Settings
    autocast: Autocast
    stats: Stats
    reverse_settings: Settings | None = None
    too_far: Callable[[ReconstructionError], None] = _raise
    observers: dict[str, Any] = dataclasses.field(default_factory=dict)
    reverse_observers: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Answer:
    """values: [T, *z]."""

    values: Tensor
    status: Status


def differentiate(problem: Problem, gradient: Gradient | None) -> Answer:
    """Solves, with the gradient asked for where one can flow."""
    if isinstance(gradient, Direct):
        return _direct(problem)
    with problem.autocast.outside():
        if gradient is None or not torch.is_grad_enabled():
            return _without_gradient(problem)
        dynamics = problem.make_dynamics()
        theta = dynamics.theta()
        if not any(x.requires_grad for x in (problem.z0, problem.t, *theta)):
            return _without_gradient(problem)
        runs: list[Run] = []
        task = _discrete(problem, dynamics, gradient, runs)
        if isinstance(gradient, Backsolve):
            task = _backsolve(problem, dynamics, gradient, runs)
        values = Solve.apply(task, problem.z0, problem.t, *theta)
        return Answer(values, runs.pop().outcome.status)


def _without_gradient(problem: Problem) -> Answer:
    with torch.no_grad():
        field = CountedField(lambda t, z: (problem.plain(t, z), None), problem.stats)
        run = forward_solve(
            field,
            problem.z0.detach(),
            problem.times,
            problem.settings,
            problem.stats,
            **problem.observers,
        )
        return Answer(torch.stack(run.values), run.outcome.status)


def _direct(problem: Problem) -> Answer:
    """Through the steps by autograd; times enter as (t − t.detach()) · y'(t)."""
    with problem.autocast.outside():
        field = CountedField(lambda t, z: (problem.plain(t, z), None), problem.stats)
        t, z0, stats = problem.t, problem.z0, problem.stats
        timed = t.requires_grad and torch.is_grad_enabled()
        start = z0
        if timed:
            # dL/dt_0 = −a·f(t_0, z_0): moving the start is moving the state against the flow.
            time = t[0].detach().to(z0.dtype)
            start = z0 - (t[0] - t[0].detach()).to(z0.dtype) * problem.plain(time, z0)
            stats.nfe += 1
        run = forward_solve(
            field,
            start,
            problem.times,
            problem.settings,
            stats,
            differentiable=torch.is_grad_enabled(),
            derivatives=timed,
            **problem.observers,
        )
        values = [z0, *run.values[1:]]
        if timed:
            assert run.derivatives is not None
            shifts = (t - t.detach()).to(z0.dtype)
            values[1:] = [
                v + s * d for v, s, d in zip(values[1:], shifts[1:], run.derivatives[1:], strict=True)
            ]
        return Answer(torch.stack(values), run.outcome.status)


def _forward(
    problem: Problem, dynamics: Dynamics, hooks: list[Callable[[Step], Any]], runs: list[Run]
) -> Callable[[Tensor, bool], Run]:
    """The forward pass under the dynamics whose VJP will be used."""

    def forward(z0: Tensor, derivatives: bool) -> Run:
        field = CountedField(dynamics.forward, problem.stats)
        run = forward_solve(
            field,
            z0.detach(),
            problem.times,
            problem.settings,
            problem.stats,
            hooks=hooks,
            derivatives=derivatives,
            **problem.observers,
        )
        runs.append(run)
        return run

    return forward


def _discrete(problem: Problem, dynamics: Dynamics, gradient: Gradient, runs: list[Run]) -> Task:
    tape = Tape(stages=isinstance(gradient, Discrete) and gradient.keep == "stages")
    solve = _forward(problem, dynamics, [tape], runs)

    def backward(
        record: Tape, run: Run, values: list[Tensor], g: list[Tensor], want_theta: bool
    ) -> tuple[Tensor, list[Tensor]]:
        problem.stats.nfe_backward = problem.stats.nfe_recomputed = 0
        walk = DiscreteWalk(
            dynamics,
            problem.settings.tableau,
            record,
            run.places,
            g,
            problem.stats,
            want_theta=want_theta,
        )
        return walk.run(), walk.theta.result()

    return Task(lambda z0, derivatives: (solve(z0, derivatives), tape), backward, problem.autocast)


def _backsolve(problem: Problem, dynamics: Dynamics, gradient: Backsolve, runs: list[Run]) -> Task:
    solve = _forward(problem, dynamics, [], runs)
    settings = problem.reverse_settings or reverse_settings(problem.settings, gradient)

    def backward(
        record: None, run: Run, values: list[Tensor], g: list[Tensor], want_theta: bool
    ) -> tuple[Tensor, list[Tensor]]:
        stats = problem.stats
        stats.nfe_backward = stats.n_accepted_backward = stats.n_rejected_backward = 0
        walk = BacksolveWalk(
            dynamics,
            settings,
            problem.times,
            values,
            g,
            stats,
            gradient.reconstruction_limit,
            problem.too_far,
            want_theta=want_theta,
            observers=problem.reverse_observers,
        )
        return walk.run(), walk.theta.result()

    return Task(lambda z0, derivatives: (solve(z0, derivatives), None), backward, problem.autocast)


def reverse_settings(settings: Settings, gradient: Backsolve) -> Settings:
    """The reverse solve's settings: the forward ones but for what the gradient choice names."""
    tolerance = Tolerance(
        settings.tolerance.rtol if gradient.rtol is None else gradient.rtol,
        settings.tolerance.atol if gradient.atol is None else gradient.atol,
    )
    tableau = settings.tableau
    if gradient.method is not None:
        tableau = get_method(gradient.method, "Backsolve: method")
    return dataclasses.replace(settings, tolerance=tolerance, tableau=tableau, dt0=None)
