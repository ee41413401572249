"""One step with stages that are coupled, solved for together by simplified Newton.

    k_i = f(t + c_i dt, y + dt Σ_j a_ij k_j),   i = 1 … s

Newton's matrix I − dt A ⊗ J falls apart with the eigenvalues of A: one real system and one complex of the
size of a sample each, instead of one of three times that. The error estimate is filtered by the real one,
(I − dt γ0 J)⁻¹ dt Σ (b_i − b̂_i) k_i, which keeps it bounded where dt J is large. The unknowns begin on the
polynomial of the step before.

Source: Hairer, Wanner, Solving Ordinary Differential Equations II, IV.8, Eq. (8.4)–(8.6), (8.15)–(8.19).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...methods.tableau import Tableau, padded, theta_weights
from ..besides import Solved
from ..field import follows
from ..runge_kutta import Evaluation, Field, Stages, StepResult
from .esdirk import KEEP, ImplicitSteps, clock_lengths
from .linear import Factors
from .newton import Correction


@dataclasses.dataclass(frozen=True)
class Split:
    """A of the coupled stages, [s, s], and its eigenvalues and vectors: one real pair, one of a complex pair;
    with the rows of the inverse that belong to them."""

    a: Tensor
    real: float
    real_vector: Tensor
    real_row: Tensor
    pair: complex
    pair_vector: Tensor
    pair_row: Tensor


@functools.lru_cache(maxsize=16)
def split_of(tableau: Tableau, dtype: torch.dtype, device: torch.device) -> Split:
    """The eigenvalues of a method of three coupled stages."""
    with torch.inference_mode(False), torch._C._DisableFuncTorch():
        rows = [[float(w) for w in padded(row, len(tableau.c))[1:]] for row in tableau.a[1:]]
        a = torch.tensor(rows, dtype=torch.float64, device="cpu")
        values, vectors = torch.linalg.eig(a)
        inverse = torch.linalg.inv(vectors)
        first = int(values.imag.abs().argmin())
        second = int(values.imag.argmax())
        halves = torch.complex128 if dtype == torch.float64 else torch.complex64
        turn = vectors[:, first] / vectors[0, first]  # of a real vector
        real_row = inverse[first] * vectors[0, first]
        return Split(
            a.to(device, dtype),
            float(values[first].real),
            turn.real.to(device, dtype),
            real_row.real.to(device, dtype),
            complex(values[second]),
            vectors[:, second].to(device, halves),
            inverse[second].to(device, halves),
        )


def along(weights: Tensor, k: Tensor) -> Tensor:
    """Σ_j w_ij k_j for rows of weights, of stages [s, *S]."""
    return torch.tensordot(weights, k, 1)


class CoupledSteps(ImplicitSteps):
    """The steps of a method whose stages are coupled.

    past: of each clock, the stages of the last accepted step, [s + 1, *S], and its signed length (0: none).
    """

    past: tuple[Tensor, Tensor] | None = None
    made: tuple[Tensor, Tensor] | None = None

    def accepted(self, which: Tensor) -> None:
        """What was made last is the past of the clocks that go on from it."""
        super().accepted(which)
        assert self.made is not None
        if self.past is None or which.dim() == 0:
            length = torch.where(which, self.made[1], 0.0)
            self.past = self.made[0], length
            return
        clocks = self.measure.clocks
        old, length = self.past
        self.past = clocks.choose(which, self.made[0], old), torch.where(which, self.made[1], length)

    def restarted(self, which: Tensor) -> None:
        """What was before a jump says nothing."""
        super().restarted(which)
        if self.past is not None:
            self.past = self.past[0], torch.where(which, 0.0, self.past[1])

    def select(self, keep: Tensor) -> None:
        """Samples leave the batch; keep holds the positions of those that stay."""
        super().select(keep)
        if self.past is not None:
            k, length = self.past
            axis = self.measure.clocks.batch + 1  # type: ignore[attr-defined]
            self.past = k.index_select(axis, keep), length.index_select(0, keep)

    def __call__(
        self, field: Field, y: Tensor, first: Evaluation, times: Sequence[Tensor], stages: Stages
    ) -> StepResult:
        """One attempt from y, as of `ImplicitSteps`."""
        span, split = clock_lengths(stages.dt, y), split_of(self.tableau, y.dtype, y.device)
        failed, renewed = torch.zeros_like(span, dtype=torch.bool), self._renewed(times[0], y, span)
        assert self.blocks is not None
        samples = self.jacobian.samples
        real = Factors(samples, self.blocks, span * split.real)
        pair = Factors(samples, self.blocks.to(split.pair_row.dtype), span * split.pair)
        scale, seen = self.measure.tolerance.scale(y.detach()), list[Any]()
        base = (field, times, y.detach(), stages.dt)
        correct = _corrections(base, split, (real, pair), seen)
        guess = self._begun(first[0].detach(), span)
        found = self.newton.solve(self.measure, scale, guess, correct, ~failed)
        k, failed = found.x, found.failed
        calls = renewed.to(torch.int64) * self.jacobian.calls_f + found.calls
        if self.stubborn and bool(failed.any()):  # host read
            fully, none = functools.partial(self._all_fully, base, (span, split), seen), failed & False
            k, failed, more = self._insisted(fully, guess, (k, failed, none), scale)
            calls = calls + more
        if stages.out_of_place and follows():
            k = self._all_followed((field, times, y, stages.dt), k, span, split)
        points = list((y + stages.dt * along(split.a, k)).unbind())
        saved = [first[1], *[None] * len(points)]
        if seen[-1] is not None:
            saved[1:] = [field(t, point)[1] for t, point in zip(times[1:], points, strict=True)]
            calls = calls + len(points)
        stages.put(0, first[0])
        for i, own in enumerate(k.unbind(), 1):
            stages.put(i, own)
        self.slow = (found.theta > KEEP) | failed
        self.made = torch.cat((first[0].detach()[None], k.detach())), span
        with torch.no_grad():
            errors = tuple(real.solve(error) for error in stages.errors())
        fastest = self._fastest(scale)
        points = [y, *points]
        solved = Solved(failed, renewed, calls, points, errors, fastest=fastest, corrections=(found.sizes,))
        return StepResult(points[-1], stages, saved, solved=solved)

    def repeated(
        self, field: Field, y: Tensor, first: Evaluation, times: Sequence[Tensor], stages: Stages
    ) -> StepResult:
        """An attempt made once more in another form, of which nothing is remembered."""
        made = self.made
        result = super().repeated(field, y, first, times, stages)
        self.made = made
        return result

    def _begun(self, slope: Tensor, span: Tensor) -> Tensor:
        """Where the unknowns begin: f(t0, y0), or on the slopes of the last step's polynomial."""
        flat = slope[None].expand(len(self.tableau.c) - 1, *slope.shape)
        if self.past is None:
            return flat.clone()
        k, length = self.past
        known = length != 0
        numeric = self.tableau.numeric(slope.dtype, slope.device)
        nodes = torch.tensor(numeric.c[1:], dtype=torch.float64, device=slope.device)
        ahead = torch.where(known, span / torch.where(known, length, 1.0), 0.0).double()
        theta = 1.0 + nodes.reshape(-1, *[1] * ahead.dim()) * ahead
        weights = theta_weights(numeric, theta, derivative=True).to(slope.dtype)  # [stages, s, …]
        clocks = self.measure.clocks
        found = [
            torch.stack(
                [own * clocks.spread(w) for own, w in zip(k.unbind(), row.unbind(), strict=True)]
            ).sum(0)
            for row in weights.unbind(1)
        ]
        return clocks.choose(known, torch.stack(found), flat)

    def _all_fully(self, base: Any, by: tuple[Tensor, Split], seen: list[Any], k: Tensor) -> Correction:
        """A correction of all stages with the Jacobian of each."""
        (field, times, y, dt), (span, split) = base, by
        points = (y + dt * along(split.a, k)).unbind()
        values = []
        for t, point in zip(times[1:], points, strict=True):
            value, kept = field(t, point)
            values.append(value.detach().clone())
            seen[:] = [kept]
        residual = torch.stack(values) - k
        with torch.no_grad():
            blocks = [self._evaluated(t, point) for t, point in zip(times[1:], points, strict=True)]
            delta = self._solved_together(blocks, residual, span, split)
        moved = dt * along(split.a, delta)
        calls = len(values) * (1 + self.jacobian.calls_f)
        return Correction(delta, moved.unbind(), residual.sum(0), calls)

    def _solved_together(
        self, blocks: Sequence[Tensor], residual: Tensor, span: Tensor, split: Split
    ) -> Tensor:
        """(I − dt (a_ij J_i))⁻¹ of stages [s, *S]."""
        samples = self.jacobian.samples
        rows = torch.cat([samples.rows(r) for r in residual.unbind()], 1)
        found = torch.linalg.solve(coupled_matrix(split.a, blocks, span), rows)
        return torch.stack([samples.state(part, residual[0]) for part in found.chunk(len(residual), 1)])

    def _all_followed(self, base: Any, k: Tensor, span: Tensor, split: Split) -> Tensor:
        """The stages with a graph, as `ImplicitSteps` has each."""
        field, times, y, dt = base
        for _ in range(2):
            points = y + dt * along(split.a, k)
            values = torch.stack([field(t, point)[0] for t, point in zip(times[1:], points, strict=True)])
            blocks = [self.jacobian(t, point) for t, point in zip(times[1:], points, strict=True)]
            k = k + self._solved_together(blocks, values - k, span, split)
        return k


