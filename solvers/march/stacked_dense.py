"""A per-sample dense output that answers on the device: no host read, each sample at one time."""

from __future__ import annotations

import torch
from torch import Tensor

from ..methods.tableau import Numeric, theta_weights
from ..step.clocks import Each
from .samples import SampleStep


class StackedDense:
    """All attempts of a solve stacked, with the samples that were absent or did not accept passed by.

    steps: with stages of their own, in order.  start: [B].  y0: the state.
    """

    def __init__(self, steps: list[SampleStep], start: Tensor, y0: Tensor, clocks: Each, numeric: Numeric):
        self.clocks, self.numeric = clocks, numeric
        batch = len(start)
        ends, begins, states, stages = [], [], [], []
        last = start
        for step in steps:
            accepted = torch.zeros(batch, dtype=torch.bool, device=start.device)
            accepted = accepted.index_copy(0, step.index, step.accepted)
            begins.append(last.index_copy(0, step.index, step.t0))
            reached = last.index_copy(0, step.index, step.t1)
            last = torch.where(accepted, reached, last)
            ends.append(last)
            states.append(self._whole(step.y0, step.index, y0, batch))
            ks = [step.result.stages.get(i) for i in range(len(numeric.a_rows))]
            stages.append(torch.stack([self._whole(k, step.index, torch.zeros_like(y0), batch) for k in ks]))
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

    def _whole(self, part: Tensor, index: Tensor, like: Tensor, batch: int) -> Tensor:
        """The whole batch's rows, `like` where a sample was not there."""
        if len(index) == batch:
            return part
        return like.index_copy(self.clocks.batch, index, part)

    def value(self, t: Tensor) -> Tensor:
        """y at each sample's own time, t [B]."""
        n = torch.searchsorted(self.signed, (t[:, None] * self.sign).contiguous())[:, 0]
        n = n.clamp(max=self.signed.shape[1] - 1)
        b = self.row
        t0, length = self.begins[b, n], self.ends[b, n] - self.begins[b, n]
        theta = torch.where(length == 0, 0.0, (t - t0) / torch.where(length == 0, 1.0, length))
        weights = theta_weights(self.numeric, theta.clamp(0.0, 1.0)).to(self.states.dtype).t()  # [B, stages]
        k = self.stages[n, b]  # [B, stages, …]
        shape = (-1, *[1] * (k.dim() - 2))
        total = (k * weights.reshape(*weights.shape, *[1] * (k.dim() - 2))).sum(1)
        y = self.states[n, b] + length.to(k.dtype).view(shape) * total
        return y.movedim(0, self.clocks.batch)
