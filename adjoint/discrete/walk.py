"""The discrete adjoint: the exact derivative of the numbers that the forward solve computed.

For a step y1 = y + dt Σ b_i k_i, k_i = F(t_i, Y_i), Y_i = y + dt Σ_{j<i} a_ij k_j, given λ = dL/dy1,
from the last stage to the first:

    k̄_i = dt (b_i λ + Σ_{j>i} a_ji Ȳ_j),   Ȳ_i = (∂F/∂z)ᵀ|_{Y_i} k̄_i,   θ̄ += (∂F/∂θ)ᵀ|_{Y_i} k̄_i
    dL/dy = λ + Σ_i Ȳ_i

An output inside the step, y(t + θ dt) = y + dt Σ b_i(θ) k_i with cotangent g, adds dt b_i(θ) g to
k̄_i and g to dL/dy. The first stage of a step is the last of the step before, f(t1, y1): its
cotangent k̄_1 is held back and added to that stage's there, so that one VJP serves both. Step sizes
count as constants. With per-sample steps dt is a vector; a sample that did not accept has dt = 0,
and λ and the held k̄_1 pass it by.

Sources: A. Sandu, On the properties of Runge–Kutta discrete adjoints, ICCS 2006; W. W. Hager,
Runge–Kutta methods in optimal control and the transformed adjoint system, Numer. Math. 87 (2000).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...solvers.march.host import Stats
from ...solvers.march.output import Place, by_step
from ...solvers.march.stepper import clock
from ...solvers.methods.tableau import Numeric, Tableau
from ...solvers.step.interpolant import weights
from ...solvers.step.memory_order import dense_strides, flat_rows, rows_like
from ...solvers.step.runge_kutta import StageBuffer, dense_stages, rk_step
from ..dynamics.protocol import Dynamics, ThetaSum
from .tape import CheckpointTape, KeptStep, Tape

# (g, b_i(θ) for each stage: floats); per sample several together: (g [m, *S], tensors [m, 1, …] like it)
Interior = list[tuple[Tensor, Sequence[Any]]]


def pulled(interior: Interior, dt: float) -> tuple[Tensor, Tensor]:
    """What outputs inside a step add to each k̄_i, [stages, *S], and to dL/dy.

    One product for all outputs and stages: an addition each was slower than the step's VJPs.
    """
    g = torch.stack([g for g, _ in interior])
    table = torch.tensor([row for _, row in interior], dtype=torch.float64, device="cpu").mul_(dt)
    table = table.to(g.device, g.dtype, non_blocking=True)
    return torch.mm(table.t(), g.reshape(len(g), -1)).view(-1, *g.shape[1:]), g.sum(0)


class StepBack:
    """One step, transposed: (λ, k̄ of the last stage) → (dL/dy, k̄ of the first stage).

    dt: float, or per sample a tensor that broadcasts against the state.
    """

    def __init__(self, dynamics: Dynamics, tableau: Tableau, numeric: Numeric, theta: ThetaSum, stats: Stats):
        self.dynamics, self.tableau, self.numeric = dynamics, tableau, numeric
        self.theta, self.stats = theta, stats
        self.rows: Tensor | None = None

    def _memory(self, lam: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Ȳ_0 … Ȳ_{m−1} and λ: where they are written, and what of them stage i is a product with."""
        strides, m = dense_strides(lam), self.tableau.n_stages - 1
        if self.rows is None or (self.rows.shape[1:], self.rows.stride()[1:]) != (lam.shape, strides):
            self.rows = rows_like(m + 1, lam, strides)
            flat = flat_rows(self.rows)
            # Made once for all steps: each view costs as much as a small product.
            self.parts = list(self.rows.unbind())
            self.columns = [flat[i + 1 :].t() for i in range(m)]
        return self.parts, self.columns

    def vjp(self, saved: Any, cotangent: Tensor) -> Tensor:
        """Ȳ of one stage; what θ gets of it is collected."""
        self.stats.nfe_backward += 1
        bar, delta = self.dynamics.vjp(saved, cotangent)
        self.kept.append(saved)
        self.deltas.append(delta)
        return bar

    def __call__(
        self, saved: Sequence[Any], dt: float | Tensor, lam: Tensor, held: Tensor | None, interior: Interior
    ) -> tuple[Tensor, Tensor]:
        """Walks the stages from the last to the second; the first's cotangent is returned."""
        self.kept: list[Any] = []
        self.deltas: list[Any] = []
        m = self.tableau.n_stages - 1
        k_bar, y_bar = self._interior(saved, dt, interior)
        end = _plus(k_bar[m], held, 1.0)
        if end is not None:
            lam = lam + self.vjp(saved[m], end)  # Y_last is y1
        rows, columns = self._memory(lam)
        rows[m].copy_(lam)
        strides = rows[m].stride()
        for i in range(m - 1, -1, -1):
            cotangent = torch.mv(columns[i], self.numeric.back_vectors[i]).as_strided(lam.shape, strides)
            cotangent = cotangent.mul_(dt)
            if (own := k_bar[i]) is not None:
                cotangent = cotangent + own
            if i > 0:
                rows[i].copy_(self.vjp(saved[i], cotangent))
        assert self.rows is not None
        total = self.rows[1:].sum(0)
        self.theta.add(self.kept, self.deltas)
        return (total if y_bar is None else total + y_bar), cotangent

    def _interior(
        self, saved: Sequence[Any], dt: float | Tensor, interior: Interior
    ) -> tuple[list[Tensor | None], Tensor | None]:
        """What outputs inside the step add to each k̄_i and to dL/dy, dense stages pulled back."""
        total = len(self.numeric.a_rows)
        k_bar: list[Tensor | None] = [None] * total
        if not interior:
            return k_bar, None
        if isinstance(dt, float):
            found, y_bar = pulled(interior, dt)
            used = [any(row[j] != 0 for _, row in interior) for j in range(total)]
            k_bar = [k if wanted else None for k, wanted in zip(found.unbind(), used, strict=True)]
        else:
            y_bar = torch.stack([g.sum(0) for g, _ in interior]).sum(0)
            for g, row in interior:
                for j, w in enumerate(row):
                    k_bar[j] = _plus(k_bar[j], (g * w).sum(0), dt)
        for j in range(total - 1, self.tableau.n_stages - 1, -1):
            if (own := k_bar[j]) is None:
                continue
            bar = self.vjp(saved[j], own)
            y_bar = y_bar + bar
            for i, a in self.numeric.a_rows[j]:
                k_bar[i] = _plus(k_bar[i], bar * a, dt)
        return k_bar, y_bar


