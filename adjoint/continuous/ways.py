"""What the continuous adjoints keep of a forward solve, and how they walk back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch

from ...solvers.errors import NotRepeatableError, ReconstructionError, SolverError
from ...solvers.march.output import Step
from ...solvers.march.samples import SampleStep
from ..arguments import Backsolve, Interpolating
from ..discrete.tape import Thinning
from ..dynamics.adapt import LastEvaluation, ThetaSum
from ..dynamics.by_autograd import AutogradDynamics
from ..dynamics.protocol import Dynamics
from ..recording import Recorder, Recording, Result, Rows, Seen
from .carrier import Interpolated, Rebuilt
from .reverse import ReverseSolve
from .stepping import Kept, Observations, PerSample, Stepping

# How many times the forward attempts an interval of a first reverse solve may take. One whose tolerance is a
# millionth of the forward's takes 16 times the steps by a method of order 5 (1e6 to the 1/5), and is well.
# Of 8 AdamNODE cases with (1−β)T in 4 … 20, where the first solve is lost, 5, 20 and 80 answered all alike.
PATIENCE = 20
FEW = 10  # beside a forward solve of one or two steps, which says little of how many the adjoint needs


class Anchors(Recorder):
    """Keeps a few states along the way, evenly spread whatever the number of steps, and the last evaluation.

    keep: a step → a time and the state there.
    most: how many (0: none).
    """

    def __init__(self, keep: Callable[[Any], Kept], most: int):
        self.keep, self.most, self.n_steps = keep, most, 0
        self.thinning, self.last = Thinning(most), LastEvaluation()
        self.found: dict[int, Kept] = {}

    def step(self, step: Step | SampleStep) -> None:
        """Keeps its state, or does not."""
        self.last.see(step)
        if self.most and self.thinning.offer(self.n_steps):
            self.found[self.n_steps] = self.keep(step)
        for n in self.thinning.gone:
            self.found.pop(n, None)
        self.n_steps += 1


class Steps(Recorder):
    """Keeps all steps, which own their stages, and the last evaluation."""

    def __init__(self) -> None:
        self.found: list[Any] = []
        self.last = LastEvaluation()

    def step(self, step: Step | SampleStep) -> None:
        """Keeps each step."""
        self.last.see(step)
        self.found.append(step)


@dataclasses.dataclass(frozen=True)
class Way:
    """A continuous adjoint of one solve.

    complain: what happens to a reconstruction error past its limit, and to a func that is not repeatable.
    """

    dynamics: Dynamics
    stepping: Stepping[Any, Any]
    complain: Callable[[ReconstructionError | NotRepeatableError], None]


@dataclasses.dataclass(frozen=True)
class BacksolveWay(Way):
    """Solves backwards with the state rebuilt from observation to observation; where it is lost on the way,
    once more with the states kept along the forward solve, which confine the drift."""

    limit: float
    anchors: Anchors

    def walk(self, seen: Seen, g: Rows, want_theta: bool) -> Result:
        """The gradients; what is wrong with them, if the state was too far off, is a complaint."""
        stepping, kept = self.stepping, self.anchors.found.values()
        self.anchors.last.check(self.dynamics, stepping.stats, self.complain)
        off: ReconstructionError | None = None
        try:
            first = stepping.limited(self._patience()) if kept else stepping
            found, off = self._once(first, stepping.observations(seen, g), want_theta)
            again = off is not None
        except SolverError:
            if not kept:
                raise
            again = True
        if kept and again:
            found, off = self._once(stepping, stepping.observations(seen, g, kept), want_theta)
        if off is not None:
            self.complain(off)
        return found

    def _patience(self) -> int:
        """How many attempts an interval of the first reverse solve may take.

        At the edge of a domain a reverse solve crawls: with kept states at hand it need not end that way.
        """
        attempts = self.stepping.stats.n_steps
        most = attempts if isinstance(attempts, int) else int(attempts.max())  # host read
        return PATIENCE * (most + FEW)

    def _once(
        self, stepping: Stepping[Any, Any], seen: Observations, want_theta: bool
    ) -> tuple[Result, ReconstructionError | None]:
        """One reverse solve, and what is wrong with it if the rebuilt state was too far off."""
        carrier = Rebuilt(self.dynamics, seen, stepping)
        found = ReverseSolve(carrier, want_theta=want_theta).run()
        # Fixed steps have no tolerance to measure a distance in: it is noted but not judged.
        return found, carrier.judge(math.inf if stepping.backward.fixed else self.limit)


@dataclasses.dataclass(frozen=True)
class InterpolatingWay(Way):
    """Solves backwards with the state from the forward solve's steps."""

    steps: Steps

    def walk(self, seen: Seen, g: Rows, want_theta: bool) -> Result:
        """The gradients."""
        stepping, steps = self.stepping, self.steps.found
        self.steps.last.check(self.dynamics, stepping.stats, self.complain)
        observations = stepping.observations(seen, g)
        if not steps:  # no sample took one: all outputs are its start
            return torch.stack(tuple(observations.g[1:])).sum(0), ThetaSum(self.dynamics).result()
        past, dt = stepping.past(steps, observations)
        carrier = Interpolated(self.dynamics, observations, stepping, past)
        return ReverseSolve(carrier, want_theta=want_theta, dt=dt).run()


def record_continuous(
    dynamics: Dynamics,
    gradient: Backsolve | Interpolating,
    stepping: Stepping[Any, Any],
    complain: Callable[[ReconstructionError | NotRepeatableError], None],
) -> Recording:
    """The recording of a continuous adjoint.

    complain: what happens to a reconstruction error past its limit, and to a func that is not repeatable.
    """
    if isinstance(stepping, PerSample) and isinstance(dynamics, AutogradDynamics):
        dynamics.weigh_late()
    if isinstance(gradient, Interpolating):
        steps = Steps()
        return Recording(steps, InterpolatingWay(dynamics, stepping, complain, steps).walk, dense=True)
    anchors = Anchors(stepping.kept, gradient.anchors)
    way = BacksolveWay(dynamics, stepping, complain, gradient.reconstruction_limit, anchors)
    return Recording(anchors, way.walk)
