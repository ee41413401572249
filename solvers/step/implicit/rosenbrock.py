"""One step of a Rosenbrock method: linear systems with ∂f/∂y at the step's start, and no iteration.

With W = I − dt γ J, one factored matrix a step and sample, and J, ∂f/∂t at (t, y), anew at every step:

    W x_i = f(t + α_i dt, Y_i) + g_i + dt γ_i ∂f/∂t,   k_i = x_i − g_i,   g_i = Σ_{j<i} (γ_ij/γ) k_j

which is `methods.rosenbrock`'s equation without a product with J. The order is lost where J is not ∂f/∂y.

Source: Hairer, Wanner, Solving Ordinary Differential Equations II, IV.7, Eq. (7.4), (7.25).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from ...methods.tableau import Tableau
from ..besides import Solved
from ..field import follows
from ..runge_kutta import Evaluation, Field, Stages, StepResult
from .esdirk import ImplicitSteps, clock_lengths
from .linear import Factors


@dataclasses.dataclass(frozen=True)
class Coupling:
    """How the stages after the first hang together.

    gamma: of the matrix.
    rows: of each stage (j, γ_ij/γ), those before its own that do not vanish.
    in_time: γ_i of each stage; 0 where it is rounding.
    known: whether a stage's f is the first stage's: it is at the step's start.
    """

    gamma: float
    rows: tuple[tuple[tuple[int, float], ...], ...]
    in_time: tuple[float, ...]
    known: tuple[bool, ...]


ROUNDING = 1e-13  # a γ_i below it is none: the published coefficients have 16 digits, some are near 100


@functools.lru_cache(maxsize=64)
def coupling_of(tableau: Tableau) -> Coupling:
    """Of a Rosenbrock method."""
    gamma = tableau.gamma[-1][-1]
    rows = tuple(
        tuple((j, float(w / gamma)) for j, w in enumerate(row[:-1]) if w != 0) for row in tableau.gamma
    )
    sums = [float(sum(row)) for row in tableau.gamma]
    in_time = tuple(w if abs(w) > ROUNDING else 0.0 for w in sums)
    return Coupling(float(gamma), rows, in_time, tuple(not any(row) for row in tableau.a))


def weighted(terms: Sequence[tuple[int, float]], stages: Stages) -> Tensor | None:
    """Σ w_j k_j; None where there is none."""
    total: Tensor | None = None
    for j, w in terms:
        total = stages.get(j) * w if total is None else torch.add(total, stages.get(j), alpha=w)
    return total


class RosenbrockSteps(ImplicitSteps):
    """The steps of a Rosenbrock method.

    slope: ∂f/∂t of where each clock stands; it belongs to the blocks.
    """

    slope: Tensor | None = None

    def select(self, keep: Tensor) -> None:
        """Samples leave the batch; keep holds the positions of those that stay."""
        super().select(keep)
        axis = self.jacobian.samples.axis
        if self.slope is not None and axis is not None:
            self.slope = self.slope.index_select(axis, keep)

    def repeated(
        self, field: Field, y: Tensor, first: Evaluation, times: Sequence[Tensor], stages: Stages
    ) -> StepResult:
        """An attempt made once more in another form, of which nothing is remembered."""
        slope = self.slope
        result = super().repeated(field, y, first, times, stages)
        self.slope = slope
        return result

    def __call__(
        self, field: Field, y: Tensor, first: Evaluation, times: Sequence[Tensor], stages: Stages
    ) -> StepResult:
        """One attempt from y; a clock whose matrix is singular, or not finite, is told in the result.

        field, first, times: as in `rk_step`.
        """
        span, by, n = clock_lengths(stages.dt, y), coupling_of(self.tableau), self.tableau.n_stages
        blocks, slope, renewed = self._linearised(times[0], y, span, stages.out_of_place and follows())
        factors, failed = self._factored(blocks, span * by.gamma)
        stages.put(0, first[0])
        saved, points, found = [first[1]], [y], list[Tensor]()
        for i in range(1, n - 1):
            y_i, f_i, kept = y, stages.get(0), None
            if not by.known[i]:
                y_i = stages.advance(y, i)
                f_i, kept = field(times[i], y_i)
            before = weighted(by.rows[i], stages)
            right = f_i if before is None else f_i + before
            if by.in_time[i]:
                right = right + slope * (stages.dt * by.in_time[i])
            x = factors.solve(right)
            stages.put(i, x if before is None else x - before)
            saved.append(kept)
            points.append(y_i)
            found.append(x)
        y1 = stages.advance(y, n - 1)
        k, kept = field(times[n - 1], y1)
        stages.put(n - 1, k)
        calls = renewed.to(torch.int64) * self._calls_f + sum(not known for known in by.known[1:]) + 1
        self.slow = torch.ones_like(failed)  # no Jacobian serves two steps
        fastest = self._fastest(self.measure.tolerance.scale(y.detach()))
        solved = Solved(failed, renewed, calls, [*points, y1], found=found, fastest=fastest)
        return StepResult(y1, stages, [*saved, kept], solved=solved)

    @property
    def _calls_f(self) -> int:
        """Evaluations of f that ∂f/∂y and ∂f/∂t count as."""
        return 1 + self.jacobian.calls_f

    def _linearised(
        self, t: Tensor, y: Tensor, span: Tensor, followed: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """∂f/∂y, ∂f/∂t, and of which clocks they were evaluated; with a graph where they are followed."""
        if self.blocks is not None and self.slope is not None and not followed:
            needed = self.slow & ~self.fresh & (span != 0)
            if not bool(needed.any()):  # host read
                return self.blocks, self.slope, needed
        else:
            needed = torch.ones_like(span, dtype=torch.bool)
        self.count(1, self._calls_f)
        z = y if followed else y.detach()
        blocks, slope = self.jacobian(t, z), self.jacobian.in_time(t, z)
        self.jacobian.compare(t, z, blocks)
        if not followed:  # parameters may have tangents
            blocks, slope = blocks.detach(), slope.detach()
        if self.blocks is not None and self.slope is not None and not followed and needed.dim():
            blocks = torch.where(needed.reshape(-1, 1, 1), blocks, self.blocks)
            slope = self.measure.clocks.choose(needed, slope, self.slope)
        self.blocks, self.slope = blocks.detach(), slope.detach()
        self.fresh = torch.ones_like(needed) if followed or not needed.dim() else self.fresh | needed
        return blocks, slope, needed

    def _factored(self, blocks: Tensor, rate: Tensor) -> tuple[Factors, Tensor]:
        """The factors, of clocks that have none those of the identity; and which these are."""
        factors = Factors(self.jacobian.samples, blocks, rate)
        failed = factors.singular if rate.dim() else factors.singular.any()
        if bool(failed.any()):  # host read
            factors = Factors(self.jacobian.samples, blocks, torch.where(failed, 0.0, rate))
        return factors, failed
