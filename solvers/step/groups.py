"""Samples that share their steps: what is pooled over a group."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Groups:
    """Which samples step together.

    ids: [b] int64, the group of each sample, below n.
    among: [b], the samples that are under way: those that have ended no longer weigh on the others' steps.
    """

    ids: Tensor
    n: int
    among: Tensor

    def total(self, v: Tensor) -> Tensor:
        """[b]: the sum over each sample's group."""
        own = torch.where(self.among, v.double(), 0.0)
        return own.new_zeros(self.n).index_add(0, self.ids, own)[self.ids]

    def largest(self, v: Tensor) -> Tensor:
        """[b]: the largest of each sample's group, NaN if one is; for numbers of at least 0."""
        own = torch.where(self.among, v.double(), 0.0)
        most = own.new_zeros(self.n).scatter_reduce(0, self.ids, own.nan_to_num(torch.inf), "amax")
        return torch.where(self.total(own.isnan()) > 0, torch.nan, most[self.ids])

    def every(self, flags: Tensor) -> Tensor:
        """[b]: whether it is so for all of each sample's group."""
        return self.total(~flags) == 0

    def first(self, v: Tensor, *among: Tensor) -> Tensor:
        """[b]: the number of the first of each sample's group, of those in one of `among` (none: of all);
        theirs alone changes."""
        asked = torch.stack(among).any(0) if among else torch.ones_like(self.among)
        own = torch.arange(len(v), dtype=torch.int64, device=v.device)
        none = torch.full_like(own[:1], len(v) - 1).expand(self.n)
        leader = none.scatter_reduce(0, self.ids, torch.where(asked, own, len(v) - 1), "amin")
        return torch.where(asked, v[leader[self.ids]], v)
