"""What each gradient choice keeps of a forward solve, and how it walks back."""

from __future__ import annotations

from typing import Any

from ...solvers.device.queue import Queue
from ...solvers.step.clocks import ONE
from ..continuous.stepping import PerSample, Shared, Stepping, Watch, reverse_settings
from ..continuous.ways import record_continuous
from ..discrete.record import record_discrete
from ..discrete.walk import Solved
from ..dynamics.protocol import Dynamics
from ..gradient import Backsolve, Discrete, Gradient, Interpolating
from ..recording import Recording
from .problem import Problem, SampleProblem, SharedProblem
from .speed import reverse_queue


def record_for(
    problem: Problem,
    dynamics: Dynamics,
    gradient: Gradient,
    watch: Watch | None = None,
    queue: Queue | None = None,
) -> Recording:
    """The recording that a gradient choice needs. watch: sees the adjoint on its way, for study (one clock).
    queue: of the forward solve."""
    if isinstance(gradient, Discrete):
        tableau, complain = problem.settings.tableau, problem.complain
        solved = Solved(dynamics, tableau, problem.clocks, problem.z0, problem.stats, complain)
        return record_discrete(solved, gradient, queue=queue, watch=watch)
    assert isinstance(gradient, (Backsolve, Interpolating))
    return record_continuous(dynamics, gradient, _reverse(problem, gradient, watch, queue), problem.complain)


def _reverse(
    problem: Problem, gradient: Backsolve | Interpolating, watch: Watch | None, queue: Queue | None
) -> Stepping[Any, Any]:
    """How the reverse solve steps."""
    if isinstance(problem, SampleProblem):
        backward, clocks = reverse_settings(problem.settings, gradient), problem.clocks
        return PerSample(
            forward=problem.settings,
            backward=backward,
            clocks=clocks,
            stats=problem.stats,
            batch=clocks.batch_size(problem.z0),
        )
    assert isinstance(problem, SharedProblem)
    own = None  # between the evaluations of Interpolating the host looks the state up
    if isinstance(gradient, Backsolve):
        own = reverse_queue(problem, queue)
    return Shared(
        forward=problem.settings,
        backward=problem.reverse_settings or reverse_settings(problem.settings, gradient),
        clocks=ONE,
        stats=problem.stats,
        watch=watch,
        queue=own,
        observers=problem.reverse_observers,
        trace=problem.reverse_trace,
        theta_norm=problem.theta_norm,
    )
