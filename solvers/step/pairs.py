"""Steps of a pair (y, p), each of which can be undone: only the last pair of a solve need be kept.

A coupled pair: any explicit method with the increment Ψ_h(t, z) = h Σ b_i k_i, and p = z, a second solution.

    y1 = λ y + (1 − λ) z + Ψ_h(t, z),       z1 = z − Ψ_{−h}(t1, y1),         z0 = y0
    z  = z1 + Ψ_{−h}(t1, y1),               y  = (y1 − (1 − λ) z − Ψ_h(t, z)) / λ

With d = (1 − λ)(z − y)/h this is y1 = y + h Σ b_i (k_i + d), since Σ b_i = 1. So is the interpolant: Σ
b_i(θ) = θ, and y(θ) = (1 − (1 − λ)θ) y + (1 − λ)θ z + h Σ b_i(θ) k_i. Stages are therefore left as k_i + d:
who reads them need not know of the pair. The last stage is f(t1, y1), not moved: it is also the first one of
Ψ_{−h}.

A leapfrog's pair (`methods.alf`): p = v, the velocity, which a march carries along as its first stage.

Sources: S. McCallum, J. Foster, Efficient, accurate and stable gradients for neural ODEs, arXiv 2410.11648
(2024); of the leapfrog those of `methods.alf`.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..methods.tableau import Numeric, Tableau
from .besides import Paired
from .clocks import Clocks
from .runge_kutta import Evaluation, Field, StageBuffer, StageList, Stages, StepResult, dense_strides
from .taker import YES, Taker

# So many tolerances apart, y and z are no two solutions of one problem any more; Backsolve's limit. Where the
# flow contracts, y − z grows as it would backwards, unless hμ is in the pair's region of stability
# (docs/reversible.md), and no error estimate sees that: y' = cos t − y from 0 to 10, dopri5 at 1e-6, coupling
# 0.999, ended 4e3 tolerances off after 427 steps without this; with it 37, after 4,843. With 10 in its place
# SONODE's and AdamNODE's cases of docs/adjoints.md took 1,400 steps at 1e-4 for 6, to be twice as exact.
APART = 100.0


def pair_of(tableau: Tableau, coupling: float | None, clocks: Clocks, *, judged: bool = False) -> Pair:
    """What takes the steps of a pair. judged: their errors are looked at."""
    if tableau.leapfrog:
        return LeapfrogPair(tableau)
    assert coupling is not None
    return CoupledPair(tableau, coupling, clocks, judged=judged)


class Undone(NamedTuple):
    """A step undone: y and its partner at the start; what the field saved at the stages, and at those of
    Ψ_{−h}; the stages."""

    y: Tensor
    partner: Tensor
    ahead: list[Any]
    back: list[Any]
    stages: Stages


class Pair(Taker):
    """Takes the steps of a pair, and undoes them."""

    spare: StageBuffer | None = None

    @abc.abstractmethod
    def undo(
        self, field: Field, y1: Tensor, end: Tensor, times: Sequence[Tensor], dt: float | Tensor
    ) -> Undone:
        """From the pair at a step's end to that at its start; times, dt: as the step had them."""

    def _memory(self, numeric: Numeric, like: Tensor, dt: float | Tensor) -> StageBuffer:
        """Memory for stages, used again by the next step."""
        spare = self.spare
        if spare is None or spare.shape != like.shape or spare.strides != dense_strides(like):
            self.spare = spare = StageBuffer(numeric, like, dt)
        return spare.again(dt)


