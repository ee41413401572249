"""The continuous adjoint with the state taken from the forward pass's dense output.

    d/dt (q, a) = (F, −(∂F/∂z)ᵀ a) at (t, z(t)),    z(t) = the interpolant of the accepted steps

Memory grows with the number of steps; nothing is rebuilt, so the reverse solve cannot drift from the
forward solution or leave its domain. q serves the step sizes alone: a may be constant where F, and with
it ∂F/∂θ, varies (y' = c (1 + sin 20t)), and steps that a alone is content with would leave dL/dθ, a
quadrature on them, without any control. F is evaluated anyway.

Source: J. Rackauckas et al., A comparison of automatic differentiation and continuous sensitivity
analysis for derivatives of differential equation solutions, 2018 (there "interpolating adjoint").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...solvers.errors import SolverError, solver_error
from ...solvers.march.dense import DenseOutput
from ...solvers.march.host import Stats
from ...solvers.step.norms import Norm
from ..dynamics.protocol import Dynamics
from .backsolve import seminorm


class InterpolatedField:
    """(F, −(∂F/∂z)ᵀa) at z(t). The stepper announces times as floats: none is read from the device."""

    def __init__(self, dynamics: Dynamics, dense: DenseOutput, stats: Stats):
        self.dynamics, self.dense, self.stats = dynamics, dense, stats
        self._times: list[float] = []

    def prepare(self, times: Sequence[float]) -> None:
        """The times of the next calls, in order."""
        self._times = list(times)

    def __call__(self, t: Tensor, qa: Tensor) -> tuple[Tensor, tuple[Any, Any]]:
        """(F, −(∂F/∂z)ᵀa), and what the quadrature needs."""
        self.stats.nfe_backward += 1
        dz, saved = self.dynamics.forward(t, self.dense.value(self._times.pop(0)))
        z_bar, deltas = self.dynamics.vjp(saved, qa[1])
        return torch.stack((dz, z_bar.neg())), (saved, deltas)


class AdjointAtState:
    """A Carrier of [q, a], [2, *z].

    norm: of one half.  values: the observations, at which q begins, so that its tolerance is the state's.
    """

    def __init__(
        self, dynamics: Dynamics, dense: DenseOutput, norm: Norm, values: Sequence[Tensor], stats: Stats
    ):
        self.field = InterpolatedField(dynamics, dense, stats)
        self.norm, self.values = seminorm(norm), values

    def start(self, i: int, a: Tensor) -> Tensor:
        """q begins at the stored state."""
        return torch.stack((self.values[i], a))

    def adjoint(self, state: Tensor) -> Tensor:
        """a."""
        return state[1]

    def rebuilt(self, state: Tensor) -> Tensor | None:
        """Nothing is rebuilt."""
        return None

    def landed(self, i: int, state: Tensor) -> None:
        """Nothing to compare."""

    def explained(self, i: int, error: SolverError) -> SolverError:
        """The reverse solve's failure, said to be that."""
        detail = (
            f"This is the reverse solve of the interpolating adjoint. {error.detail} "
            "adamode.solve(..., gradient=adamode.Discrete()) has no reverse solve that could fail."
        )
        return solver_error(error.t, error.dt, error.status, error.stats, detail)
