"""What the continuous adjoints keep of a forward solve, and how they walk back."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ...solvers.errors import ReconstructionError, SolverError
from ...solvers.march.foreign import Foreign, foreign_march
from ...solvers.march.output import Step
from ...solvers.march.samples import SampleStep
from ...solvers.stats import Stats
from ..discrete.tape import Thinning
from ..dynamics.adapt import LastEvaluation, ThetaSum
from ..dynamics.by_autograd import AutogradDynamics
from ..dynamics.protocol import Dynamics
from ..gradients import Backsolve, Interpolating
from ..recording import Recorder, Recording, Result, Rows, Seen
from .carrier import Interpolated, Rebuilt
from .reverse import ReverseSolve
from .stepping import Kept, Observations, PerSample, Stepping

# How many times the forward attempts an interval of a first reverse solve may take. One whose tolerance is a
# millionth of the forward's takes 16 times the steps by a method of order 5 (1e6 to the 1/5), and is well.
# Of 8 AdamNODE cases with (1−β)T in 4 … 20, where the first solve is lost, 5, 20 and 80 answered all alike.
PATIENCE = 20
FEW = 10  # beside a forward solve of one or two steps, which says little of how many the adjoint needs


def patience(stats: Stats[Any, Any]) -> int:
    """How many attempts an interval of the first reverse solve may take, after such a forward solve.

    At the edge of a domain a reverse solve crawls: with kept states at hand it need not end that way.
    """
    attempts = stats.n_steps
    most = attempts if isinstance(attempts, int) else int(attempts.max())  # host read
    return PATIENCE * (most + FEW)


class Way(Recorder):
    """A continuous adjoint of one solve: sees its steps, keeps the last evaluation, and walks back."""

    def __init__(self, dynamics: Dynamics, stepping: Stepping[Any, Any]):
        self.dynamics, self.stepping, self.complain = dynamics, stepping, stepping.reverse.complain
        self.last = LastEvaluation()

    def step(self, step: Step | SampleStep) -> None:
        """Keeps its last evaluation."""
        self.last.see(step)

    def check(self) -> None:
        """Whether func gives the same value again."""
        self.last.check(self.dynamics, self.stepping.stats, self.complain)


class BacksolveWay(Way):
    """Solves backwards with the state rebuilt from observation to observation; where it is lost on the way,
    once more with states kept along the forward solve, which confine the drift.

    The kept states are few, and evenly spread whatever the number of steps.
    """

    def __init__(self, dynamics: Dynamics, stepping: Stepping[Any, Any], gradient: Backsolve):
        super().__init__(dynamics, stepping)
        self.limit, self.most, self.n_steps = gradient.reconstruction_limit, gradient.anchors, 0
        self.thinning, self.anchors = Thinning(self.most), dict[int, Kept]()

    def step(self, step: Step | SampleStep) -> None:
        """Keeps the step's state where the thinning wants it."""
        super().step(step)
        if self.most and self.thinning.offer(self.n_steps):
            self.anchors[self.n_steps] = self.stepping.kept(step)
        for n in self.thinning.gone:
            self.anchors.pop(n, None)
        self.n_steps += 1

    def walk(self, seen: Seen, g: Rows, want_theta: bool) -> Result:
        """The gradients; what is wrong with them, if the state was too far off, is a complaint."""
        stepping, kept = self.stepping, self.anchors.values()
        self.check()
        off: ReconstructionError | None = None
        try:
            first = stepping.limited(patience(stepping.stats)) if kept else stepping
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

    def _once(
        self, stepping: Stepping[Any, Any], seen: Observations, want_theta: bool
    ) -> tuple[Result, ReconstructionError | None]:
        """One reverse solve, and what is wrong with it if the rebuilt state was too far off."""
        carrier = Rebuilt(self.dynamics, seen, stepping)
        found = ReverseSolve(carrier, want_theta=want_theta).run()
        # Fixed steps have no tolerance to measure a distance in: it is noted but not judged.
        return found, carrier.judge(math.inf if stepping.backward.fixed else self.limit)


