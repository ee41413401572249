"""What stepping with many clocks knows of its samples: settings, one attempt, who else sees it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..methods.tableau import Tableau, theta_weights
from ..step.attempt import Attempt
from ..step.clocks import Each, Tolerance
from ..step.controller import PID
from ..step.implicit.choose import taker_of
from ..step.implicit.jacobian import Jacobian
from ..step.kept import kept
from ..step.taker import Taker

SampleNorm = Callable[[Tensor], Tensor]  # state → [b]


@dataclasses.dataclass(frozen=True, eq=False)
class Together:
    """Samples that step in groups.

    ids: [B] int64, each sample's group, below n.
    norm: of clocks in groups, the norm pooled over each.
    """

    ids: Tensor
    n: int
    norm: Callable[[Each], SampleNorm]


def beside(time: Tensor, which: Tensor, side: Tensor) -> Tensor:
    """The next float towards side · ∞ (±1, [b]) for the samples in `which`; time: as f wants it."""
    shape = time.shape
    toward = (side * math.inf).to(time).view(shape)
    return torch.where(which.view(shape), torch.nextafter(time, toward), time)


@dataclasses.dataclass(frozen=True)
class SampleSettings:
    """What decides the steps; norm gives one number a sample.

    stops: [M] times every sample must end a step on (step_at and jump_at), or [b, M] each its own, in order,
        ∞ where it has fewer.
    jumps: like stops, bool: those at which f is discontinuous.
    dt0: first |dt|, [B] or None for Hairer's; dt0_open: NaN in it too.
    dt: a fixed |dt|, or None.
    fresh_first: evaluate every attempt's first stage anew (a quadrature wants it saved with the rest).
    together: which samples share their steps; None: each has its own.
    jacobian: of f, for an implicit method.
    coupling: of a reversible pair's steps (`step.pairs`); None: they are the method's own.
    present: is told which samples are in the batch, when some have left it, and None when all are back.
    """

    clocks: Each
    tableau: Tableau
    tolerance: Tolerance
    norm: SampleNorm
    controller: PID
    dt0: Tensor | None
    dt: float | None
    max_steps: int
    stops: Tensor
    jumps: Tensor
    compact: bool
    fresh_first: bool = False
    together: Together | None = None
    dt0_open: bool = False
    jacobian: Jacobian | None = None
    coupling: float | None = None
    present: Callable[[Tensor | None], None] | None = None

    @property
    def fixed(self) -> bool:
        """Whether steps have one length, given beforehand."""
        return self.dt is not None

    @property
    def plain(self) -> bool:
        """Whether steps are those of `rk_step`."""
        return self.coupling is None and self.tableau.by_stages

    def taker(self) -> Taker | None:
        """What takes the steps where `rk_step` does not; None of a method that changes."""
        changes = bool(self.tableau.between)
        return None if self.plain or changes else taker_of(self.tableau, self, self.clocks)

    def at_jump(self, t: Tensor) -> Tensor:
        """[b]: which of the times are discontinuities of f."""
        if self.stops.dim() == 1:
            return ((t[:, None] == self.stops) & self.jumps).any(1)
        stop, jump = self._row(torch.searchsorted(self.stops, t[:, None].contiguous()))
        return (stop == t) & jump

    def next_stop(self, t: Tensor, end: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        """Each sample's next time to hit after t, and whether f jumps there; all [b]."""
        if not self.stops.shape[-1]:
            return end, torch.zeros_like(t, dtype=torch.bool)
        if self.stops.dim() == 2:
            return self._next_own(t, end, direction)
        ahead = (self.stops - t[:, None]) * direction[:, None]
        far = (end - t) * direction
        ahead = torch.where((ahead > 0) & (ahead <= far[:, None]), ahead, math.inf)
        distance, which = ahead.min(1)
        found = torch.isfinite(distance)
        return torch.where(found, self.stops[which], end), found & self.jumps[which]

    def _next_own(self, t: Tensor, end: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        """`next_stop` of samples with times of their own."""
        at = t[:, None].contiguous()
        later, earlier = (torch.searchsorted(self.stops, at, right=right) for right in (True, False))
        stop, jump = self._row(torch.where(direction[:, None] > 0, later, earlier - 1))
        ahead = (stop - t) * direction
        found = (ahead > 0) & (ahead <= (end - t) * direction)
        return torch.where(found, stop, end), found & jump

    def _row(self, which: Tensor) -> tuple[Tensor, Tensor]:
        """Each sample's time of that number (the nearest there is), and whether f jumps there."""
        which = which.clamp(0, self.stops.shape[1] - 1)
        return self.stops.gather(1, which)[:, 0], self.jumps.gather(1, which)[:, 0]

    def of(self, keep: Tensor) -> SampleSettings:
        """With the times to hit of the samples at these positions."""
        if self.stops.dim() == 1:
            return self
        stops, jumps = self.stops.index_select(0, keep), self.jumps.index_select(0, keep)
        return dataclasses.replace(self, stops=stops, jumps=jumps)


@dataclasses.dataclass(frozen=True)
class Written:
    """m outputs inside a step: which output of each row (place [m, b]), whether it is one (valid [m, b]),
    and its weights b_i(θ), [n, m, b]."""

    place: Tensor
    valid: Tensor
    weights: Tensor


@dataclasses.dataclass(frozen=True)
class SampleStep(Attempt):
    """One attempt of all samples; its numbers are [b].

    index: which samples.
    clocks: of the state.
    tableau: of the method.
    outputs: what was written inside the step.
    until: where the solution ends, if a terminal event lies in the step; else None for all samples.
    """

    index: Tensor
    clocks: Each
    tableau: Tableau
    outputs: list[Written] = dataclasses.field(default_factory=list)
    until: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What the dense output needs, as `Step` has it."""
        alone = {name: x.detach() for name, x in vars(self).items() if isinstance(x, Tensor)}
        return {**vars(self), **alone, "times": [], "outputs": [], "result": kept(self.result)}

    @property
    def length(self) -> Tensor:
        """Signed, [b]."""
        return self.t1 - self.t0

    @property
    def y1(self) -> Tensor:
        """State at t1."""
        return self.result.y1

    def combine(self, y: Tensor | None, weights: Tensor) -> Tensor:
        """y + dt Σ w_i k_i with each sample's own weights, [n, b] or [n, m, b] (without y: Σ w_i k_i).

        Only outputs before a step's end need the dense output's own stages: n may leave them out.
        """
        total = None
        for i, row in enumerate(weights):
            term = self.result.stages.get(i) * self.clocks.spread(row)
            total = term if total is None else total + term
        assert total is not None
        return total if y is None else y + self.dt * total

    def weights(self, theta: Tensor, *, derivative: bool = False) -> Tensor:
        """b_i(θ), or b_i'(θ), of the stages that were evaluated, [n, *theta.shape]."""
        every = theta_weights(self.result.stages.numeric, theta, derivative=derivative)
        return every.to(self.y0.dtype)[: len(self.result.saved)]

    def at(self, theta: Tensor, *, derivative: bool = False) -> tuple[Tensor, Tensor]:
        """y (or y') at θ, [b] or [m, b], and the weights of the stages; exactly y1 (f(t1, y1)) at the end."""
        weights = self.weights(theta, derivative=derivative)
        inside = self.combine(None if derivative else self.y0, weights)
        end = self.result.stages.get(self.tableau.n_stages - 1) if derivative else self.y1
        return torch.where(self.clocks.spread(theta == 1.0), end, inside), weights


class SampleRecorder:
    """What an adjoint may keep of a solve; by itself nothing."""

    def start(self, saved: Any) -> None:
        """The first evaluation."""

    def step(self, step: SampleStep) -> None:
        """An attempt, after its outputs were written."""

    def restart(self, saved: Any, which: Tensor, first: Tensor) -> None:
        """First stages (then `first`) evaluated anew for the samples in `which`."""

    def compact(self, keep: Tensor) -> None:
        """Only the rows at these positions stay."""


def ends_of(times: Tensor) -> Tensor:
    """The first and the last column of [B, T], [B, 2]: a view (a list as index would be an upload)."""
    return times[:, :: times.shape[1] - 1]


class Due(NamedTuple):
    """Which outputs lie in the samples' steps: the rows up to upto [b]; the most of one sample, still on the
    device (rounds, 0-d); who has some before the step's end (inside [b], or [1] for all)."""

    upto: Tensor
    rounds: Tensor
    inside: Tensor


class SampleOutput:
    """Values (and derivatives) of each sample at its times; what is never reached stays NaN.

    times: [B, T], each row monotone, its first the start.
    y0: the state.
    every_step: writes the end of each accepted step instead, as many rows as the busiest sample has.
    """

    def __init__(
        self,
        times: Tensor,
        y0: Tensor,
        clocks: Each,
        derivatives: bool = False,
        differentiable: bool = False,
        every_step: bool = False,
    ):
        self.clocks, self.differentiable, self.every_step = clocks, differentiable, every_step
        self.start, self.end = times[:, 0], times[:, -1]
        if every_step:
            times = ends_of(times)
        backwards = times[:, -1:] < times[:, :1]
        # Both of the samples still in the batch.
        self.row_sign = torch.where(backwards, -1.0, 1.0).to(times)
        self.rows = (times * self.row_sign).contiguous()
        first = y0.movedim(clocks.batch, 0)
        # Autograd would count a row as often as it is written, so what is no output goes into one to spare.
        self.spare = int(differentiable and not every_step)
        start = torch.full((times.shape[1], *first.shape), float("nan"), dtype=y0.dtype, device=y0.device)
        # A sample whose times are all equal has all its outputs at once.
        self.at_start = (times == times[:, :1]).t().reshape(*start.shape[:2], *[1] * (first.dim() - 1))
        self.values = self._with_spare(torch.where(self.at_start, first, start))
        self.derivatives = self._with_spare(torch.full_like(start, float("nan"))) if derivatives else None
        self.next = torch.ones(times.shape[0], dtype=torch.int64, device=times.device)
        self.times = times.t().clone()  # of the rows, [rows, B]
        if every_step:
            self.times[1:] = torch.where(times[:, -1:] == times[:, :1], times[:, -1:], float("nan")).t()
        self.nowhere = torch.zeros_like(self.next[:1], dtype=torch.bool)
        self.n_rounds = 0

    def due(self, step: SampleStep) -> Due:
        """What is to be written of a step."""
        if self.every_step:
            upto, inside = self.next + step.accepted, self.nowhere
        elif self.rows.shape[1] == 2:  # only the end is wanted, and a step ends there
            arrived = step.accepted & (step.t1 * self.row_sign[:, 0] == self.rows[:, 1])
            upto, inside = self.next + arrived, self.nowhere
        else:
            upto = torch.where(step.accepted, self._reached(step.t1), self.next)
            inside = step.accepted & (self._reached(step.t1, right=False) > self.next)
        return Due(upto, (upto - self.next).amax(), inside)

    def _reached(self, t: Tensor, *, right: bool = True) -> Tensor:
        """How many of each sample's times lie at or before t (right=False: before t)."""
        return torch.searchsorted(self.rows, (t[:, None] * self.row_sign).contiguous(), right=right)[:, 0]

    def write(self, step: SampleStep, due: Due, rounds: int) -> Written:
        """All outputs in (t0, t1] of the samples that accepted, those after a terminal event left out.

        rounds: the most of one sample.
        """
        upto, end = due.upto, step.t1 if step.until is None else step.until
        if step.until is not None and not self.every_step:
            upto = torch.minimum(upto, torch.maximum(self._reached(end), self.next))
        place = (
            self.next + torch.arange(rounds, dtype=torch.int64, device=self.next.device)[:, None]
        )  # [m, b]
        valid = place < upto
        place = torch.where(valid, place, 0)
        if self.every_step:
            t = end[None]
            self._grow(place[0], step.index, valid[0], t[0])
        else:
            t = (self.rows.gather(1, place.t()) * self.row_sign).t()
        written = self._write(step, place, valid, t)
        self.next = upto
        return written

    def _write(self, step: SampleStep, place: Tensor, valid: Tensor, t: Tensor) -> Written:
        theta = torch.where(valid & (t != step.t1), (t - step.t0) / (step.t1 - step.t0), 1.0)
        value, weights = step.at(theta)
        self.values = self._put(self.values, place, step.index, valid, value)
        if self.derivatives is not None:
            slope, _ = step.at(theta, derivative=True)
            self.derivatives = self._put(self.derivatives, place, step.index, valid, slope)
        return Written(place, valid, weights)

    def _grow(self, place: Tensor, index: Tensor, valid: Tensor, t: Tensor) -> None:
        """Room for one more row, and its times: a step writes at most one row beyond those there."""
        self.n_rounds += 1
        if self.n_rounds >= len(self.values):
            self._all_rows(lambda rows: torch.cat((rows, torch.full_like(rows, float("nan")))))
        kept = torch.where(valid, t, self.times[place, index])
        self.times.index_put_((place, index), kept)

    def trim(self) -> None:
        """Drops the rows that no sample reached (save="steps")."""
        if self.every_step:
            n = 1 + int((~self.times.isnan()).any(1).nonzero().amax())  # host read, after the solve
            self._all_rows(lambda rows: rows[:n])

    def _all_rows(self, change: Callable[[Tensor], Tensor]) -> None:
        self.values, self.times = change(self.values), change(self.times)
        if self.derivatives is not None:
            self.derivatives = change(self.derivatives)

    def start_derivatives(self, f0: Tensor) -> None:
        """y' at every output that is its sample's start."""
        if self.derivatives is not None:
            f0, rows = f0.movedim(self.clocks.batch, 0), self.derivatives
            n = len(rows) - self.spare
            self.derivatives = torch.cat((torch.where(self.at_start, f0, rows[:n]), rows[n:]))

    def _with_spare(self, rows: Tensor) -> Tensor:
        """Room for what is no output."""
        return torch.cat((rows, torch.zeros_like(rows[:1]))) if self.spare else rows

    def _put(self, out: Tensor, place: Tensor, index: Tensor, valid: Tensor, value: Tensor) -> Tensor:
        """out with the values [m, *state] at their places, [m, b]."""
        value = value.movedim(self.clocks.batch + 1, 1)
        mask = valid.view(*valid.shape, *[1] * (value.dim() - 2))
        if self.spare:
            place = torch.where(valid, place, len(out) - 1)
        value = torch.where(mask, value, 0.0 if self.spare else out[place, index])
        put = Tensor.index_put if self.differentiable else Tensor.index_put_
        return put(out, (place, index), value)

    def select(self, keep: Tensor) -> None:
        """Samples leave the batch; keep holds the positions of those that stay."""
        self.rows, self.row_sign = self.rows.index_select(0, keep), self.row_sign.index_select(0, keep)
        self.next = self.next.index_select(0, keep)

    def result(self, values: Tensor) -> Tensor:
        """[T, *state] from the rows [T, b, …]."""
        rows = values[:-1] if self.spare else values
        return rows.movedim(1, self.clocks.batch + 1)
