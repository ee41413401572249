"""What accepted steps tell of a dynamics' difficulty, as penalties with a gradient: errors, stiffness.

A penalty is a sum over accepted steps of a number of the step's slopes, P(X_1, …) with X_m = Σ_i w_mi k_i, so
its cotangent c enters the walk back where an output inside the step does: k̄_i += c Σ_m w_mi ∂P/∂X_m. The
directions ∂P/∂X_m are kept with the step, one state for `error`, two for `stiffness`. Step sizes count as
constants, as everywhere.

Source: A. Pal, Y. Ma, V. Shah, C. Rackauckas, Opening the blackbox: accelerating neural differential
equations by regularizing internal solver heuristics, ICML 2021.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...solvers.errors import ArgumentError
from ...solvers.march.output import Step
from ...solvers.march.samples import SampleRecorder, SampleStep
from ...solvers.march.stiffness import stage_pair
from ...solvers.methods.tableau import Tableau, padded
from ...solvers.status import Status
from ...solvers.step.clocks import Clocks, Each, combine_errors
from ..recording import Recorder, Rows, Seen
from .tape import Attempt, Inside, Solved
from .walk import Back, Outputs, outputs_of, plus

Weights = tuple[float, ...]


def _over(top: Tensor, bottom: Tensor) -> Tensor:
    """The quotient, 0 where the denominator is: no NaN in it, nor in its gradient."""
    nothing = bottom == 0
    return torch.where(nothing, 0.0, top / torch.where(nothing, 1.0, bottom))


class Kind(abc.ABC):
    """One penalty, of one method. rows: the w_m, each as long as there are stages."""

    rows: tuple[Weights, ...]

    @abc.abstractmethod
    def value(self, sums: Sequence[Tensor], length: Any, clocks: Clocks) -> Tensor:
        """P of each clock from the X_m. length: |dt|, a float or [b]."""


class Error(Kind):
    """Σ_j E_j |h_j|, Pal's R_E: E_j the RMS of step j's error estimate, h_j Σ (b_i − b̂_i) k_i."""

    def __init__(self, tableau: Tableau):
        if not tableau.adaptive:
            raise ArgumentError(
                f"penalties: 'error' with method={tableau.name!r}, which has no error estimate: choose one "
                "with an embedded solution, such as dopri5 (with dt= it may take fixed steps)."
            )
        self.rows = tuple(tuple(map(float, row)) for row in tableau.errors())

    def value(self, sums: Sequence[Tensor], length: Any, clocks: Clocks) -> Tensor:
        """The size of two estimates, combined as for the step's error ratio."""
        return combine_errors([clocks.rms(x) for x in sums]) * (length * length)


class Stiffness(Kind):
    """Σ_j S_j, Pal's R_S: S_j = ‖k_i − k_l‖ / ‖Y_i − Y_l‖ of two stages at one time, an estimate of the
    largest |eigenvalue| of ∂f/∂y."""

    def __init__(self, tableau: Tableau):
        pair = stage_pair(tableau)
        if pair is None:
            raise ArgumentError(
                f"penalties: 'stiffness' with method={tableau.name!r}, which has no two stages at one time "
                "to estimate it from: choose dopri5, tsit5, dopri8 or dop853."
            )
        n, rows = tableau.n_stages, tableau.rows()
        a, b = (padded(rows[i], n) for i in pair)
        apart = tuple(float(x - y) for x, y in zip(a, b, strict=True))
        slopes = [0.0] * n
        slopes[pair[0]], slopes[pair[1]] = 1.0, -1.0
        self.rows = (tuple(slopes), apart)

    def value(self, sums: Sequence[Tensor], length: Any, clocks: Clocks) -> Tensor:
        """0 where the two stages are one."""
        return _over(clocks.rms(sums[0]), clocks.rms(sums[1]) * length)


KINDS: dict[str, type[Error] | type[Stiffness]] = {"error": Error, "stiffness": Stiffness}
Part = Callable[[Tensor], Tensor]
Directions = list[list[Tensor]]  # of each penalty, of each of its sums


