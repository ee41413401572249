"""The dense output of a whole solve: with one clock, with a clock a sample, and that without a host read."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..checks import check_readable
from ..errors import ArgumentError
from ..methods.tableau import theta_weights
from ..step.clocks import Each
from .output import Place, Step
from .samples import SampleStep, Written


def check_within(t: Tensor, start: Tensor, end: Tensor, *, many: bool = True) -> None:
    """ArgumentError for times [n, B] outside their samples' solves, from start to end, [B]. One host read.

    many: whether there are samples to speak of.
    """
    outside = (t < torch.minimum(start, end)) | (t > torch.maximum(start, end)) | t.isnan()
    if bool(outside.any()):  # host read
        n, b = outside.nonzero()[0].tolist()
        where = f" of sample {b} lies outside its" if many else " lies outside the"
        raise ArgumentError(
            f"t={t[n, b].item()!r}{where} solve, which ran from {start[b].item()!r} to {end[b].item()!r}: a "
            "dense output does not extrapolate."
        )


class DenseOutput:
    """The kept steps of a solve with one clock; answers for any time between its start and its end."""

    def __init__(self, steps: Sequence[Step], start: float, end: float):
        self.steps, self.start, self.end = steps, start, end
        self.like = steps[0].y0
        self.sign = 1.0 if end >= start else -1.0
        self._ends = [self.sign * step.t1 for step in steps]

    def __getstate__(self) -> dict[str, Any]:
        """Without a graph."""
        return {**vars(self), "like": self.like.detach()}

    def _step(self, t: float) -> int:
        """The index of the step that t lies in; raises ArgumentError outside the solve."""
        if not self.sign * self.start <= self.sign * t <= self.sign * self.end:
            raise ArgumentError(
                f"t={t!r} lies outside the solve, which ran from {self.start!r} to {self.end!r}: a dense "
                "output does not extrapolate."
            )
        return min(bisect.bisect_left(self._ends, self.sign * t), len(self.steps) - 1)

    @staticmethod
    def read(t: Tensor) -> list[float]:
        """Times [n] as they are asked for below; a host read."""
        check_readable(t, "t")
        times: list[float] = t.detach().double().tolist()
        return times

    def evaluate(self, times: list[float], *, derivative: bool = False) -> Tensor:
        """y (or y') at several times, [n, *z]."""
        if not times:
            return self.like.new_empty((0, *self.like.shape))
        return torch.stack([self.derivative(t) if derivative else self.value(t) for t in times])

    def places(self, times: list[float]) -> list[Place]:
        """Where the start and the times lie, for an adjoint."""
        return [Place(-1, 1.0), *(self.place(t) for t in times)]

    def value(self, t: float) -> Tensor:
        """y(t), packed."""
        step = self.steps[self._step(t)]
        return step.y0 if t == step.t0 else step.value(t)

    def derivative(self, t: float) -> Tensor:
        """y'(t), packed."""
        return self.steps[self._step(t)].derivative(t)

    def place(self, t: float) -> Place:
        """Where t lies, for an adjoint."""
        n = self._step(t)
        step = self.steps[n]
        if t == step.t0:
            return Place(n - 1, 1.0)
        return Place(n, 1.0 if t == step.t1 else step.theta(t))


class SampleDense:
    """The kept attempts; answers for any time of any sample.

    y0, slope0: state and f at the start.
    ends: [B] each, what was asked of the solve.  A time that a sample did not reach, since it failed or a
        terminal event ended it, is NaN.
    """

    def __init__(
        self, steps: list[SampleStep], y0: Tensor, slope0: Tensor, ends: tuple[Tensor, Tensor], clocks: Each
    ):
        self.steps, self.y0, self.slope0, self.clocks = steps, y0, slope0, clocks
        self.start, self.end = ends

    def __getstate__(self) -> dict[str, Any]:
        """Without a graph."""
        return {name: x.detach() if isinstance(x, Tensor) else x for name, x in vars(self).items()}

    @staticmethod
    def read(t: Tensor) -> Tensor:
        """Times [n, B] as they are asked for below; they stay on the device."""
        return t.detach().double()

    def evaluate(self, t: Tensor, *, derivative: bool = False) -> Tensor:
        """y (or y') at times t, [n, B]: [n, *state]."""
        check_within(t, self.start, self.end)
        empty = torch.full((len(t), *self.y0.shape), math.nan, dtype=self.y0.dtype, device=self.y0.device)
        found = empty.movedim(self.clocks.batch + 1, 1)
        first = self.slope0 if derivative else self.y0
        at_start = (t == self.start).view(*t.shape, *[1] * (found.dim() - 2))
        found = torch.where(at_start, first.movedim(self.clocks.batch, 0), found)
        for step in self.steps:
            found = self._fill(found, step, t, derivative)
        return found.movedim(1, self.clocks.batch + 1)

    def outputs(self, step: SampleStep, t: Tensor) -> list[Written]:
        """The times that lie in one attempt, as outputs with places 1, 2, … (0 is the start)."""
        rows, valid, theta = self._inside(step, t)
        if not len(rows):
            return []
        place = rows[:, None] + torch.ones_like(step.index)
        return [Written(place, valid, step.weights(theta))]

    def _inside(self, step: SampleStep, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The rows of t [n, B] that lie in this attempt's accepted step for some sample, for which, and θ."""
        theta = (t[:, step.index] - step.t0) / (step.t1 - step.t0)
        inside = step.accepted & (theta > 0) & (theta <= 1)
        if step.until is not None:  # nothing is known after a terminal event
            inside = inside & ((t[:, step.index] - step.until) * (step.t1 - step.t0) <= 0)
        rows = [n for n, some in enumerate(inside.any(1).tolist()) if some]  # host read
        index = torch.tensor(rows, dtype=torch.int64, device=t.device)
        inside, theta = inside.index_select(0, index), theta.index_select(0, index)
        return index, inside, torch.where(inside, theta, 1.0)

    def _fill(self, found: Tensor, step: SampleStep, t: Tensor, derivative: bool) -> Tensor:
        """[n, B, …] with the answers of one attempt."""
        rows, valid, theta = self._inside(step, t)
        if not len(rows):
            return found
        value, _ = step.at(theta, derivative=derivative)
        value = value.movedim(self.clocks.batch + 1, 1)
        mask = valid.view(*valid.shape, *[1] * (value.dim() - 2))
        place = (rows[:, None], step.index)
        return found.index_put(place, torch.where(mask, value, found[place]))


class StackedDense:
    """All attempts of a solve stacked, with the samples that were absent or did not accept passed by: answers
    for each sample at one time, on the device.

    steps: with stages of their own, in order.
    start: [B].
    y0: the state.
    """

    def __init__(self, steps: Sequence[SampleStep], start: Tensor, y0: Tensor, clocks: Each):
        self.clocks = clocks
        batch = len(start)
        numerics = [step.result.stages.numeric for step in steps]
        self.numerics = list(dict.fromkeys(numerics))  # one, or those of a method that changes
        kinds = torch.tensor([self.numerics.index(x) for x in numerics], dtype=torch.int64, device="cpu")
        self.kinds, most = kinds.to(start.device), max(len(x.a_rows) for x in self.numerics)
        ends, begins, states, stages = [], [], [], []
        last = start
        for step in steps:
            accepted = torch.zeros(batch, dtype=torch.bool, device=start.device)
            accepted = accepted.index_copy(0, step.index, step.accepted)
            begins.append(last.index_copy(0, step.index, step.t0))
            reached = last.index_copy(0, step.index, step.t1)
            last = torch.where(accepted, reached, last)
            ends.append(last)
            states.append(clocks.put(y0, step.index, step.y0))
            ks = [step.result.stages.get(i) for i in range(len(step.result.stages.numeric.a_rows))]
            rows = [clocks.put(torch.zeros_like(y0), step.index, k) for k in ks]
            stages.append(torch.stack([*rows, *[torch.zeros_like(y0)] * (most - len(rows))]))
        # A sample that took no step may hold what is no number: one that did stands in for it.
        moved = last != start
        own = torch.arange(batch, dtype=torch.int64, device=start.device)
        self.row = torch.where(moved, own, moved.to(torch.int8).argmax())
        self.begins, self.ends = torch.stack(begins, 1), torch.stack(ends, 1)  # [B, N]
        ends_here = self.ends[self.row]
        self.sign = torch.where(ends_here[:, -1:] < start[self.row, None], -1.0, 1.0)
        self.signed = (ends_here * self.sign).contiguous()
        self.states = torch.stack(states).movedim(clocks.batch + 1, 1)  # [N, B, …]
        self.stages = torch.stack(stages).movedim(clocks.batch + 2, 1)  # [N, B, stages, …]

    def value(self, t: Tensor) -> Tensor:
        """y at each sample's own time, t [B]."""
        n = torch.searchsorted(self.signed, (t[:, None] * self.sign).contiguous())[:, 0]
        n = n.clamp(max=self.signed.shape[1] - 1)
        b = self.row
        t0, length = self.begins[b, n], self.ends[b, n] - self.begins[b, n]
        theta = torch.where(length == 0, 0.0, (t - t0) / torch.where(length == 0, 1.0, length))
        k = self.stages[n, b]  # [B, stages, …]
        weights = self._weights(theta.clamp(0.0, 1.0), self.kinds[n], k.shape[1]).to(k.dtype)  # [B, stages]
        shape = (-1, *[1] * (k.dim() - 2))
        total = (k * weights.reshape(*weights.shape, *[1] * (k.dim() - 2))).sum(1)
        y = self.states[n, b] + length.to(k.dtype).view(shape) * total
        return y.movedim(0, self.clocks.batch)

    def _weights(self, theta: Tensor, kind: Tensor, most: int) -> Tensor:
        """b_i(θ) of each sample's step, [B, most]; 0 for stages that its method does not have."""
        tables = [theta_weights(numeric, theta).t() for numeric in self.numerics]
        if len(tables) == 1:
            return tables[0]
        wide = [torch.cat((x, x.new_zeros(len(x), most - x.shape[1])), 1) for x in tables]
        return torch.stack(wide)[kind, torch.arange(len(theta), dtype=torch.int64, device=theta.device)]
