"""The transpose of a Rosenbrock step, the derivative of its Jacobian included.

Of W x_i = f_i + g_i + dt γ_i ∂f/∂t, k_i = x_i − g_i, g_i = Σ_{j<i} (γ_ij/γ) k_j, W = I − dt γ J, from the
last stage to the first, given λ = dL/dy1:

    k̄_i = dt (b_i λ + Σ_{j>i} α_ji Ȳ_j) + Σ_{j>i} (γ_ji/γ) (r_j − k̄_j)
    Wᵀ r_i = k̄_i,   Ȳ_i = (∂f/∂y)ᵀ|_{Y_i} r_i,   dL/dy = λ + Σ_i Ȳ_i

and besides, since J and ∂f/∂t are those of (t, y), dL/dy and dL/dθ have the derivatives of one number,

    S = dt γ Σ_i r_iᵀ (J x_i + (γ_i/γ) ∂f/∂t)

by y and by θ, with r and x held fixed: directional derivatives of f along all x_i in one batched call, and
one pass back through it.

Sources: as in `walk`; D. N. Daescu, A. Sandu, G. R. Carmichael, Direct and adjoint sensitivity analysis of
chemical kinetic systems with KPP II, Atmos. Environ. 37 (2003) 5097–5114.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...solvers.step.implicit.esdirk import clock_lengths
from ...solvers.step.implicit.linear import Factors
from ...solvers.step.implicit.rosenbrock import coupling_of
from .tape import Attempt, Inside, Solved

Gradients = Sequence[Tensor | None]


class LinearStages:
    """The stages of one Rosenbrock step.

    dt: as it broadcasts against the state.
    pull: (stage, w) → (∂f/∂y)ᵀ w there, and collects what θ gets of it.
    wanted: whether θ's gradients are.
    """

    def __init__(
        self,
        solved: Solved,
        attempt: Attempt,
        dt: Tensor,
        pull: Callable[[int, Tensor], Tensor],
        wanted: bool,
    ):
        assert solved.implicit is not None
        assert attempt.points is not None
        assert attempt.found is not None
        self.solved, self.attempt, self.dt, self.pull, self.wanted = solved, attempt, dt, pull, wanted
        self.jacobian, self.by = solved.implicit[0], coupling_of(attempt.tableau)
        self.y, self.found = attempt.points[0].detach(), attempt.found
        self.time = attempt.stage_times(self.y)[0]
        self.span = clock_lengths(dt if attempt.who.which is not None else dt.reshape(()), self.y)

    def back(
        self, lam: Tensor, held: Tensor | None, inside: Inside | None
    ) -> tuple[Tensor, Tensor, Gradients]:
        """`step_back`, and what θ gets of S."""
        tableau, dt = self.attempt.tableau, self.dt
        numeric, last = self.attempt.numeric(lam), tableau.n_stages - 1
        own: list[Tensor | None] = [None] * (last + 1) if inside is None else list(inside[0])
        for cotangent in (held, own[last]):
            if cotangent is not None:
                lam = lam + self.pull(last, cotangent)
        k_bar = [lam * (float(w) * dt) for w in tableau.b]
        k_bar = [x if more is None else x + more for x, more in zip(k_bar, own[:last], strict=True)]
        total, pulled = lam if inside is None else lam + inside[1], []
        factors = self._factors()
        for i in range(last - 1, 0, -1):
            r = factors.solve_transposed(k_bar[i])
            for j, w in self.by.rows[i]:
                k_bar[j] = k_bar[j] + w * (r - k_bar[i])
            if self.by.known[i]:
                k_bar[0] = k_bar[0] + r
            else:
                bar = self.pull(i, r)
                total = total + bar
                for j, w in numeric.a_rows[i]:
                    k_bar[j] = k_bar[j] + bar * (w * dt)
            pulled.append(r * (self.by.gamma * dt))
        bar, gradients = self._through_the_jacobian(pulled[::-1])
        return total + bar, k_bar[0], gradients

    def _factors(self) -> Factors:
        self.solved.stats.nfe_recomputed += self.jacobian.calls_f
        with torch.no_grad():
            blocks = self.jacobian(self.time, self.y)
        return Factors(self.jacobian.samples, blocks, self.span * self.by.gamma)

    def _through_the_jacobian(self, cotangents: Sequence[Tensor]) -> tuple[Tensor, Gradients]:
        """The derivatives of S."""
        stats, clocks, which = self.solved.stats, self.solved.clocks, self.attempt.who.which
        stats.nfe_recomputed, stats.nfe_backward = stats.nfe_recomputed + 1, stats.nfe_backward + 1
        # What a sample left that did not accept may be no number.
        along = [clocks.choose(which, x, torch.zeros_like(x)) for x in self.found]
        in_time = [w / self.by.gamma for w in self.by.in_time[1 : len(along) + 1]]
        theta = self.solved.dynamics.theta() if self.wanted else ()
        y, reached = self.y.detach().requires_grad_(), [p for p in theta if p.requires_grad]
        with torch.enable_grad():
            s = self.jacobian.contracted(self.time, y, cotangents, along, in_time)
        if not s.requires_grad:  # f is linear, of constants
            return torch.zeros_like(y), [None] * len(theta)
        bar, *rest = torch.autograd.grad(s, (y, *reached), allow_unused=True)
        by_id = {id(p): g for p, g in zip(reached, rest, strict=True)}
        return torch.zeros_like(y) if bar is None else bar, [by_id.get(id(p)) for p in theta]
