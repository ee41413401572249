"""What each gradient choice keeps of a forward solve, and how it walks back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...solvers.device.queue import Queue
from ...solvers.errors import ReconstructionError, SolverError
from ...solvers.march.dense import DenseOutput
from ...solvers.march.host import Stats
from ...solvers.march.output import Place
from ...solvers.march.stepper import Step
from ...solvers.methods import get_method
from ...solvers.solve import Settings, forward_solve
from ...solvers.step.clocks import One
from ...solvers.step.field import CountedField
from ...solvers.step.norms import Tolerance
from ..continuous.backsolve import StateAndAdjoint
from ..continuous.guard import AnySettings, judged_by
from ..continuous.interpolating import AdjointAtState
from ..continuous.reverse import ReverseSolve, Watch
from ..discrete.anchors import Anchors
from ..discrete.record import record_discrete
from ..discrete.walk import Solved
from ..dynamics.protocol import Dynamics
from ..dynamics.repeatable import LastEvaluation
from ..gradient import Backsolve, Discrete, Gradient, Interpolating
from ..recording import Seen
from .problem import Problem, Walk
from .speed import reverse_queue

PATIENCE = 20  # how many times the forward attempts a first reverse solve may take


@dataclasses.dataclass(frozen=True)
class Recording:
    """hooks: of the forward solve.  dense: it must keep its stages.  walk: the way back.
    saves: whether the way back uses what the forward solve's evaluations saved (their graphs, say)."""

    hooks: list[Callable[[Step], Any]]
    walk: Walk
    dense: bool = False
    saves: bool = False


def record_for(
    problem: Problem,
    dynamics: Dynamics,
    gradient: Gradient,
    watch: Watch | None = None,
    queue: Queue | None = None,
) -> Recording:
    """The recording that a gradient choice needs. watch: sees the adjoint on its way, for study.
    queue: of the forward solve."""
    if isinstance(gradient, Backsolve):
        return _backsolve(problem, dynamics, gradient, watch, reverse_queue(problem, queue))
    if isinstance(gradient, Interpolating):
        return _interpolating(problem, dynamics, gradient, watch)
    assert isinstance(gradient, Discrete)
    return _discrete(problem, dynamics, gradient, watch, queue)


def _discrete(
    problem: Problem, dynamics: Dynamics, gradient: Discrete, watch: Watch | None, queue: Queue | None
) -> Recording:
    tableau = problem.settings.tableau
    solved = Solved(dynamics, tableau, One(), problem.z0, problem.stats, problem.complain)
    found = record_discrete(solved, gradient, queue=queue, watch=watch)

    def walk(
        times: list[float], places: list[Place], values: list[Tensor], g: list[Tensor], want: bool
    ) -> tuple[Tensor, list[Tensor]]:
        return found.walk(Seen(times, values, places), g, want)

    return Recording([found.recorder.step], walk, saves=found.saves)


def _backsolve(
    problem: Problem, dynamics: Dynamics, gradient: Backsolve, watch: Watch | None, queue: Queue | None
) -> Recording:
    settings = problem.reverse_settings or reverse_settings(problem.settings, gradient)
    settings = dataclasses.replace(settings, queue=queue)
    anchors = Anchors(gradient.anchors) if gradient.anchors else None
    last = LastEvaluation()

    def walk(
        times: list[float], places: list[Place], values: list[Tensor], g: list[Tensor], want: bool
    ) -> tuple[Tensor, list[Tensor]]:
        last.check(dynamics, problem.stats, problem.complain)
        order = in_order(times, places)
        seen = [(times[i], values[i], g[i]) for i in order]
        # At the edge of a domain a reverse solve crawls: with kept states at hand it need not end that way.
        short = settings
        if anchors:
            limit = PATIENCE * (problem.stats.n_steps + 10)
            short = dataclasses.replace(settings, max_steps=min(settings.max_steps, limit))
        try:
            a, theta, off = _rebuild(problem, dynamics, short, seen, gradient, want, watch)
            if off is None or not anchors:
                if off is not None:
                    problem.complain(off)
                return a, theta
        except SolverError:
            if not anchors:
                raise
        # The rebuilt state was lost on the way. Once more, from nearer: the kept states confine the drift.
        known, end = {time for time, _, _ in seen}, seen[-1][0]
        kept = [(t, y, torch.zeros_like(y)) for t, y in anchors.states.values() if t not in known]
        kept = [one for one in kept if abs(one[0] - seen[0][0]) < abs(end - seen[0][0])]
        seen = sorted(seen + kept, key=lambda one: abs(one[0] - seen[0][0]))
        a, theta, off = _rebuild(problem, dynamics, settings, seen, gradient, want, watch)
        if off is not None:
            problem.complain(off)
        return a, theta

    return Recording([last.see] if anchors is None else [last.see, anchors], walk)


