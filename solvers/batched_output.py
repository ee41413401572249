"""Writes each sample's solution at its own times, without a host read of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from .axes import Axes
from .samples import SampleStep, Written
from .tableau import Numeric


class SampleOutput:
    """Values (and derivatives) of each sample at its times; what is never reached stays NaN.

    times: [B, T], each row monotone, its first the start.  y0: the state.
    steps: writes every accepted step instead (save="steps").
    """

    def __init__(
        self,
        times: Tensor,
        y0: Tensor,
        axes: Axes,
        *,
        derivatives: bool = False,
        differentiable: bool = False,
    ):
        self.axes, self.differentiable = axes, differentiable
        backwards = times[:, -1:] < times[:, :1]
        self.sign = torch.where(backwards, -1.0, 1.0).to(times)
        self.signed = (times * self.sign).contiguous()
        self.rows = self.signed  # of the samples still in the batch
        self.row_sign = self.sign
        first = y0.movedim(axes.batch, 0)
        start = torch.full((times.shape[1], *first.shape), float("nan"), dtype=y0.dtype, device=y0.device)
        # A sample whose times are all equal has all its outputs at once.
        at_start = (times == times[:, :1]).t().reshape(*start.shape[:2], *[1] * (first.dim() - 1))
        self.values = torch.where(at_start, first, start)
        self.derivatives = torch.full_like(start, float("nan")) if derivatives else None
        self.next = torch.ones(times.shape[0], dtype=torch.int64, device=times.device)

    def count(self, step: SampleStep, accepted: Tensor) -> Tensor:
        """The most outputs that lie in one sample's step; 0-d, still on the device."""
        reached = (step.t1[:, None] * self.row_sign).contiguous()
        self.upto = torch.searchsorted(self.rows, reached, right=True)[:, 0]
        self.upto = torch.where(accepted, self.upto, self.next)
        return (self.upto - self.next).amax()

    def write(self, step: SampleStep, rounds: int, numeric: Numeric) -> list[Written]:
        """All outputs in (t0, t1] of the samples that accepted."""
        written = []
        for j in range(rounds):
            place = self.next + j
            valid = place < self.upto
            place = torch.where(valid, place, 0)
            t = (self.rows.gather(1, place[:, None]) * self.row_sign)[:, 0]
            theta = torch.where(valid & (t != step.t1), (t - step.t0) / (step.t1 - step.t0), 1.0)
            powers = theta ** torch.arange(1, numeric.dense.shape[1] + 1, device=t.device)[:, None]
            weights = (numeric.dense.double() @ powers).to(step.y0.dtype)
            value = step.combine(step.y0, weights)
            value = torch.where(self.axes.spread(theta == 1.0), step.result.y1, value)
            self.values = self._put(self.values, place, step.index, valid, value)
            if self.derivatives is not None:
                slope = self._slope(step, theta, numeric)
                self.derivatives = self._put(self.derivatives, place, step.index, valid, slope)
            written.append(Written(place, valid, weights))
        self.next = self.upto
        return written

    def start_derivatives(self, f0: Tensor) -> None:
        """y' at every sample's start."""
        if self.derivatives is not None:
            self.derivatives = torch.cat((f0.movedim(self.axes.batch, 0)[None], self.derivatives[1:]))

    def _slope(self, step: SampleStep, theta: Tensor, numeric: Numeric) -> Tensor:
        """Σ b_i'(θ) k_i; exactly f(t1, y1) at the end of the step."""
        degree = torch.arange(1, numeric.dense.shape[1] + 1, device=theta.device)[:, None]
        powers = degree * theta ** (degree - 1)
        inside = step.combine(None, (numeric.dense.double() @ powers).to(step.y0.dtype))
        last = step.result.stages.get(len(numeric.b) - 1)
        return torch.where(self.axes.spread(theta == 1.0), last, inside)

    def _put(self, out: Tensor, place: Tensor, index: Tensor, valid: Tensor, value: Tensor) -> Tensor:
        value = value.movedim(self.axes.batch, 0)
        mask = valid.view(-1, *[1] * (value.dim() - 1))
        value = torch.where(mask, value, out[place, index])
        if self.differentiable:
            return out.index_put((place, index), value)
        return out.index_put_((place, index), value)

    def select(self, keep: Tensor) -> None:
        """Samples leave the batch; keep holds the positions of those that stay."""
        self.rows, self.row_sign = self.rows.index_select(0, keep), self.row_sign.index_select(0, keep)
        self.next = self.next.index_select(0, keep)

    def result(self, values: Tensor) -> Tensor:
        """[T, *state] from [T, b, …]."""
        return values.movedim(1, self.axes.batch + 1)
