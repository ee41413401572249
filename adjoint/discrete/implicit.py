"""The transpose of an implicit stage, by the implicit function theorem: no graph through Newton's iteration.

A stage k_i = F(t_i, Y_i), Y_i = … + dt γ k_i, with the cotangent k̄_i of k_i, gives

    (I − dt γ J_iᵀ) w_i = k̄_i,   Ȳ_i = J_iᵀ w_i,   θ̄ += (∂F/∂θ)ᵀ w_i,   J_i = ∂F/∂z at (t_i, Y_i)

so that w_i stands where an explicit stage has k̄_i. J_i is evaluated at the solved stage, not at the step's
start, and factored; what the system leaves is measured with the dynamics' own VJP, and corrected where it is
more than rounding: the gradient is that of the VJP, whatever gave J_i.

Sources: as in `walk`; A. Griewank, C. Faure, Reduced functions, gradients and Hessians from fixed-point
iterations for state equations, Numer. Algorithms 30 (2002) 113–139.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...solvers.errors import DynamicsError
from ...solvers.step.implicit.esdirk import clock_lengths
from ...solvers.step.implicit.linear import Factors
from .tape import Attempt, Solved

ROUNDS = 20  # of correction; one is the rule
ROUNDING = 1e2  # in units of eps: what a system may leave without a correction
LOST = 1e-2  # √eps times so much is no solution any more


class StageSystems:
    """The stages of one implicit step.

    dt: as it broadcasts against the state.
    pull: (stage, w) → J_iᵀ w, and collects what θ gets of it.
    """

    def __init__(self, solved: Solved, attempt: Attempt, dt: Tensor, pull: Callable[[int, Tensor], Tensor]):
        assert solved.implicit is not None
        assert attempt.points is not None
        self.solved, self.attempt, self.dt, self.explicit = solved, attempt, dt, pull
        self.jacobian, self.points = solved.implicit[0], attempt.points
        self.times = attempt.stage_times(solved.tableau, attempt.points[0])

    def pull(self, i: int, cotangent: Tensor) -> Tensor:
        """The cotangent Ȳ_i of a stage's state, from that of its slope."""
        gamma = self.solved.numeric.diagonal[i]
        if gamma == 0.0:
            return self.explicit(i, cotangent)
        factors, length = self._factors(i, gamma), self.dt * gamma
        w = factors.solve_transposed(cotangent)
        bar = self.explicit(i, w)
        eps = torch.finfo(w.dtype).eps
        for _ in range(ROUNDS + 1):
            left = cotangent - w + length * bar
            scale = torch.stack((cotangent.abs().amax(), w.abs().amax()))
            off, *sizes = torch.cat((left.abs().amax()[None], scale)).tolist()  # host read
            if off <= ROUNDING * eps * max(sizes):
                return bar
            delta = factors.solve_transposed(left)
            w, bar = w + delta, bar + self.explicit(i, delta)
        if not off <= LOST * eps**0.5 * max(sizes):
            raise DynamicsError(
                f"the transposed equations of a step could not be solved: {off / max(sizes):.2g} of the "
                "cotangent is left. The Jacobian (jac, or the dynamics' own) is not that of func's VJP: "
                "leave jac out, or compare both with adamode.check_vjp."
            )
        return bar

    def _factors(self, i: int, gamma: float) -> Factors:
        """Of I − dt γ J at the solved stage; a sample that did not accept has the identity."""
        which, start = self.attempt.who.which, self.points[0]
        y = self.solved.clocks.choose(which, self.points[i], start)
        self.solved.stats.nfe_recomputed += self.jacobian.calls_f
        blocks = self.jacobian(self.times[i], y)
        span = clock_lengths(self.dt if which is not None else self.dt.reshape(()), y)
        return Factors(self.jacobian.samples, blocks, span * gamma)
