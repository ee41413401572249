"""What the continuous adjoints keep of a forward solve, and how they walk back."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch

from ...solvers.errors import NotRepeatableError, ReconstructionError, SolverError
from ...solvers.march.output import Step
from ...solvers.march.samples import SampleStep
from ..discrete.checkpointing import Thinning
from ..dynamics.by_autograd import AutogradDynamics
from ..dynamics.protocol import Dynamics, ThetaSum
from ..dynamics.repeatable import LastEvaluation
from ..gradient import Backsolve, Interpolating
from ..recording import Recorder, Recording, Result, Rows, Seen
from .carrier import Interpolated, Rebuilt
from .observations import Kept, Observations
from .quadrature import Watch
from .reverse import ReverseSolve
from .stepping import PerSample, Stepping

PATIENCE = 20  # how many times the forward attempts a first reverse solve may take
Complain = Callable[["ReconstructionError | NotRepeatableError"], None]


def record_continuous(
    dynamics: Dynamics,
    gradient: Backsolve | Interpolating,
    stepping: Stepping[Any, Any],
    complain: Complain,
    watch: Watch | None = None,
) -> Recording:
    """The recording of a continuous adjoint.

    stepping: of both solves.
    complain: what happens to a reconstruction error past its limit, and to a func that is not repeatable.
    watch: sees the adjoint on its way, for study (shared steps).
    """
    if isinstance(stepping, PerSample) and isinstance(dynamics, AutogradDynamics):
        dynamics.weigh_late()
    if isinstance(gradient, Backsolve):
        rebuilding = BacksolveWay(dynamics, gradient, stepping, complain, watch)
        return Recording(rebuilding.recorder, rebuilding.walk)
    interpolating = InterpolatingWay(dynamics, stepping, complain, watch)
    return Recording(interpolating.recorder, interpolating.walk, dense=True)


class Anchors(Recorder):
    """A few states along the way, evenly spread whatever the number of steps, and the last evaluation.

    kept: a step → a time and the state there.  most: of the states; 0 for none.
    """

    def __init__(self, kept: Callable[[Step | SampleStep], Kept], most: int):
        self.kept, self.most, self.n_steps = kept, most, 0
        self.thinning, self.last = Thinning(most), LastEvaluation()
        self.states: dict[int, Kept] = {}

    def step(self, step: Step | SampleStep) -> None:
        """Keeps its state, or does not."""
        self.last.see(step)
        if self.most and self.thinning.offer(self.n_steps):
            self.states[self.n_steps] = self.kept(step)
        for n in self.thinning.gone:
            self.states.pop(n, None)
        self.n_steps += 1


class Steps(Recorder):
    """All steps with their stages, and the last evaluation."""

    def __init__(self) -> None:
        self.steps: list[Any] = []
        self.last = LastEvaluation()

    def step(self, step: Step | SampleStep) -> None:
        """Keeps it."""
        self.last.see(step)
        self.steps.append(step)


class BacksolveWay:
    """Solves backwards with the state rebuilt from observation to observation; where it is lost on the way,
    once more with the states kept along the forward solve, which confine the drift.

    Arguments: as of `record_continuous`.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        gradient: Backsolve,
        stepping: Stepping[Any, Any],
        complain: Complain,
        watch: Watch | None,
    ):
        self.dynamics, self.gradient, self.stepping = dynamics, gradient, stepping
        self.complain, self.watch = complain, watch
        self.recorder = Anchors(stepping.kept, gradient.anchors)

    def walk(self, seen: Seen, g: Rows, want_theta: bool) -> Result:
        """The gradients; what is wrong with them, if the state was too far off, is a complaint."""
        stepping, anchors = self.stepping, self.recorder.states.values()
        self.recorder.last.check(self.dynamics, stepping.stats, self.complain)
        short = stepping.limited(self._patience()) if anchors else stepping
        try:
            found, off = self._once(short, stepping.observations(seen, g), want_theta)
        except SolverError:
            if not anchors:
                raise
            off = None
        else:
            if off is None:
                return found
        if anchors:
            found, off = self._once(stepping, stepping.observations(seen, g, anchors), want_theta)
        if off is not None:
            self.complain(off)
        return found

    def _patience(self) -> int:
        """How many attempts an interval of the first reverse solve may take.

        At the edge of a domain a reverse solve crawls: with kept states at hand it need not end that way.
        """
        attempts = self.stepping.stats.n_steps
        most = attempts if isinstance(attempts, int) else int(attempts.max())  # host read
        return PATIENCE * (most + 10)

    def _once(
        self, stepping: Stepping[Any, Any], seen: Observations, want_theta: bool
    ) -> tuple[Result, ReconstructionError | None]:
        """One reverse solve, and what is wrong with it if the rebuilt state was too far off."""
        forward_to = functools.partial(stepping.forward_to, self.dynamics)
        carrier = Rebuilt(self.dynamics, seen, stepping.stats, stepping.distance, forward_to)
        found = ReverseSolve(stepping, carrier, want_theta=want_theta, watch=self.watch).run()
        # Fixed steps have no tolerance to measure a distance in: it is noted but not judged.
        return found, carrier.judge(math.inf if stepping.fixed else self.gradient.reconstruction_limit)


class InterpolatingWay:
    """Solves backwards with the state from the forward solve's steps.

    Arguments: as of `record_continuous`.
    """

    def __init__(
        self, dynamics: Dynamics, stepping: Stepping[Any, Any], complain: Complain, watch: Watch | None
    ):
        self.dynamics, self.stepping, self.complain, self.watch = dynamics, stepping, complain, watch
        self.recorder = Steps()

    def walk(self, seen: Seen, g: Rows, want_theta: bool) -> Result:
        """The gradients."""
        stepping, steps = self.stepping, self.recorder.steps
        self.recorder.last.check(self.dynamics, stepping.stats, self.complain)
        observations = stepping.observations(seen, g)
        if not steps:  # no sample took one: all outputs are its start
            return torch.stack(tuple(observations.g[1:])).sum(0), ThetaSum(self.dynamics).result()
        past = stepping.past(steps, observations)
        carrier = Interpolated(self.dynamics, observations, stepping.stats, past)
        dt = stepping.first_dt(steps)
        return ReverseSolve(stepping, carrier, want_theta=want_theta, dt=dt, watch=self.watch).run()