def _rebuild(
    problem: Problem,
    dynamics: Dynamics,
    settings: Settings,
    seen: list[tuple[float, Tensor, Tensor]],
    gradient: Backsolve,
    want: bool,
    watch: Watch | None,
) -> tuple[Tensor, list[Tensor], ReconstructionError | None]:
    """One reverse solve over (time, state, cotangent)s: dL/dz at the start, θ's gradients, and what is
    wrong with them if the rebuilt state was too far off."""
    times, values = [time for time, _, _ in seen], [z for _, z, _ in seen]

    def forward_to(i: int, t: float) -> Tensor:
        field = CountedField(dynamics.forward, Stats())
        return forward_solve(field, values[i], [times[i], t], problem.settings, Stats()).values[-1]

    judge = judged_by(settings, problem.settings)
    carrier = StateAndAdjoint(dynamics, judge, times, values, problem.stats, forward_to)
    solve = ReverseSolve(
        dynamics,
        carrier,
        settings,
        times,
        [g for _, _, g in seen],
        problem.stats,
        want_theta=want,
        observers=problem.reverse_observers,
        theta_norm=problem.theta_norm,
        watch=watch,
    )
    a = solve.run()
    # Fixed steps have no tolerance to measure a distance in: it is noted but not judged.
    limit = math.inf if settings.fixed else gradient.reconstruction_limit
    return a, solve.theta.result(), carrier.judge(limit)


def _interpolating(
    problem: Problem, dynamics: Dynamics, gradient: Interpolating, watch: Watch | None
) -> Recording:
    settings = reverse_settings(problem.settings, gradient)
    steps: list[Step] = []
    last = LastEvaluation()

    def walk(
        times: list[float], places: list[Place], values: list[Tensor], g: list[Tensor], want: bool
    ) -> tuple[Tensor, list[Tensor]]:
        last.check(dynamics, problem.stats, problem.complain)
        order = in_order(times, places)
        reached = [times[i] for i in order]
        dense = DenseOutput(steps, reached[0], reached[-1])
        stored = [values[i] for i in order]
        carrier = AdjointAtState(dynamics, dense, settings.norm, stored, problem.stats)
        solve = ReverseSolve(
            dynamics,
            carrier,
            settings,
            reached,
            [g[i] for i in order],
            problem.stats,
            want_theta=want,
            first_dt=abs(steps[-1].dt),
            observers=problem.reverse_observers,
            watch=watch,
        )
        return solve.run(), solve.theta.result()

    return Recording([steps.append, last.see], walk, dense=True)


def in_order(times: list[float], places: list[Place]) -> list[int]:
    """Observations and events as time went, without those after a terminal event, never reached."""
    order = [i for i, place in enumerate(places) if place.step != -2]
    order.sort(key=lambda i: abs(times[i] - times[0]))
    return order


def reverse_settings(settings: AnySettings, gradient: Backsolve | Interpolating) -> AnySettings:
    """The reverse solve's settings: the forward ones but for what the gradient choice names."""
    tolerance = Tolerance(
        settings.tolerance.rtol if gradient.rtol is None else gradient.rtol,
        settings.tolerance.atol if gradient.atol is None else gradient.atol,
    )
    tableau = settings.tableau
    if gradient.method is not None:
        tableau = get_method(gradient.method, f"{type(gradient).__name__}: method")
    return dataclasses.replace(settings, tolerance=tolerance, tableau=tableau, dt0=None)