class StepPenalties(Recorder):
    """Sums penalties over accepted steps.

    names: of `KINDS`.  z0: the state.
    directions: keep what the discrete walk back needs; otherwise autograd follows where it is on.
    part: of a state, what counts: integrals that are solved beside it do not.
    """

    def __init__(
        self,
        names: Sequence[str],
        tableau: Tableau,
        clocks: Clocks,
        z0: Tensor,
        *,
        directions: bool,
        part: Part | None = None,
    ):
        self.names, self.clocks, self.directions = tuple(names), clocks, directions
        self.kinds = [KINDS[name](tableau) for name in names]
        self.part: Part = part or (lambda z: z)
        self.like = z0.detach()
        self.totals = [torch.zeros_like(clocks.total(self.like)) for _ in names]
        self.kept: list[Directions] = []  # of each step

    def step(self, step: Step | SampleStep) -> None:
        """An accepted step, or an attempt of all samples."""
        if isinstance(step, Step):
            step.derivative(step.t1)  # which a fixed grid's last step leaves out
        clocks, accepted = _alone(step.clocks), None
        length: Any = abs(step.length)
        if isinstance(step, SampleStep):
            accepted = step.accepted
            length = torch.where(accepted, length, 0.0).to(self.like.dtype)
        kept: Directions = []
        for i, kind in enumerate(self.kinds):
            sums = [step.result.stages.combine(None, row) for row in kind.rows]
            if accepted is not None:
                sums = [torch.where(clocks.spread(accepted), x, 0.0) for x in sums]
            if self.directions:
                with torch.enable_grad():
                    sums = [x.detach().requires_grad_() for x in sums]
                    value = kind.value([self.part(x) for x in sums], length, clocks)
                    kept.append(list(torch.autograd.grad(value.sum(), sums)))
                value = value.detach()
            else:
                value = kind.value([self.part(x) for x in sums], length, clocks)
            total = self.totals[i]
            if isinstance(step, SampleStep):
                self.totals[i] = total.index_add(0, step.index, value)
            else:
                self.totals[i] = total + value
        if self.directions:
            self.kept.append(kept)

    def beside(self, recorder: SampleRecorder | None) -> SampleRecorder:
        """These and the recorder of an adjoint."""
        return self if recorder is None else _Both(self, recorder)

    def after(self, values: Tensor) -> Tensor:
        """The values of a solve with the sums behind them, a row each: the number of each clock is the first
        of its entries."""
        rows = []
        for total in self.totals:
            flat = total.reshape(-1, 1)
            rest = flat.new_zeros((len(flat), self.like.numel() // len(flat) - 1))
            row = torch.cat((flat, rest), 1)
            if isinstance(self.clocks, Each):
                moved = self.like.movedim(self.clocks.batch, 0)
                rows.append(row.reshape(moved.shape).movedim(0, self.clocks.batch))
            else:
                rows.append(row.reshape(self.like.shape))
        return torch.cat((values, torch.stack(rows)))

    def read(self, rows: Sequence[Tensor] | Tensor) -> list[Tensor]:
        """The number of each clock, from those rows or their cotangents."""
        if isinstance(self.clocks, Each):
            return [self.clocks.per_sample(row)[:, 0] for row in rows]
        return [row.reshape(-1)[0] for row in rows]

    def told(self, rows: Tensor, status: Any) -> dict[str, Tensor]:
        """By name; NaN for a sample that did not arrive."""
        found = dict(zip(self.names, self.read(rows), strict=True))
        if isinstance(status, Tensor):
            arrived = status == int(Status.SUCCESS)
            found = {name: torch.where(arrived, x, torch.nan) for name, x in found.items()}
        return found

    def outputs(self, solved: Solved, seen: Seen, g: Rows) -> Outputs:
        """How the cotangents of outputs, and of the sums behind them, enter a walk back."""
        n = len(seen.times)
        inner = outputs_of(solved, seen, g[:n])
        return inner if len(g) == n else _WithPenalties(inner, self, self.read(g[n:]))


def _alone(clocks: Clocks) -> Clocks:
    """The clocks without groups: a penalty is each sample's own."""
    if isinstance(clocks, Each) and clocks.groups is not None:
        return dataclasses.replace(clocks, groups=None)
    return clocks


class _Both(Recorder):
    """Two recorders, told one after the other."""

    def __init__(self, *both: SampleRecorder):
        self.both = both

    def start(self, saved: Any) -> None:
        """The first evaluation."""
        for one in self.both:
            one.start(saved)

    def step(self, step: Any) -> None:
        """An accepted step, or an attempt of all samples."""
        for one in self.both:
            one.step(step)

    def restart(self, saved: Any, which: Tensor, first: Tensor) -> None:
        """First stages evaluated anew."""
        for one in self.both:
            one.restart(saved, which, first)

    def compact(self, keep: Tensor) -> None:
        """Samples have left."""
        for one in self.both:
            one.compact(keep)


class _WithPenalties(Outputs):
    """Outputs, and penalties of every step. bars: their cotangents, a number a clock."""

    def __init__(self, inner: Outputs, penalties: StepPenalties, bars: Sequence[Tensor]):
        self.inner, self.penalties, self.bars = inner, penalties, bars

    def begin(self, z0: Tensor) -> Back:
        """As of the outputs."""
        return self.inner.begin(z0)

    def at_end(self, n: int, lam: Tensor) -> Tensor:
        """As of the outputs."""
        return self.inner.at_end(n, lam)

    def inside(self, n: int, attempt: Attempt) -> Inside | None:
        """With what the penalties of step n add to its slopes' cotangents."""
        base = self.inner.inside(n, attempt)
        k_bar: list[Tensor | None] = [None] * len(attempt.tableau.rows()) if base is None else list(base[0])
        own, clocks, index = self.penalties, self.penalties.clocks, attempt.who.index
        for kind, ways, bar in zip(own.kinds, own.kept[n], self.bars, strict=True):
            here = clocks.spread(bar if index is None else bar.index_select(0, index))
            for row, way in zip(kind.rows, ways, strict=True):
                cotangent = way * here
                for i, weight in enumerate(row):
                    if weight != 0:
                        k_bar[i] = plus(k_bar[i], cotangent * weight)
        return k_bar, torch.zeros_like(own.kept[n][0][0]) if base is None else base[1]
