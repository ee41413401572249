"""The continuous adjoint, with the state solved backwards beside it.

    d/dt (z, a) = (F(t, z), −(∂F/∂z)ᵀ a),    dL/dθ = ∫_{t0}^{tn} (∂F/∂θ)ᵀ a dt

The stored z(t_i) is put back at every observation, which confines the drift to one interval, and the
distance is recorded as the reconstruction error.

Sources: R. T. Q. Chen et al., Neural ordinary differential equations, NeurIPS 2018, App. B; for the
seminorm P. Kidger, R. T. Q. Chen, T. Lyons, "Hey, that's not an ODE", ICML 2021.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...solvers.errors import ReconstructionError, SolverError
from ...solvers.march.host import Stats
from ...solvers.solve import Settings
from ...solvers.step.norms import Norm, largest
from ..dynamics.protocol import Dynamics
from .guard import distance, explain_failure, too_far_text


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


@functools.lru_cache(maxsize=16)  # one function for one norm: programs are known by it
def seminorm(norm: Norm) -> Norm:
    """The larger of the norms of z and of a."""
    return lambda za: largest((norm(za[0]), norm(za[1])))


class StateAndAdjoint:
    """A Carrier of [z, a], [2, *z].

    settings: of the reverse solve, its norm that of one half; distances are in its tolerance.
    times, values: the observations.
    forward_to: (i, t) → the state at t solved forwards from observation i, for error texts.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        settings: Settings,
        times: Sequence[float],
        values: Sequence[Tensor],
        stats: Stats,
        forward_to: Callable[[int, float], Tensor] | None = None,
    ):
        self.field = AugmentedField(dynamics, stats)
        self.norm = seminorm(settings.norm)
        self.dynamics, self.settings, self.times, self.values = dynamics, settings, times, values
        self.stats, self.forward_to = stats, forward_to
        self.distances: list[tuple[int, Tensor]] = []

    def start(self, i: int, a: Tensor) -> Tensor:
        """The stored state is put back."""
        return torch.stack((self.values[i], a))

    def adjoint(self, state: Tensor) -> Tensor:
        """a."""
        return state[1]

    def rebuilt(self, state: Tensor) -> Tensor | None:
        """z."""
        return state[0]

    def landed(self, i: int, state: Tensor) -> None:
        """Notes how far the rebuilt state is from the stored one."""
        self.distances.append((i, distance(state[0], self.values[i], self.settings)))

    def explained(self, i: int, error: SolverError) -> SolverError:
        """Where, which block and sample, how far off, and the way out."""
        return explain_failure(error, self.dynamics, self.settings, i, self.forward_to)

    def judge(self, limit: float) -> ReconstructionError | None:
        """Compares the reconstruction error with its limit; one host read a backward pass."""
        if not self.distances:
            return None
        found = torch.stack([d for _, d in self.distances]).tolist()  # host read
        worst = max(range(len(found)), key=lambda k: found[k] if found[k] == found[k] else math.inf)
        self.stats.reconstruction_error = found[worst]
        if found[worst] <= limit:
            return None
        time = self.times[self.distances[worst][0]]
        return ReconstructionError(too_far_text(time, found[worst], limit))