def coupled_matrix(a: Tensor, blocks: Sequence[Tensor], span: Tensor) -> Tensor:
    """I − dt (a_ij J_i), [b, s n, s n]; where dt is 0 the identity, whatever J."""
    h = span.reshape(-1, 1, 1)
    rows = []
    for i, own in enumerate(blocks):
        eye = torch.eye(own.shape[-1], dtype=own.dtype, device=own.device)
        scaled = torch.where(h == 0, 0.0, h * own)
        rows.append(torch.cat([(eye if i == j else 0.0 * eye) - a[i, j] * scaled for j in range(len(a))], 2))
    return torch.cat(rows, 1)


def _corrections(
    base: tuple[Field, Sequence[Tensor], Tensor, Any],
    split: Split,
    factors: tuple[Factors, Factors],
    seen: list[Any],
) -> Callable[[Tensor], Correction]:
    """k, [s, *S] → what Newton adds to it. seen: collects what the field saved, the last alone."""
    (field, times, y, dt), (real, pair) = base, factors

    def correct(k: Tensor) -> Correction:
        values = []
        for t, point in zip(times[1:], y + dt * along(split.a, k), strict=True):
            value, kept = field(t, point)
            values.append(value.detach().clone())
            seen[:] = [kept]
        residual = torch.stack(values) - k
        one = real.solve(along(split.real_row[None], residual)[0])
        two = pair.solve(along(split.pair_row[None], residual.to(split.pair_row.dtype))[0])
        delta = split.real_vector.reshape(-1, *[1] * one.dim()) * one
        delta = delta + 2.0 * (split.pair_vector.reshape(-1, *[1] * one.dim()) * two).real
        moved = dt * along(split.a, delta)
        return Correction(delta, moved.unbind(), residual.sum(0), len(values))

    return correct
