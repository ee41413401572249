"""The reverse solve that both continuous adjoints share: interval by interval, with jumps.

From the last observation to the first the adjoint equation is solved by the forward integrator;
a jumps by g_i at t_i. dL/dθ is a quadrature with each step's own weights b_i over accepted steps: the
same numbers as a θ component of the state would have, without θ in the state. With a step size a sample it
is one sum for the whole batch, where a component would need one copy of θ a sample.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...solvers.errors import SolverError
from ...solvers.march.output import Step
from ...solvers.march.samples import SampleStep
from ...solvers.step.clocks import Tolerance, combine_errors
from ..dynamics.adapt import ThetaSum
from ..recording import Recorder, Result
from .carrier import Carrier
from .stepping import Interval


class ReverseSolve(Recorder):
    """One reverse solve over a carrier's observations; it records its own steps.

    want_theta: whether θ's gradients are wanted.
    dt: |dt| to begin with, or None for Hairer's.
    """

    def __init__(self, carrier: Carrier, *, want_theta: bool, dt: Any = None):
        self.carrier, self.stepping, self.seen, self.dt = carrier, carrier.stepping, carrier.seen, dt
        self.theta = ThetaSum(carrier.dynamics, wanted=want_theta)

    def run(self) -> Result:
        """dL/dz at the start, without the cotangent of the output there, and θ's gradients."""
        g = self.seen.g
        a = g[-1]
        for i in range(len(g) - 1, 0, -1):
            a = self._interval(i, a)
            if i > 1:
                a = a + g[i - 1]
        return a, self.theta.result()

    def _interval(self, i: int, a: Tensor) -> Tensor:
        """From observation i to the one before; the step size goes on as it was."""
        carrier, stepping, times = self.carrier, self.stepping, self.seen.times
        moved: bool | Tensor = times[i] != times[i - 1]
        if moved is False:  # an event at an observation
            return a
        pair = carrier.start(i, a)
        if stepping.reverse.watch is not None:
            stepping.reverse.watch(times[i], a, carrier.rebuilt(pair))
        judge = None if stepping.reverse.theta_norm is None else self._judge
        try:
            pair, self.dt = stepping.solve(carrier, pair, Interval(times, i, self.dt, self, judge))
        except SolverError as error:
            raise carrier.explained(error, i - 1) from error
        carrier.landed(i - 1, pair, moved)
        return stepping.clocks.choose(None if moved is True else moved, pair[1], a)

    def step(self, step: Step | SampleStep) -> None:
        """Adds −dt Σ b_i (∂F/∂θ)ᵀa_i of an accepted step, or of the samples that accepted an attempt."""
        b, parts = step.result.quadrature  # dt is negative in reverse
        if isinstance(step, SampleStep):
            weights = -b[:, None] * torch.where(step.accepted, step.t1 - step.t0, 0.0).to(b.dtype)
        else:
            weights = b * -step.dt
        self.theta.add([saved for saved, _ in parts], [deltas for _, deltas in parts], weights)
        if self.stepping.reverse.watch is not None and isinstance(step, Step):
            self.stepping.reverse.watch(step.t1, step.y1[1], self.carrier.rebuilt(step.y1))

    def _judge(self, step: Step) -> Tensor:
        """The error ratio by a norm that sees θ's adjoints as if they were part of the state, 0-d."""
        norm, tolerance = self.stepping.reverse.theta_norm, self.stepping.backward.tolerance
        assert norm is not None
        saved, deltas = [s for s, _ in step.saved], [d for _, d in step.saved]

        def theta_sum(weights: Tensor) -> list[Tensor]:
            total = ThetaSum(self.carrier.dynamics)
            total.add(saved, deltas, weights * -step.dt)
            return total.result()

        numeric = step.tableau.numeric(step.y0.dtype, step.y0.device)
        before, both = self.theta.result(), (tolerance.rtol, tolerance.atol)
        rtol, atol = (x.min() if isinstance(x, Tensor) else x for x in both)
        smallest = Tolerance(rtol, atol)
        after = [x + dx for x, dx in zip(before, theta_sum(numeric.b), strict=True)]
        scales = [smallest.scale(x, y) for x, y in zip(before, after, strict=True)]
        scale, norms = tolerance.scale(step.y0, step.y1), []
        for error, row in zip(step.result.stages.errors(), numeric.errors, strict=True):
            theta = [e / s for e, s in zip(theta_sum(row), scales, strict=True)]
            scaled = error / scale
            norms.append(norm(scaled[0], scaled[1], theta))
        return combine_errors(norms)