class ForeignWay(Way):
    """Solves backwards by a solver of scipy's, whose state θ's gradients are part of, from observation to
    observation, with the stored state put back at each.

    limit: of the distance of the rebuilt state from the stored one, in units of the tolerance.
    """

    def __init__(
        self, dynamics: Dynamics, stepping: Stepping[Any, Any], foreign: Foreign, limit: float = math.inf
    ):
        super().__init__(dynamics, stepping)
        self.foreign, self.limit = foreign, limit

    def walk(self, seen: Seen, g: Rows, want_theta: bool) -> Result:
        """The gradients; what is wrong with them, if the state was too far off, is a complaint."""
        self.check()
        observed = self.stepping.observations(seen, g)
        carrier = Rebuilt(self.dynamics, observed, self.stepping)
        theta = [torch.zeros_like(p) for p in self.dynamics.theta()] if want_theta else []
        a = observed.g[-1]
        for i in range(len(observed.g) - 1, 0, -1):
            a, theta = self._interval(carrier, i, a, theta)
            if i > 1:
                a = a + observed.g[i - 1]
        off = carrier.judge(self.limit)
        if off is not None:
            self.complain(off)
        return a, theta or [torch.zeros_like(p) for p in self.dynamics.theta()]

    def _interval(
        self, carrier: Rebuilt, i: int, a: Tensor, theta: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """From observation i to the one before."""
        minus = -a.new_ones(1)

        def rates(t: Tensor, state: list[Tensor]) -> list[Tensor]:
            moved, (saved, deltas) = carrier(t, state[0])
            rate = ThetaSum(self.dynamics, wanted=len(state) > 1)
            rate.add([saved], [deltas], minus)
            return [moved, *(rate.result() if len(state) > 1 else [])]

        start, own, tolerance = [carrier.start(i, a), *theta], Stats(), self.stepping.backward.tolerance
        ends = carrier.seen.times[i], carrier.seen.times[i - 1]
        ((pair, *theta),) = foreign_march(self.foreign, rates, start, ends, tolerance, own)
        self.stepping.stats.n_accepted_backward += own.n_accepted
        carrier.landed(i - 1, pair, True)
        return pair[1], theta


class InterpolatingWay(Way):
    """Solves backwards with the state from the forward solve's steps, which own their stages."""

    def __init__(self, dynamics: Dynamics, stepping: Stepping[Any, Any]):
        super().__init__(dynamics, stepping)
        self.steps: list[Any] = []

    def step(self, step: Step | SampleStep) -> None:
        """Keeps each step."""
        super().step(step)
        self.steps.append(step)

    def walk(self, seen: Seen, g: Rows, want_theta: bool) -> Result:
        """The gradients."""
        stepping, steps = self.stepping, self.steps
        self.check()
        observations = stepping.observations(seen, g)
        if not steps:  # no sample took one: all outputs are its start
            return torch.stack(tuple(observations.g[1:])).sum(0), ThetaSum(self.dynamics).result()
        past, dt = stepping.past(steps, observations)
        carrier = Interpolated(self.dynamics, observations, stepping, past)
        return ReverseSolve(carrier, want_theta=want_theta, dt=dt).run()


def record_continuous(
    dynamics: Dynamics, gradient: Backsolve | Interpolating, stepping: Stepping[Any, Any]
) -> Recording:
    """The recording of a continuous adjoint."""
    if isinstance(stepping, PerSample) and isinstance(dynamics, AutogradDynamics):
        dynamics.weigh_late()
    if isinstance(gradient, Interpolating):
        way = InterpolatingWay(dynamics, stepping)
        return Recording(way, way.walk, dense=True)
    foreign = getattr(stepping.backward, "foreign", None)  # with a clock a sample there is none
    if foreign is not None:
        theirs = ForeignWay(dynamics, stepping, foreign, gradient.reconstruction_limit)
        return Recording(theirs, theirs.walk)
    back = BacksolveWay(dynamics, stepping, gradient)
    return Recording(back, back.walk)
