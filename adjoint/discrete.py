"""The discrete adjoint: the exact derivative of the numbers that the forward solve computed.

For a step y1 = y + dt Σ b_i k_i, k_i = F(t_i, Y_i), Y_i = y + dt Σ_{j<i} a_ij k_j, given λ = dL/dy1,
from the last stage to the first:

    k̄_i = dt (b_i λ + Σ_{j>i} a_ji Ȳ_j),   Ȳ_i = (∂F/∂z)ᵀ|_{Y_i} k̄_i,   θ̄ += (∂F/∂θ)ᵀ|_{Y_i} k̄_i
    dL/dy = λ + Σ_i Ȳ_i

An output inside the step, y(t + θ dt) = y + dt Σ b_i(θ) k_i with cotangent g, adds dt b_i(θ) g to
k̄_i and g to dL/dy. The last stage is f(t1, y1), and the next step's first: its cotangent is handed
on to that step, where one VJP serves both. Step sizes count as constants.

Sources: A. Sandu, On the properties of Runge–Kutta discrete adjoints, ICCS 2006; W. W. Hager,
Runge–Kutta methods in optimal control and the transformed adjoint system, Numer. Math. 87 (2000).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..solvers.interpolant import weights
from ..solvers.loop import Stats
from ..solvers.output import Place
from ..solvers.step import StageBuffer, dense_stages, rk_step
from ..solvers.stepper import stage_times
from ..solvers.tableau import Numeric, Tableau
from .dynamics import Dynamics
from .quadrature import ThetaSum
from .record import KeptStep, Tape


@dataclasses.dataclass
class Interior:
    """What the outputs inside one step add: to dL/dy, and to the stages' cotangents k̄_i."""

    y_bar: Tensor | None
    k_bar: list[Tensor | None]


class DiscreteWalk:
    """The walk backwards over one tape.

    g: cotangents of the outputs, one for each place.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        tableau: Tableau,
        tape: Tape,
        places: Sequence[Place],
        g: Sequence[Tensor],
        stats: Stats,
        *,
        want_theta: bool = True,
    ):
        self.dynamics, self.tableau, self.tape, self.g, self.stats = dynamics, tableau, tape, g, stats
        self.numeric: Numeric = tableau.numeric(g[0].dtype, g[0].device)
        self.theta = ThetaSum(dynamics, wanted=want_theta)
        self.ending: dict[int, list[int]] = {}
        self.inside: dict[int, list[tuple[int, float]]] = {}
        for i, place in enumerate(places):
            if place.theta == 1.0:
                self.ending.setdefault(place.step, []).append(i)
            else:
                self.inside.setdefault(place.step, []).append((i, place.theta))

    def run(self) -> Tensor:
        """dL/dz at the start, without the cotangent of the output there; fills `theta`."""
        lam = torch.zeros_like(self.g[0])
        n = len(self.tape.steps) - 1
        saved = self._saved(n) if n >= 0 else ()
        interior = self._interior(n, saved)
        while n >= 0:
            step = self.tape.steps[n]
            for i in self.ending.get(n, ()):
                lam = lam + self.g[i]
            saved_before = self._saved(n - 1) if n > 0 else ()
            before = self._interior(n - 1, saved_before)
            handed = None
            if step.chained and before is not None:
                last = self.tableau.n_stages - 1
                handed, before.k_bar[last] = before.k_bar[last], None
            lam = self._step(step, saved, lam, interior, handed)
            n, saved, interior = n - 1, saved_before, before
        return lam

    def _vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        self.stats.nfe_backward += 1
        return self.dynamics.vjp(saved, cotangent)

    def _saved(self, n: int) -> tuple[Any, ...]:
        """What each stage of step n saved, evaluated anew where only the state was kept."""
        step = self.tape.steps[n]
        if step.saved is not None:
            return step.saved
        assert step.y0 is not None
        times = stage_times(step.t0, step.t1, self.tableau, step.y0)
        first = self._evaluate(times[0], step.y0)
        buffer = StageBuffer(self.numeric, step.y0, step.dt)
        # f(t1, y1) is needed only for outputs inside this step.
        interior = n in self.inside
        result = rk_step(self._evaluate, step.y0, first, times, self.tableau, buffer, evaluate_end=interior)
        if interior:
            dense_stages(self._evaluate, step.y0, times, self.tableau, result)
        return tuple(result.saved)

    def _evaluate(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        self.stats.nfe_recomputed += 1
        return self.dynamics.forward(t, z)

    def _interior(self, n: int, saved: tuple[Any, ...]) -> Interior | None:
        """The outputs inside step n, their dense stages already pulled back."""
        outputs = self.inside.get(n)
        if not outputs:
            return None
        dt, total = self.tape.steps[n].dt, len(self.numeric.a_rows)
        y_bar = torch.stack([self.g[i] for i, _ in outputs]).sum(0)
        k_bar: list[Tensor | None] = [None] * total
        for i, theta in outputs:
            for j, w in enumerate(weights(self.numeric, theta)):
                if w != 0:
                    k_bar[j] = _plus(k_bar[j], self.g[i], dt * w)
        kept, deltas = [], []
        for j in range(total - 1, self.tableau.n_stages - 1, -1):
            cotangent = k_bar[j]
            if cotangent is None:
                continue
            bar, delta = self._vjp(saved[j], cotangent)
            kept.append(saved[j])
            deltas.append(delta)
            y_bar = y_bar + bar
            for i, a in self.numeric.a_rows[j]:
                k_bar[i] = _plus(k_bar[i], bar, dt * a)
        self.theta.add(kept, deltas)
        return Interior(y_bar, k_bar)

    def _step(
        self,
        step: KeptStep,
        saved: tuple[Any, ...],
        lam: Tensor,
        interior: Interior | None,
        handed: Tensor | None,
    ) -> Tensor:
        """dL/dy from λ = dL/dy1 for one step."""
        m = self.tableau.n_stages - 1
        extra: list[Tensor | None] = [None] * m if interior is None else interior.k_bar
        kept, deltas = [], []
        if interior is not None and interior.k_bar[m] is not None:
            # f(t1, y1) has no next step to hand its cotangent to. Its row is b: Ȳ joins λ.
            bar, delta = self._vjp(saved[m], interior.k_bar[m])
            lam = lam + bar
            kept.append(saved[m])
            deltas.append(delta)
        rows = lam.new_empty((m + 1, *lam.shape))
        rows[m].copy_(lam)
        flat = rows.view(m + 1, -1)
        scaled = self.numeric.transposed * step.dt
        for i in range(m - 1, -1, -1):
            k_bar = torch.mv(flat[i + 1 :].t(), scaled[i, i + 1 :]).view(lam.shape)
            for more in (extra[i], handed if i == 0 else None):
                if more is not None:
                    k_bar = k_bar + more
            bar, delta = self._vjp(saved[i], k_bar)
            rows[i].copy_(bar)
            kept.append(saved[i])
            deltas.append(delta)
        self.theta.add(kept, deltas)
        y_bar = rows.sum(0)
        return y_bar if interior is None or interior.y_bar is None else y_bar + interior.y_bar


def _plus(total: Tensor | None, term: Tensor, factor: float) -> Tensor:
    return term * factor if total is None else torch.add(total, term, alpha=factor)
