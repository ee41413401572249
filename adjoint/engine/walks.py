"""What each gradient choice keeps of a forward solve, and how it walks back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from torch import Tensor

from ...solvers.device.queue import Queue
from ...solvers.march.output import Place
from ...solvers.march.stepper import Step, clock
from ...solvers.step.clocks import One
from ..continuous.stepping import Shared, Watch, reverse_settings
from ..continuous.ways import record_continuous
from ..discrete.compiled import CompiledWalk
from ..discrete.tape import CheckpointTape, Tape
from ..discrete.walk import DiscreteWalk
from ..dynamics.protocol import Dynamics
from ..dynamics.repeatable import LastEvaluation
from ..gradient import Backsolve, Discrete, Gradient, Interpolating
from ..recording import Seen
from .problem import Problem, Walk
from .speed import reverse_queue


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
        return _continuous(problem, dynamics, gradient, watch, reverse_queue(problem, queue))
    if isinstance(gradient, Interpolating):  # between its evaluations the host looks the state up
        return _continuous(problem, dynamics, gradient, watch, None)
    assert isinstance(gradient, Discrete)
    return _discrete(problem, dynamics, gradient, watch, queue)


def _discrete(
    problem: Problem, dynamics: Dynamics, gradient: Discrete, watch: Watch | None, queue: Queue | None
) -> Recording:
    compiled = queue is not None and queue.owner is not None
    again = gradient.keep == "state" if queue is None else not queue.keep
    tape: Tape | CheckpointTape = Tape(stages=not again, first=compiled)
    if gradient.checkpoints is not None:
        again, tape = True, CheckpointTape(gradient.checkpoints)
    last = LastEvaluation()

    def walk(
        times: list[float], places: list[Place], values: list[Tensor], g: list[Tensor], want: bool
    ) -> tuple[Tensor, list[Tensor]]:
        tableau = problem.settings.tableau
        compiled_here = compiled and isinstance(tape, Tape) and watch is None
        if again and not compiled_here:
            last.check(dynamics, problem.stats, problem.complain)
        if compiled_here and queue is not None and isinstance(tape, Tape):
            fast = CompiledWalk(
                dynamics, queue, tableau, tape, places, g, problem.stats, problem.z0, problem.complain
            )
            found = fast.run()
            if found is not None:
                return found
            if again:
                first = tape.steps[0]
                assert first.k0 is not None  # the tape keeps it: first=compiled
                last.kept = (clock(first.t0, problem.z0), problem.z0.detach(), first.k0)
                last.check(dynamics, problem.stats, problem.complain)
        back = DiscreteWalk(
            dynamics, tableau, tape, places, g, problem.stats, want_theta=want, watch=watch, like=problem.z0
        )
        return back.run(), back.theta.result()

    return Recording([tape, last] if again and not compiled else [tape], walk, saves=not again)


def _continuous(
    problem: Problem,
    dynamics: Dynamics,
    gradient: Backsolve | Interpolating,
    watch: Watch | None,
    queue: Queue | None,
) -> Recording:
    backward = problem.reverse_settings or reverse_settings(problem.settings, gradient)
    stepping = Shared(
        forward=problem.settings,
        backward=dataclasses.replace(backward, queue=queue),
        clocks=One(),
        stats=problem.stats,
        theta_norm=problem.theta_norm,
        watch=watch,
        observers=problem.reverse_observers,
    )
    recording = record_continuous(dynamics, gradient, stepping, problem.complain)

    def walk(
        times: list[float], places: list[Place], values: list[Tensor], g: list[Tensor], want: bool
    ) -> tuple[Tensor, list[Tensor]]:
        return recording.walk(Seen(times, values, places), g, want)

    return Recording([recording.recorder.step], walk, dense=recording.dense)
