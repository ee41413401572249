"""Where the batch lies in a state, and what follows from it for per-sample arithmetic."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Axes:
    """batch: the state's batch axis (0, or 1 for blocks [K, B, *S]); ndim: of the state."""

    batch: int
    ndim: int

    def spread(self, v: Tensor) -> Tensor:
        """[b] as a tensor that broadcasts against the state; further axes in front ([m, b]) stay there."""
        return v.reshape(*v.shape[:-1], *[-1 if i == self.batch else 1 for i in range(self.ndim)])

    def clock(self, t: Tensor, like: Tensor) -> Tensor:
        """[b] times as f wants them: [b, 1, …, 1], as many dimensions as the state, or as a block."""
        return t.to(like.dtype).view(-1, *[1] * (self.ndim - 1 - self.batch))

    def per_sample(self, x: Tensor) -> Tensor:
        """The state as [b, n]."""
        return x.movedim(self.batch, 0).reshape(x.shape[self.batch], -1)

    def rows_per_sample(self, x: Tensor) -> Tensor:
        """Several states, [rows, *state], as [rows, b, n]; n is 1 for a state [b]."""
        return x.movedim(self.batch + 1, 1).reshape(len(x), x.shape[self.batch + 1], -1)

    def all_samples(self, flags: Tensor) -> Tensor:
        """[b]: whether all of a sample's entries are True."""
        return self.per_sample(flags).all(1)

    def rms(self, x: Tensor) -> Tensor:
        """[b]: root mean square of each sample."""
        flat = self.per_sample(x)
        return torch.linalg.vector_norm(flat, dim=1) / math.sqrt(max(flat.shape[1], 1))

    def maximum(self, x: Tensor) -> Tensor:
        """[b]: largest modulus of each sample."""
        return self.per_sample(x).abs().amax(1)

    def block_rms(self, x: Tensor) -> Tensor:
        """[b]: the largest of a sample's blocks' RMS, for a state [K, B, *S]."""
        return torch.stack([Axes(0, self.ndim - 1).rms(block) for block in x]).amax(0)

    def batch_size(self, z: Tensor) -> int:
        """b."""
        return z.shape[self.batch]
