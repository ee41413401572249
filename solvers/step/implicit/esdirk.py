"""One step with implicit stages that follow one another, each solved for by simplified Newton.

    k_i = f(t + c_i dt, Y_i),   Y_i = y + dt Σ_{j<i} a_ij k_j + dt γ k_i

The unknown is k_i: a stage's slope, as the next step's first stage wants it, is then what the equation
says, while f at a state that is off by δ would be off by ∂f/∂y δ. All stages share one factored matrix
I − dt γ J a sample, J at the step's start.

Source: Hairer, Wanner, Solving Ordinary Differential Equations II, IV.6; A. Kværnø, BIT 44 (2004) 489–502.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...methods.tableau import Tableau
from ..besides import Solved
from ..field import follows
from ..runge_kutta import Evaluation, Field, Stages, StepResult
from ..taker import YES, Taker
from .jacobian import Jacobian
from .linear import Factors, System, spectral_bound
from .newton import Correction, Measure, Newton

FULL = 20  # corrections with a Jacobian each, of steps that cannot be shortened
KEEP = 1e-3  # a Jacobian serves the next step too where no θ of this one was larger; RADAU5's THET
DEGREE = 2  # of the polynomial through earlier stages that predicts the next


@functools.lru_cache(maxsize=64)
def predictors(tableau: Tableau) -> tuple[tuple[tuple[int, float], ...], ...]:
    """(stage, weight) of the stages before that predict each: the polynomial through the nearest nodes."""
    nodes, found = [float(c) for c in tableau.c], []
    for i in range(len(nodes)):
        own: list[int] = []
        for j in sorted(range(i), key=lambda j: (abs(nodes[j] - nodes[i]), -j)):
            if len(own) <= DEGREE and all(nodes[j] != nodes[k] for k in own):
                own.append(j)
        row = []
        for j in own:
            weight = 1.0
            for k in own:
                weight *= 1.0 if k == j else (nodes[i] - nodes[k]) / (nodes[j] - nodes[k])
            row.append((j, weight))
        found.append(tuple(pair for pair in row if pair[1] != 0.0))
    return tuple(found)


class ImplicitSteps(Taker):
    """The implicit steps of one march, in place of `rk_step`.

    measure: of corrections; the march's own, which changes as samples leave it.
    count: told how many evaluations of J there were, and of f beside the field's own.
    stubborn: a step that is not solved cannot be shortened.
    blocks: J of each sample; None before the first step.
    fresh: whether it is that of where the clock stands.  slow: whether a step wants a new one.
    """

    def __init__(
        self,
        tableau: Tableau,
        jacobian: Jacobian,
        measure: Measure,
        count: Callable[[int, int], None] = lambda jacobians, of_f: None,
        stubborn: bool = False,
    ):
        self.tableau, self.jacobian, self.measure, self.count = tableau, jacobian, measure, count
        self.stubborn = stubborn
        self.newton = Newton()
        self.blocks: Tensor | None = None
        self.fresh = self.slow = YES

    def accepted(self, which: Tensor) -> None:
        """The clocks that go on from a step's end: their Jacobian is no longer that of where they stand."""
        self.fresh = self.fresh & ~which

    def restarted(self, which: Tensor) -> None:
        """The clocks beside a jump of f."""
        if self.blocks is not None:
            self.fresh, self.slow = self.fresh & ~which, self.slow | which

    def select(self, keep: Tensor) -> None:
        """Samples leave the batch; keep holds the positions of those that stay."""
        self.newton.select(keep)
        if self.blocks is not None:
            self.blocks = self.blocks.index_select(0, keep)
            self.fresh, self.slow = self.fresh.index_select(0, keep), self.slow.index_select(0, keep)

    def __call__(
        self, field: Field, y: Tensor, first: Evaluation, times: Sequence[Tensor], stages: Stages
    ) -> StepResult:
        """One attempt from y; a clock whose iteration does not converge is told in the result.

        field, first, times: as in `rk_step`.
        """
        span = clock_lengths(stages.dt, y)
        failed, renewed = torch.zeros_like(span, dtype=torch.bool), self._renewed(times[0], y, span)
        factors = self._system(times[0], y, span * stages.numeric.diagonal[1])
        scale, worst = self.measure.tolerance.scale(y.detach()), torch.zeros_like(span, dtype=y.dtype)
        stages.put(0, first[0])
        saved, points, alive, y_i = [first[1]], [y], True, y
        sizes = list[tuple[tuple[Tensor, Tensor], ...]]()
        calls = renewed.to(torch.int64) * self.jacobian.calls_f
        for i in range(1, self.tableau.n_stages):
            base, length = stages.advance(y, i), stages.dt * stages.numeric.diagonal[i]
            k, kept = self._predicted(stages, i).detach(), None
            if alive:
                seen: list[Any] = []
                ends, rate = (base.detach(), length), span * stages.numeric.diagonal[i]
                before, correct = failed, _corrections(field, times[i], ends, factors, seen)
                found = self.newton.solve(self.measure, scale, k, correct, ~failed)
                correct_at = functools.partial(self._fully, field, times[i], ends, rate, seen)
                k, alive, failed = found.x, found.alive, failed | found.failed
                sizes.append(found.sizes)
                worst, calls = torch.maximum(worst, found.theta), calls + found.calls
                if self.stubborn and bool((found.failed & ~before).any()):  # host read
                    guess = self._predicted(stages, i).detach()
                    k, failed, more = self._insisted(correct_at, guess, (k, found.failed, before), scale)
                    calls, alive = calls + more, bool((~failed).any())  # host read
                if seen[-1] is not None:  # wanted of the state that was found, and not of the last but one
                    _, kept = field(times[i], base + length * k)
                    calls = calls + 1
            if stages.out_of_place and follows():
                k = self._followed(field, times[i], (base, length), k, span * stages.numeric.diagonal[i])
            y_i = base + length * k
            stages.put(i, k)
            saved.append(kept)
            points.append(y_i)
        self.slow = (worst > KEEP) | failed
        solved = Solved(failed, renewed, calls, points, fastest=self._fastest(scale), corrections=sizes)
        return StepResult(y_i, stages, saved, solved=solved)

    def repeated(
        self, field: Field, y: Tensor, first: Evaluation, times: Sequence[Tensor], stages: Stages
    ) -> StepResult:
        """An attempt made once more in another form, of which nothing is remembered."""
        slow, eta, blocks, fresh = self.slow, self.newton.eta, self.blocks, self.fresh
        result = self(field, y, first, times, stages)
        # A clock that has gone on stands elsewhere: a Jacobian of the step's start is none of there.
        self.slow, self.newton.eta, self.blocks, self.fresh = slow, eta, blocks, fresh
        return result

    def _renewed(self, t: Tensor, y: Tensor, span: Tensor) -> Tensor:
        """Of which clocks J was evaluated anew, where it was needed."""
        with torch.no_grad():
            if self.blocks is None:
                self.blocks = self._evaluated(t, y)
                self.fresh = torch.ones_like(span, dtype=torch.bool)
                return self.fresh
            needed = self.slow & ~self.fresh & (span != 0)
            if bool(needed.any()):  # host read
                blocks = self._evaluated(t, y)
                mask = needed.reshape(-1, 1, 1)
                self.blocks = blocks if mask.numel() == 1 else torch.where(mask, blocks, self.blocks)
                self.fresh = self.fresh | needed
            return needed

    def _evaluated(self, t: Tensor, y: Tensor) -> Tensor:
        self.count(1, self.jacobian.calls_f)
        return self.jacobian(t, y.detach()).detach()  # of parameters' tangents too

    def _system(self, t: Tensor, y: Tensor, rate: Tensor) -> System:
        """I − rate J of a step from y, J the one at hand."""
        assert self.blocks is not None
        return Factors(self.jacobian.samples, self.blocks, rate)

    def _fastest(self, scale: Tensor) -> Callable[[], Tensor] | None:
        """What bounds |λ| of J as it is at hand now. scale: of a state, atol + rtol |y|."""
        assert self.blocks is not None
        rows = self.jacobian.samples.rows(scale)
        return functools.partial(spectral_bound, self.blocks, rows, self.measure.clocks)

    def _anew(self, t: Tensor, y: Tensor, rate: Tensor) -> System:
        """I − rate J with J at y."""
        return Factors(self.jacobian.samples, self._evaluated(t, y), rate)

    def _fully(
        self, field: Field, t: Tensor, ends: tuple[Tensor, Any], rate: Tensor, seen: list[Any], k: Tensor
    ) -> Correction:
        """A correction with the Jacobian of where it is made."""
        base, length = ends
        with torch.no_grad():
            factors = self._anew(t, base + length * k, rate)
        made = _corrections(field, t, ends, factors, seen)(k)
        return dataclasses.replace(made, calls=made.calls + self.jacobian.calls_f)

    def _insisted(
        self,
        correct: Callable[[Tensor], Correction],
        guess: Tensor,
        stood: tuple[Tensor, Tensor, Tensor],
        scale: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Newton's own iteration, a Jacobian at every correction, for the clocks whose simplified one failed:
        k, which have failed now, evaluations of f of each clock.

        stood: what the simplified iteration came to, which failed in it, which had failed before.
        """
        (k, failed, before), clocks, kappa = stood, self.measure.clocks, self.measure.kappa(scale)
        going = failed & ~before
        k, calls = clocks.choose(going, guess, k), torch.zeros_like(failed, dtype=torch.int64)
        last = scale
        for m in range(FULL):
            made = correct(k)
            size = self.measure.size(made, scale)
            calls = calls + going * made.calls
            k = clocks.choose(going & torch.isfinite(size), k + made.delta, k)
            # A wrong matrix makes corrections small, and one as large as the other.
            smaller = (size == 0) if m == 0 else (size == 0) | (size <= 0.5 * last) | (last > kappa)
            going, last = going & ~((size <= kappa) & smaller), size
            if not bool(going.any()):  # host read
                break
        return k, before | going, calls

    def _predicted(self, stages: Stages, i: int) -> Tensor:
        (j, weight), *rest = predictors(self.tableau)[i]
        total = stages.get(j) * weight
        for j, weight in rest:
            total = torch.add(total, stages.get(j), alpha=weight)
        return total

    def _followed(self, field: Field, t: Tensor, ends: tuple[Tensor, Any], k: Tensor, rate: Tensor) -> Tensor:
        """k with a graph: two of Newton's own corrections at the solution, whose matrix has a graph as well.

        Each doubles the order to which derivatives are those of the solution: the third is right.
        """
        base, length = ends
        for _ in range(2):
            y = base + length * k
            blocks, samples = self.jacobian(t, y), self.jacobian.samples
            eye = torch.eye(blocks.shape[-1], dtype=y.dtype, device=y.device)
            matrix = eye - rate.to(y.dtype).reshape(-1, 1, 1) * blocks
            residual = samples.rows(field(t, y)[0] - k)
            k = k + samples.state(torch.linalg.solve(matrix, residual), y)
        return k


def clock_lengths(dt: float | Tensor, like: Tensor) -> Tensor:
    """The signed length of each clock's step, of the state's dtype: 0-d for one, else [b]."""
    if not isinstance(dt, Tensor):
        return torch.full((), dt, dtype=like.dtype, device=like.device)
    return dt.detach().reshape(()) if dt.dim() == 0 else dt.detach().reshape(-1)


def _corrections(
    field: Field, t: Tensor, ends: tuple[Tensor, Any], system: System, seen: list[Any]
) -> Callable[[Tensor], Correction]:
    """k → what Newton adds to it. seen: collects what the field saved, the last alone."""
    base, length = ends

    def correct(k: Tensor) -> Correction:
        value, kept = field(t, base + length * k)
        seen[:] = [kept]
        residual = value.detach() - k
        delta = system.solve(residual)
        return Correction(delta, (length * delta,), residual, 1 + system.calls)

    return correct
