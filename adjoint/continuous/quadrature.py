"""dL/dθ beside a reverse solve: a quadrature with each step's own weights b_i over accepted steps.

The same numbers as a θ component of the state would have, without θ in the state; with a step size a sample
it is one sum for the whole batch, where a component would need one copy of θ a sample.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...solvers.march.output import Step
from ...solvers.march.samples import SampleStep
from ...solvers.methods.tableau import Numeric
from ...solvers.step.norms import Tolerance, combine_errors
from ..dynamics.protocol import ThetaSum
from ..recording import Recorder
from .carrier import Carrier

# (scaled errors of z, of a, of θ's adjoints) → 0-d
ThetaNorm = Callable[[Tensor, Tensor, list[Tensor]], Tensor]
# time, adjoint there, the state solved backwards (None where it is not)
Watch = Callable[[float, Tensor, "Tensor | None"], None]


class Quadrature(Recorder):
    """Sums −dt Σ b_i (∂F/∂θ)ᵀa_i over accepted steps; dt is negative in reverse.

    carrier: what is solved.  numeric: of the reverse solve's method.
    wanted: False skips the sum.  watch: sees each step's end (shared steps).
    """

    def __init__(self, carrier: Carrier, numeric: Numeric, *, wanted: bool, watch: Watch | None):
        self.carrier, self.numeric, self.watch = carrier, numeric, watch
        self.theta = ThetaSum(carrier.dynamics, wanted=wanted)

    def step(self, step: Step | SampleStep) -> None:
        """Adds an accepted step, or what an attempt is for the samples that accepted it."""
        b = self.numeric.b_nonzero
        parts = [step.result.saved[i] for i in self.numeric.b_index]
        if isinstance(step, SampleStep):
            dt = torch.where(step.accepted, step.t1 - step.t0, 0.0).to(b.dtype)
            weights = -b[:, None] * dt
        else:
            weights = b * -step.dt
        self.theta.add([saved for saved, _ in parts], [deltas for _, deltas in parts], weights)
        if self.watch is not None and isinstance(step, Step):
            pair = step.result.y1
            self.watch(step.t1, pair[1], self.carrier.rebuilt(pair))

    def error_ratio(self, norm: ThetaNorm, tolerance: Tolerance, step: Step) -> Tensor:
        """That of a step by a norm that sees θ's adjoints as if they were part of the state, 0-d."""
        saved = [saved for saved, _ in step.saved]
        deltas = [deltas for _, deltas in step.saved]

        def theta_sum(weights: Tensor) -> list[Tensor]:
            total = ThetaSum(self.carrier.dynamics)
            total.add(saved, deltas, weights * -step.dt)
            return total.result()

        before, stages = self.theta.result(), step.result.stages
        after = [x + dx for x, dx in zip(before, theta_sum(self.numeric.b), strict=True)]
        smallest = Tolerance(
            *(x.min() if isinstance(x, Tensor) else x for x in (tolerance.rtol, tolerance.atol))
        )
        scale = tolerance.scale(step.y0, step.y1)
        scales = [smallest.scale(x, y) for x, y in zip(before, after, strict=True)]
        norms = []
        for error, row in zip(stages.errors(), self.numeric.errors, strict=True):
            theta = [e / s for e, s in zip(theta_sum(row), scales, strict=True)]
            scaled = error / scale
            norms.append(norm(scaled[0], scaled[1], theta))
        return combine_errors(norms)
