"""The continuous adjoint, with the state solved backwards beside it.

    d/dt (z, a) = (F(t, z), −(∂F/∂z)ᵀ a),    dL/dθ = ∫_{t0}^{tn} (∂F/∂θ)ᵀ a dt

from tn to t0, in one call of the forward integrator between two observations; a jumps by g_i at
t_i. The stored z(t_i) is put back there, which confines the drift to one interval, and the distance
is recorded as the reconstruction error. dL/dθ is a quadrature with the step's own weights b_i over
accepted steps: the same numbers as a θ component of the state would have, without θ in the state.

Sources: R. T. Q. Chen et al., Neural ordinary differential equations, NeurIPS 2018, App. B; for the
seminorm P. Kidger, R. T. Q. Chen, T. Lyons, "Hey, that's not an ODE", ICML 2021.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..solvers.errors import ReconstructionError, SolverError, solver_error
from ..solvers.loop import Stats
from ..solvers.norms import Norm, Tolerance, combine_errors, largest
from ..solvers.solve import Settings, forward_solve
from ..solvers.stepper import Step
from .dynamics import Dynamics
from .quadrature import ThetaSum

# (scaled errors of z, of a, of θ's adjoints) → 0-d
ThetaNorm = Callable[[Tensor, Tensor, list[Tensor]], Tensor]


class AugmentedField:
    """F on [z, a] stacked along a new first axis: the reverse solve's dynamics."""

    def __init__(self, dynamics: Dynamics, stats: Stats):
        self.dynamics, self.stats = dynamics, stats

    def __call__(self, t: Tensor, za: Tensor) -> tuple[Tensor, tuple[Any, Any]]:
        """(dz, −(∂F/∂z)ᵀa), and what the quadrature needs."""
        self.stats.nfe_backward += 1
        dz, saved = self.dynamics.forward(t, za[0])
        z_bar, deltas = self.dynamics.vjp(saved, za[1])
        return torch.stack((dz, z_bar.neg())), (saved, deltas)


def seminorm(norm: Norm) -> Norm:
    """The larger of the norms of z and of a."""
    return lambda za: largest((norm(za[0]), norm(za[1])))


@dataclasses.dataclass
class BacksolveWalk:
    """One reverse solve.

    settings: of the reverse solve, its norm that of one half.  times, values: the stored outputs.
    g: their cotangents.  too_far: called with a ReconstructionError where the limit is exceeded.
    observers: keyword arguments of `forward_solve` (callbacks).
    theta_norm: judges steps by (z, a, θ's adjoints); θ's errors are computed for it, and only then.
    """

    dynamics: Dynamics
    settings: Settings
    times: Sequence[float]
    values: Sequence[Tensor]
    g: Sequence[Tensor]
    stats: Stats
    limit: float
    too_far: Callable[[ReconstructionError], None]
    want_theta: bool = True
    observers: dict[str, Any] = dataclasses.field(default_factory=dict)
    theta_norm: ThetaNorm | None = None

    def __post_init__(self) -> None:
        self.theta = ThetaSum(self.dynamics, wanted=self.want_theta)
        self.field = AugmentedField(self.dynamics, self.stats)
        numeric = self.settings.tableau.numeric(self.g[0].dtype, self.g[0].device)
        self.b_index, self.b = numeric.b_index, numeric.b_nonzero

    def run(self) -> Tensor:
        """dL/dz at the start, without the cotangent of the output there; fills `theta`."""
        a = self.g[-1]
        settings = dataclasses.replace(self.settings, norm=seminorm(self.settings.norm))
        distances = []
        for i in range(len(self.times) - 1, 0, -1):
            if self.times[i] == self.times[i - 1]:  # an event at an observation
                a = a + self.g[i - 1] if i > 1 else a
                continue
            start = torch.stack((self.values[i], a))
            span = [self.times[i], self.times[i - 1]]
            own = Stats()
            try:
                run = forward_solve(
                    self.field,
                    start,
                    span,
                    settings,
                    own,
                    hooks=[self._accumulate],
                    judge=None if self.theta_norm is None else self._judge_with_theta,
                    **self.observers,
                )
            except SolverError as error:
                raise self._explained(error) from error
            self.stats.n_accepted_backward += own.n_accepted
            self.stats.n_rejected_backward += own.n_rejected
            settings = dataclasses.replace(settings, dt0=own.dt_last)  # the flow goes on as it was
            back, a = run.values[-1][0], run.values[-1][1]
            distances.append(self._distance(back, self.values[i - 1]))
            if i > 1:
                a = a + self.g[i - 1]
        self._judge(distances)
        return a

    def _accumulate(self, step: Step) -> None:
        """The quadrature of an accepted step: Σ −dt b_i (∂F/∂θ)ᵀa_i; dt is negative in reverse."""
        parts = [step.saved[i] for i in self.b_index]
        self.theta.add([saved for saved, _ in parts], [deltas for _, deltas in parts], self.b * -step.dt)

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
        smallest = Tolerance(*(torch.as_tensor(x).min() for x in (tolerance.rtol, tolerance.atol)))
        scales = [smallest.scale(x, y) for x, y in zip(before, after, strict=True)]
        norms = []
        for error, row in zip(step.result.stages.errors(), numeric.errors, strict=True):
            theta = [e / s for e, s in zip(theta_sum(row), scales, strict=True)]
            scaled = error / scale
            norms.append(self.theta_norm(scaled[0], scaled[1], theta))
        return combine_errors(norms)

    def _distance(self, back: Tensor, stored: Tensor) -> Tensor:
        tolerance: Tolerance = self.settings.tolerance
        return self.settings.norm((back - stored) / tolerance.scale(stored))

    def _judge(self, distances: list[Tensor]) -> None:
        """Compares the reconstruction error with its limit; one host read a backward pass."""
        per_interval = torch.stack(distances).tolist()  # host read
        worst = max(range(len(per_interval)), key=lambda i: per_interval[i])
        self.stats.reconstruction_error = per_interval[worst]
        if not per_interval[worst] <= self.limit:
            i = len(self.times) - 2 - worst
            self.too_far(
                ReconstructionError(
                    f"backsolve: solved backwards to t={self.times[i]:.6g}, the state is "
                    f"{per_interval[worst]:.3g} tolerances (RMS) from the stored one; the limit is "
                    f"{self.limit:g}. The gradient cannot be trusted there: use "
                    "gradient=adamode.Discrete() (adamode.solve), which takes the state from the "
                    "forward pass, or a tighter tolerance, or raise reconstruction_limit."
                )
            )

    def _explained(self, error: SolverError) -> SolverError:
        """The reverse solve's failure, said to be that."""
        detail = (
            "This is the reverse solve of backsolve, which rebuilds the state backwards and may leave "
            "the domain of the dynamics where the forward solve did not: "
            "adamode.solve(..., gradient=adamode.Discrete()) does not rebuild it."
        )
        return solver_error(error.t, error.dt, error.status, error.stats, detail)
