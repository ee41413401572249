"""The dense output of a solve with a step size for each sample."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .axes import Axes
from .errors import ArgumentError
from .interpolant import slope_weights, theta_weights
from .samples import SampleStep, Written
from .tableau import Numeric


class SampleDense:
    """The kept attempts; answers for any time of any sample.

    y0, slope0: state and f at the start.  start, end: [B], what was asked of the solve.  A time that a
    sample did not reach, since it failed or a terminal event ended it, is NaN.
    """

    def __init__(
        self,
        steps: list[SampleStep],
        y0: Tensor,
        slope0: Tensor,
        start: Tensor,
        end: Tensor,
        axes: Axes,
        numeric: Numeric,
    ):
        self.steps, self.y0, self.slope0, self.axes, self.numeric = steps, y0, slope0, axes, numeric
        self.start, self.end = start, end

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
        found = empty.movedim(self.axes.batch + 1, 1)
        first = self.slope0 if derivative else self.y0
        at_start = self.at_start(t).view(*t.shape, *[1] * (found.dim() - 2))
        found = torch.where(at_start, first.movedim(self.axes.batch, 0), found)
        for step in self.steps:
            for n, valid, theta in self._inside(step, t):
                found = self._fill(found, n, step, valid, theta, derivative)
        return found.movedim(1, self.axes.batch + 1)

    def at_start(self, t: Tensor) -> Tensor:
        """Which times are their sample's start."""
        return t == self.start

    def outputs(self, step: SampleStep, t: Tensor) -> list[Written]:
        """The times that lie in one attempt, as outputs with places 1, 2, … (0 is the start)."""
        return [
            Written(
                torch.full_like(step.index, n + 1),
                valid,
                theta_weights(self.numeric, theta).to(step.y0.dtype),
            )
            for n, valid, theta in self._inside(step, t)
        ]

    def _inside(self, step: SampleStep, t: Tensor) -> list[tuple[int, Tensor, Tensor]]:
        """(n, which samples' t[n] lies in this attempt's accepted step, θ there)."""
        theta = (t[:, step.index] - step.t0) / (step.t1 - step.t0)
        inside = step.accepted & (theta > 0) & (theta <= 1)
        if step.until is not None:  # nothing is known after a terminal event
            inside = inside & ((t[:, step.index] - step.until) * (step.t1 - step.t0) <= 0)
        rows = inside.any(1).tolist()  # host read
        return [(n, inside[n], torch.where(inside[n], theta[n], 1.0)) for n, some in enumerate(rows) if some]

    def _fill(
        self, found: Tensor, n: int, step: SampleStep, valid: Tensor, theta: Tensor, derivative: bool
    ) -> Tensor:
        """Row n with the answers of one attempt."""
        weights = slope_weights if derivative else theta_weights
        value = step.combine(None if derivative else step.y0, weights(self.numeric, theta).to(step.y0.dtype))
        if not derivative:
            value = torch.where(self.axes.spread(theta == 1.0), step.result.y1, value)
        value = value.movedim(self.axes.batch, 0)
        mask = valid.view(-1, *[1] * (value.dim() - 1))
        row = found[n].index_copy(
            0, step.index, torch.where(mask, value, found[n].index_select(0, step.index))
        )
        return torch.cat((found[:n], row[None], found[n + 1 :]))