class CoupledPair(Pair):
    """(y, z) of an explicit method. z is here: of where each clock stands."""

    def __init__(self, tableau: Tableau, coupling: float, clocks: Clocks, *, judged: bool = False):
        self.tableau, self.coupling, self.clocks, self.judged = tableau, coupling, clocks, judged
        self.z: Tensor | None = None  # before the first step it is y
        self.tried: tuple[Tensor, Tensor] | None = None  # z at the ends of the last attempt
        self.which: Tensor | None = None
        self.nodes: Tensor | None = None

    def accepted(self, which: Tensor) -> None:
        """z moves on with y."""
        assert self.tried is not None
        start, end = self.tried
        self.which = None if which is YES else which
        self.z = self.clocks.choose(self.which, end, start)

    def select(self, keep: Tensor) -> None:
        """z of the samples that stay."""
        if self.z is not None:
            self.z = self.clocks.take(self.z, keep)

    def __call__(
        self, field: Field, y: Tensor, first: Evaluation, times: Sequence[Tensor], stages: Stages
    ) -> StepResult:
        """One attempt from (y, z), of which nothing is remembered until it is accepted."""
        if self.z is None:
            result = self._taken(field, (y, y), first, times, stages)
        else:
            result = self._taken(field, (y, self.z), field(times[0], self.z), times, stages, 1)
        assert result.paired is not None
        self.tried = result.paired.start, result.paired.end
        return result

    def repeated(
        self, field: Field, y: Tensor, first: Evaluation, times: Sequence[Tensor], stages: Stages
    ) -> StepResult:
        """From the same pair; z is now that of this attempt."""
        assert self.tried is not None
        z, which = self.tried[0], self.which
        result = self._taken(field, (y, z), field(times[0], z), times, stages, 1)
        assert result.paired is not None
        self.tried = z, result.paired.end
        self.z = self.clocks.choose(which, result.paired.end, z)
        return result

    def _taken(
        self,
        field: Field,
        start: tuple[Tensor, Tensor],
        first: Evaluation,
        times: Sequence[Tensor],
        stages: Stages,
        calls: int = 0,
    ) -> StepResult:
        """first: f at z. calls: of f so far."""
        (y, z), m = start, self.tableau.n_stages - 1
        saved = self._along(field, z, first, times, stages)
        y1 = stages.advance(torch.lerp(z, y, self.coupling), m)
        last, kept = field(times[m], y1)
        stages.put(m, last)
        dt = stages.dt
        followed = isinstance(stages, StageList)
        back = StageList(stages.numeric, -dt) if followed else self._memory(stages.numeric, y1, -dt)
        self._along(field, y1, (last, kept), self._reversed(times), back)
        back.dt = dt
        z1 = back.advance(z, m)
        errors, apart = None, None
        if self.judged:
            errors, apart = stages.errors(), ((y - z) / APART, (y1 - z1) / APART)
        self._moved(stages, y, z)
        paired = Paired(z, z1, calls + 2 * m - 1, errors, apart)
        return StepResult(y1, stages, [*saved, kept], paired=paired)

    def undo(
        self, field: Field, y1: Tensor, end: Tensor, times: Sequence[Tensor], dt: float | Tensor
    ) -> Undone:
        """z first, from y1; then y."""
        m, numeric = self.tableau.n_stages - 1, self.tableau.numeric(y1.dtype, y1.device)
        stages = self._memory(numeric, y1, -dt)
        last, kept = field(times[m], y1)
        back = self._along(field, y1, (last, kept), self._reversed(times), stages)
        z, last = stages.advance(end, m), stages.get(0).clone()  # func may have one tensor for all results
        stages = stages.again(dt)
        ahead = self._along(field, z, field(times[0], z), times, stages)
        stages.put(m, last)
        y = z + (y1 - stages.advance(z, m)) / self.coupling
        self._moved(stages, y, z)
        return Undone(y, z, [*ahead, kept], back, stages)

    def _along(
        self, field: Field, y: Tensor, first: Evaluation, times: Sequence[Tensor], stages: Stages
    ) -> list[Any]:
        """The stages that an increment from y is made of, and what the field saved at each."""
        stages.put(0, first[0])
        saved = [first[1]]
        for i in range(1, self.tableau.n_stages - 1):
            k, kept = field(times[i], stages.advance(y, i))
            stages.put(i, k)
            saved.append(kept)
        return saved

    def _reversed(self, times: Sequence[Tensor]) -> list[Tensor]:
        """When the stages of Ψ_{−h} are evaluated: t1 − c_i dt, at the very ends where c_i is 0 or 1."""
        m, nodes = self.tableau.n_stages - 1, [float(c) for c in self.tableau.c]
        if self.nodes is None:
            exact = torch.tensor(nodes, dtype=torch.float64, device="cpu")
            self.nodes = exact.to(times[0], non_blocking=True)
        start, end = times[0], times[m]
        found = (end + (start - end) * self.nodes.view(-1, *[1] * end.dim())).unbind()
        return [end if c == 0.0 else start if c == 1.0 else t for c, t in zip(nodes, found, strict=True)]

    def _moved(self, stages: Stages, y: Tensor, z: Tensor) -> None:
        """Adds d to the stages before the last."""
        if self.coupling == 1.0 or y is z:
            return
        stages.move(self.tableau.n_stages - 1, (z - y) * share(self.coupling, stages.dt))


def share(coupling: float, dt: float | Tensor) -> float | Tensor:
    """(1 − λ)/h, and 0 where h is."""
    if not isinstance(dt, Tensor):
        return (1.0 - coupling) / dt
    return torch.where(dt == 0, 0.0, (1.0 - coupling) / torch.where(dt == 0, 1.0, dt))


class LeapfrogPair(Pair):
    """(y, v) of the asynchronous leapfrog. v is the march's own first stage, so nothing is remembered
    here."""

    def __init__(self, tableau: Tableau):
        self.tableau, self.weight = tableau, 2.0 * float(tableau.b[1])

    def __call__(
        self, field: Field, y: Tensor, first: Evaluation, times: Sequence[Tensor], stages: Stages
    ) -> StepResult:
        """One attempt from (y, v); first holds v."""
        return self.repeated(field, y, first, times, stages)

    def repeated(
        self, field: Field, y: Tensor, first: Evaluation, times: Sequence[Tensor], stages: Stages
    ) -> StepResult:
        """From the same pair."""
        v = first[0]
        stages.put(0, v)
        u, kept = field(times[1], stages.advance(y, 1))
        stages.put(1, u)
        y1, v1 = stages.advance(y, 2), torch.lerp(v, u, self.weight)
        stages.put(2, v1)
        return StepResult(y1, stages, [first[1], kept, None], paired=Paired(v, v1, 1))

    def undo(
        self, field: Field, y1: Tensor, end: Tensor, times: Sequence[Tensor], dt: float | Tensor
    ) -> Undone:
        """v from the velocity in the middle, which either end gives."""
        numeric = self.tableau.numeric(y1.dtype, y1.device)
        middle = y1 - (0.5 * dt) * end
        u, kept = field(times[1], middle)
        v = torch.lerp(end, u, self.weight / (self.weight - 1.0))
        stages = self._memory(numeric, y1, dt)
        for i, k in enumerate((v, u, end)):
            stages.put(i, k)
        return Undone(middle - (0.5 * dt) * v, v, [None, kept, None], [], stages)