class DiscreteWalk:
    """The walk backwards over one tape.

    g: cotangents of the outputs, one for each place; the first place is the start.
    watch: sees (time, dL/dz there, None) at every step's ends, for study.  like: a state, for its memory
    order.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        tableau: Tableau,
        tape: Tape | CheckpointTape,
        places: Sequence[Place],
        g: Sequence[Tensor],
        stats: Stats,
        *,
        want_theta: bool = True,
        watch: Callable[[float, Tensor, Tensor | None], None] | None = None,
        like: Tensor | None = None,
    ):
        self.watch, self.like = watch, g[0] if like is None else like.detach()
        self.dynamics, self.tableau, self.tape, self.g, self.stats = dynamics, tableau, tape, g, stats
        self.numeric: Numeric = tableau.numeric(g[0].dtype, g[0].device)
        self.theta = ThetaSum(dynamics, wanted=want_theta)
        self.back = StepBack(dynamics, tableau, self.numeric, self.theta, stats)
        self.ending, self.inside = by_step(places)

    def run(self) -> Tensor:
        """dL/dz at the start, without the cotangent of the output there; fills `theta`."""
        lam = torch.zeros_like(self.like)
        held: Tensor | None = None
        for n, step in self.tape.backwards(self._again):
            for i in self.ending.get(n, ()):
                lam = lam + self.g[i]
            interior: Interior = [
                (self.g[i], weights(self.numeric, theta)) for i, theta in self.inside.get(n, ())
            ]
            saved = self._saved(step, end=held is not None or bool(interior), dense=bool(interior))
            if self.watch is not None and held is None:
                self.watch(step.t1, lam, None)
            lam, held = self.back(saved, step.dt, lam, held, interior)
            if self.watch is not None:
                # dL/dy0 lacks what comes through the first stage while that is held back.
                self.watch(step.t0, lam + self.dynamics.vjp(saved[0], held)[0], None)
            if not step.chained:
                # A first stage of its own: the start, or after a jump of f.
                self.back.kept, self.back.deltas = [], []
                first = saved[0]
                if first is None:  # it was evaluated in a compiled program
                    first = self._evaluate(clock(step.t0, self.like), self.like)[1]
                lam = lam + self.back.vjp(first, held)
                self.theta.add(self.back.kept, self.back.deltas)
                held = None
        for i in self.ending.get(-1, ())[1:]:  # outputs at the start itself, but for the first
            lam = lam + self.g[i]
        return lam

    def _saved(self, step: KeptStep, *, end: bool, dense: bool) -> Sequence[Any]:
        """What each stage saved, evaluated anew where only the state was kept.

        end: f(t1, y1) is needed; dense: the dense output's stages are.
        """
        if step.saved is not None:
            return step.saved
        assert step.y0 is not None
        times = step.stage_times(self.tableau, step.y0)
        first = self._evaluate(times[0], step.y0)
        buffer = StageBuffer(self.numeric, step.y0, step.dt)
        result = rk_step(self._evaluate, step.y0, first, times, self.tableau, buffer, evaluate_end=end)
        if dense and self.tableau.c_dense:
            dense_stages(self._evaluate, step.y0, times, self.tableau, result)
        return result.saved

    def _again(self, y: Tensor, steps: Sequence[KeptStep]) -> Tensor:
        """Takes accepted steps again from a kept state, with the sizes they had."""
        first: tuple[Tensor, Any] | None = None
        for step in steps:
            times = step.stage_times(self.tableau, y)
            if first is None or not step.chained:
                first = (self._evaluate(times[0], y)[0], None)
            buffer = StageBuffer(self.numeric, y, step.dt)
            result = rk_step(self._unsaved, y, first, times, self.tableau, buffer)
            y, first = result.y1, (buffer.get(self.tableau.n_stages - 1), None)
        return y

    def _unsaved(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        return self._evaluate(t, z)[0], None

    def _evaluate(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        self.stats.nfe_recomputed += 1
        return self.dynamics.forward(t, z)


def _plus(total: Tensor | None, term: Tensor | None, factor: float | Tensor) -> Tensor | None:
    if term is None:
        return total
    scaled = term * factor
    return scaled if total is None else total + scaled
