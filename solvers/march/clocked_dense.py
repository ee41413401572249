"""The dense output of a solve with a step size for each sample."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import ArgumentError
from ..methods.tableau import Numeric, slope_weights, theta_weights
from ..step.clocks import Each
from .samples import SampleStep, Written


class SampleDense:
    """The kept attempts; answers for any time of any sample.

    y0, slope0: state and f at the start.  ends: [B] each, what was asked of the solve.  A time that a
    sample did not reach, since it failed or a terminal event ended it, is NaN.
    """

    def __init__(
        self,
        steps: list[SampleStep],
        y0: Tensor,
        slope0: Tensor,
        ends: tuple[Tensor, Tensor],
        clocks: Each,
        numeric: Numeric,
    ):
        self.steps, self.y0, self.slope0, self.clocks, self.numeric = steps, y0, slope0, clocks, numeric
        self.start, self.end = ends

    @staticmethod
    def read(t: Tensor) -> Tensor:
        """Times [n, B] as they are asked for below; they stay on the device."""
        return t.detach().double()

    def evaluate(self, t: Tensor, *, derivative: bool = False) -> Tensor:
        """y (or y') at times t, [n, B]: [n, *state]."""
        low, high = torch.minimum(self.start, self.end), torch.maximum(self.start, self.end)
        outside = (t < low) | (t > high) | t.isnan()
        if bool(outside.any()):  # host read
            n, b = outside.nonzero()[0].tolist()
            raise ArgumentError(
                f"t={t[n, b].item()!r} of sample {b} lies outside its solve, which ran from "
                f"{self.start[b].item()!r} to {self.end[b].item()!r}: a dense output is no extrapolation."
            )
        empty = torch.full((len(t), *self.y0.shape), math.nan, dtype=self.y0.dtype, device=self.y0.device)
        found = empty.movedim(self.clocks.batch + 1, 1)
        first = self.slope0 if derivative else self.y0
        at_start = self.at_start(t).view(*t.shape, *[1] * (found.dim() - 2))
        found = torch.where(at_start, first.movedim(self.clocks.batch, 0), found)
        for step in self.steps:
            found = self._fill(found, step, t, derivative)
        return found.movedim(1, self.clocks.batch + 1)

    def at_start(self, t: Tensor) -> Tensor:
        """Which times are their sample's start."""
        return t == self.start

    def outputs(self, step: SampleStep, t: Tensor) -> list[Written]:
        """The times that lie in one attempt, as outputs with places 1, 2, … (0 is the start)."""
        rows, valid, theta = self._inside(step, t)
        if not len(rows):
            return []
        place = rows[:, None] + torch.ones_like(step.index)
        return [Written(place, valid, theta_weights(self.numeric, theta).to(step.y0.dtype))]

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
        weights = slope_weights if derivative else theta_weights
        value = step.combine(None if derivative else step.y0, weights(self.numeric, theta).to(step.y0.dtype))
        at_end = step.result.stages.get(step.tableau.n_stages - 1) if derivative else step.result.y1
        value = torch.where(self.clocks.spread(theta == 1.0), at_end, value)
        value = value.movedim(self.clocks.batch + 1, 1)
        mask = valid.view(*valid.shape, *[1] * (value.dim() - 2))
        place = (rows[:, None], step.index)
        return found.index_put(place, torch.where(mask, value, found[place]))
