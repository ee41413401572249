"""The transpose of an implicit stage, by the implicit function theorem: no graph through Newton's iteration.

A stage k_i = F(t_i, Y_i), Y_i = … + dt γ k_i, with the cotangent k̄_i of k_i, gives

    (I − dt γ J_iᵀ) w_i = k̄_i,   Ȳ_i = J_iᵀ w_i,   θ̄ += (∂F/∂θ)ᵀ w_i,   J_i = ∂F/∂z at (t_i, Y_i)

so that w_i stands where an explicit stage has k̄_i. J_i is evaluated at the solved stage, not at the step's
start, and factored; what the system leaves is measured with the dynamics' own VJP, and corrected where it is
more than rounding: the gradient is that of the VJP, whatever gave J_i. A solve without matrices has GMRES for
the systems, whose products are the VJP itself.

Sources: as in `walk`; A. Griewank, C. Faure, Reduced functions, gradients and Hessians from fixed-point
iterations for state equations, Numer. Algorithms 30 (2002) 113–139.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from ...solvers.errors import DynamicsError
from ...solvers.step.implicit.esdirk import clock_lengths
from ...solvers.step.implicit.krylov import solve_transposed
from ...solvers.step.implicit.linear import Factors
from ...solvers.step.implicit.radau import coupled_matrix
from ...solvers.step.implicit.samples import Samples
from .tape import Attempt, Inside, Solved

Pull = Callable[[int, Tensor], Tensor]
ROUNDS = 20  # of correction; one is the rule
ROUNDING = 1e2  # in units of eps: what a system may leave without a correction
LOST = 1e-2  # √eps times so much is no solution any more


class StageSystems:
    """The stages of one implicit step.

    dt: as it broadcasts against the state.
    pull: (stage, w) → J_iᵀ w, and collects what θ gets of it.
    bare: as pull, and collects nothing.
    """

    def __init__(self, solved: Solved, attempt: Attempt, dt: Tensor, pull: Pull, bare: Pull):
        assert solved.implicit is not None
        assert attempt.points is not None
        self.solved, self.attempt, self.dt = solved, attempt, dt
        self.explicit, self.bare = pull, bare
        self.jacobian, self.points = solved.implicit[0], attempt.points
        self.times = attempt.stage_times(attempt.points[0])
        self.span = clock_lengths(dt if attempt.who.which is not None else dt.reshape(()), attempt.points[0])

    def pull(self, i: int, cotangent: Tensor) -> Tensor:
        """The cotangent Ȳ_i of a stage's state, from that of its slope."""
        gamma = self.attempt.numeric(cotangent).diagonal[i]
        if gamma == 0.0:
            return self.explicit(i, cotangent)
        length = self.dt * gamma
        if self.jacobian.free:
            through = functools.partial(self.bare, i)
            return self.explicit(i, solve_transposed(through, self._samples(), length, cotangent))
        return solved_for(
            cotangent,
            Factors(self._samples(), self._block(i), self.span * gamma).solve_transposed,
            lambda w: self.explicit(i, w),
            lambda w, bar: cotangent - w + length * bar,
        )

    def back(self, lam: Tensor, held: Tensor | None, inside: Inside | None) -> tuple[Tensor, Tensor]:
        """`step_back` of a step whose stages are coupled: with all their J_i,

        w_i − dt Σ_j a_ji J_jᵀ w_j = k̄_i,   k̄_i = dt b_i λ + …,   dL/dy = λ + Σ_j J_jᵀ w_j
        """
        numeric, dt, tableau = self.attempt.numeric(lam), self.dt, self.attempt.tableau
        n = tableau.n_stages
        k_bar = [lam * (float(w) * dt) for w in tableau.b]
        if inside is not None:
            k_bar = [x if own is None else x + own for x, own in zip(k_bar, inside[0], strict=True)]
            lam = lam + inside[1]
        if held is not None:
            k_bar[-1] = k_bar[-1] + held
        a, like = numeric.a[1:n, 1:n], lam
        blocks = [self._block(i) for i in range(1, n)]
        samples = self._samples()
        lu, pivots, _ = torch.linalg.lu_factor_ex(coupled_matrix(a, blocks, self.span))

        def solve(cotangents: Tensor) -> Tensor:
            rows = torch.cat([samples.rows(x) for x in cotangents.unbind()], 1)[..., None]
            found = torch.linalg.lu_solve(lu, pivots, rows, adjoint=True)[..., 0]
            return torch.stack([samples.state(part, like) for part in found.chunk(n - 1, 1)])

        def through(w: Tensor) -> Tensor:
            return torch.stack([self.explicit(i, own) for i, own in enumerate(w.unbind(), 1)])

        cotangents = torch.stack(k_bar[1:])
        bars = solved_for(
            cotangents, solve, through, lambda w, bar: cotangents - w + dt * torch.tensordot(a.t(), bar, 1)
        )
        return lam + bars.sum(0), k_bar[0]

    def _samples(self) -> Samples:
        return self.jacobian.samples

    def _block(self, i: int) -> Tensor:
        """J at a solved stage; of a sample that did not accept at its start."""
        y = self.solved.clocks.choose(self.attempt.who.which, self.points[i], self.points[0])
        self.solved.stats.nfe_recomputed += self.jacobian.calls_f
        return self.jacobian(self.times[i], y)


def solved_for(
    cotangent: Tensor,
    solve: Callable[[Tensor], Tensor],
    through: Callable[[Tensor], Tensor],
    left_by: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Jᵀ w of the solution w of a transposed system, corrected until rounding is left. A host read a round.

    solve: by the factors.
    through: w → Jᵀ w by the dynamics' VJP.
    left_by: (w, Jᵀ w) → what the equations leave.
    """
    w = solve(cotangent)
    bar, eps = through(w), torch.finfo(w.dtype).eps
    for _ in range(ROUNDS + 1):
        left = left_by(w, bar)
        scale = torch.stack((left.abs().amax(), cotangent.abs().amax(), w.abs().amax()))
        off, *sizes = scale.tolist()  # host read
        if off <= ROUNDING * eps * max(sizes):
            return bar
        delta = solve(left)
        w, bar = w + delta, bar + through(delta)
    if not off <= LOST * eps**0.5 * max(sizes):
        raise DynamicsError(
            f"the transposed equations of a step could not be solved: {off / max(sizes):.2g} of the "
            "cotangent is left. The Jacobian (jac, or the dynamics' own) is not that of func's VJP: leave "
            "jac out, or compare both with adamode.check_vjp."
        )
    return bar
