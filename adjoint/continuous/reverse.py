"""The reverse solve that both continuous adjoints share: interval by interval, with jumps.

From the last observation to the first the adjoint equation is solved by the forward integrator;
a jumps by g_i at t_i. dL/dθ is a quadrature with the step's own weights b_i over accepted steps: the
same numbers as a θ component of the state would have, without θ in the state.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor

from ...solvers.errors import SolverError
from ...solvers.march.host import Stats
from ...solvers.march.output import Step
from ...solvers.solve import Settings, forward_solve
from ...solvers.step.norms import Norm, Tolerance, combine_errors
from ...solvers.step.runge_kutta import Field
from ..dynamics.protocol import Dynamics, ThetaSum

# (scaled errors of z, of a, of θ's adjoints) → 0-d
ThetaNorm = Callable[[Tensor, Tensor, list[Tensor]], Tensor]
# time, adjoint there, the state solved backwards (None where it is not)
Watch = Callable[[float, Tensor, "Tensor | None"], None]


class Carrier(Protocol):
    """What is solved backwards: [z, a] together, or a alone."""

    @property
    def field(self) -> Field:
        """The reverse dynamics, and what the quadrature needs."""

    @property
    def norm(self) -> Norm:
        """By which its steps are judged."""

    def start(self, i: int, a: Tensor) -> Tensor:
        """The state of the reverse solve at observation i."""

    def adjoint(self, state: Tensor) -> Tensor:
        """a in that state."""

    def rebuilt(self, state: Tensor) -> Tensor | None:
        """z in that state, where it is solved backwards."""

    def landed(self, i: int, state: Tensor) -> None:
        """The solve has reached observation i."""

    def explained(self, i: int, error: SolverError) -> SolverError:
        """A failure on the way to observation i, said to be the reverse solve's."""


@dataclasses.dataclass
class ReverseSolve:
    """One reverse solve over observations (times, cotangents g).

    carrier: what is solved.  first_dt: |dt| to begin with, or None for Hairer's.
    observers: keyword arguments of `forward_solve` (callbacks).  theta_norm: judges steps by (z, a,
    θ's adjoints); θ's errors are computed for it, and only then.  watch: sees every accepted step.
    """

    dynamics: Dynamics
    carrier: Carrier
    settings: Settings
    times: Sequence[float]
    g: Sequence[Tensor]
    stats: Stats
    want_theta: bool = True
    first_dt: float | None = None
    observers: dict[str, Any] = dataclasses.field(default_factory=dict)
    theta_norm: ThetaNorm | None = None
    watch: Watch | None = None

    def __post_init__(self) -> None:
        self.theta = ThetaSum(self.dynamics, wanted=self.want_theta)
        numeric = self.settings.tableau.numeric(self.g[0].dtype, self.g[0].device)
        self.b_index, self.b = numeric.b_index, numeric.b_nonzero

    def run(self) -> Tensor:
        """dL/dz at the start, without the cotangent of the output there; fills `theta`."""
        a = self.g[-1]
        settings = dataclasses.replace(self.settings, norm=self.carrier.norm, dt0=self.first_dt)
        for i in range(len(self.times) - 1, 0, -1):
            if self.times[i] != self.times[i - 1]:  # equal: an event at an observation
                a, settings = self._interval(i, a, settings)
            if i > 1:
                a = a + self.g[i - 1]
        return a

    def _interval(self, i: int, a: Tensor, settings: Settings) -> tuple[Tensor, Settings]:
        """From observation i to the one before; the step size goes on as it was."""
        own = Stats()
        start = self.carrier.start(i, a)
        if self.watch is not None:
            self.watch(self.times[i], a, self.carrier.rebuilt(start))
        try:
            run = forward_solve(
                self.carrier.field,
                start,
                [self.times[i], self.times[i - 1]],
                settings,
                own,
                hooks=[self._accumulate],
                judge=None if self.theta_norm is None else self._judge_with_theta,
                **self.observers,
            )
        except SolverError as error:
            raise self.carrier.explained(i - 1, error) from error
        self.stats.nfe_backward += own.nfe  # made inside compiled programs; the field counts the others
        self.stats.n_accepted_backward += own.n_accepted
        self.stats.n_rejected_backward += own.n_rejected
        state = run.values[-1]
        self.carrier.landed(i - 1, state)
        return self.carrier.adjoint(state), dataclasses.replace(settings, dt0=own.dt_last)

    def _accumulate(self, step: Step) -> None:
        """The quadrature of an accepted step: Σ −dt b_i (∂F/∂θ)ᵀa_i; dt is negative in reverse."""
        parts = [step.saved[i] for i in self.b_index]
        self.theta.add([saved for saved, _ in parts], [deltas for _, deltas in parts], self.b * -step.dt)
        if self.watch is not None:
            self.watch(step.t1, self.carrier.adjoint(step.y1), self.carrier.rebuilt(step.y1))

    def _judge_with_theta(self, step: Step) -> Tensor:
        """The error ratio of a norm that sees θ's adjoints as if they were part of the state."""
        assert self.theta_norm is not None
        tolerance, numeric = self.settings.tolerance, step.result.stages.numeric
        scale = tolerance.scale(step.y0, step.y1)
        saved = [saved for saved, _ in step.saved]
        deltas = [deltas for _, deltas in step.saved]

        def theta_sum(weights: Tensor) -> list[Tensor]:
            total = ThetaSum(self.dynamics)
            total.add(saved, deltas, weights * -step.dt)
            return total.result()

        before = self.theta.result()
        after = [x + dx for x, dx in zip(before, theta_sum(numeric.b), strict=True)]
        smallest = Tolerance(
            *(x.min() if isinstance(x, Tensor) else x for x in (tolerance.rtol, tolerance.atol))
        )
        scales = [smallest.scale(x, y) for x, y in zip(before, after, strict=True)]
        norms = []
        for error, row in zip(step.result.stages.errors(), numeric.errors, strict=True):
            theta = [e / s for e, s in zip(theta_sum(row), scales, strict=True)]
            scaled = error / scale
            norms.append(self.theta_norm(scaled[0], scaled[1], theta))
        return combine_errors(norms)
