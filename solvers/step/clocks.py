"""Which clocks a state has: one for all of it, or one a sample. All else of an attempt is the same.

A clock's numbers (time, step, error ratio) are 0-d for `One` and [b] for `Each`, where b counts the
samples still in the batch. In groups the samples have clocks that show the same: what judges their steps
is pooled over the group.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import math

import torch
from torch import Tensor


class Clocks(abc.ABC):
    """How the numbers of clocks and the entries of a state meet."""

    @abc.abstractmethod
    def spread(self, v: Tensor) -> Tensor:
        """A number a clock as a tensor that broadcasts against the state; clocks in front stay there."""

    @abc.abstractmethod
    def time(self, t: Tensor, like: Tensor) -> Tensor:
        """Times of the clocks as f wants them, of the state's dtype."""

    @abc.abstractmethod
    def all(self, flags: Tensor) -> Tensor:
        """Whether all of a clock's entries are True."""

    @abc.abstractmethod
    def total(self, x: Tensor) -> Tensor:
        """The sum of a clock's entries."""

    @abc.abstractmethod
    def totals(self, x: Tensor) -> Tensor:
        """The same for several states, [n, *state]: a row each."""

    @abc.abstractmethod
    def rms(self, x: Tensor) -> Tensor:
        """Root mean square of a clock's entries."""

    @abc.abstractmethod
    def maximum(self, x: Tensor) -> Tensor:
        """Largest modulus of a clock's entries."""

    @abc.abstractmethod
    def block_rms(self, x: Tensor) -> Tensor:
        """The largest of the blocks' RMS, for a state [K, B, *S]."""

    @abc.abstractmethod
    def choose(self, which: Tensor | None, new: Tensor, old: Tensor) -> Tensor:
        """The new state where a clock's flag is set, else the old one; None: the new one."""

    @abc.abstractmethod
    def everyone(self, z: Tensor) -> Tensor | None:
        """The positions of all samples, [B]; None where all have one clock."""

    @abc.abstractmethod
    def take(self, whole: Tensor, index: Tensor | None) -> Tensor:
        """The samples at the positions in index; None: all."""

    @abc.abstractmethod
    def put(self, whole: Tensor, index: Tensor | None, part: Tensor) -> Tensor:
        """The whole state with those samples replaced."""

    def agreed(self, flags: Tensor) -> Tensor:
        """Flags of clocks, True where it is for all that step together."""
        return flags

    def led(self, v: Tensor, among: Tensor) -> Tensor:
        """Numbers of clocks, the same for all in `among` that step together."""
        return v


@dataclasses.dataclass(frozen=True)
class One(Clocks):
    """One clock for the whole state."""

    def spread(self, v: Tensor) -> Tensor:
        """A 0-d tensor broadcasts as it is."""
        return v

    def time(self, t: Tensor, like: Tensor) -> Tensor:
        """0-d."""
        return t.to(like.dtype)

    def all(self, flags: Tensor) -> Tensor:
        """Of all entries, 0-d."""
        return flags.all()

    def total(self, x: Tensor) -> Tensor:
        """Of all entries, 0-d."""
        return x.sum()

    def totals(self, x: Tensor) -> Tensor:
        """[n]."""
        return x.reshape(len(x), -1).sum(1)

    def rms(self, x: Tensor) -> Tensor:
        """Of all entries, 0-d."""
        return torch.linalg.vector_norm(x) / math.sqrt(max(x.numel(), 1))

    def maximum(self, x: Tensor) -> Tensor:
        """Of all entries, 0-d."""
        return x.abs().amax()

    def block_rms(self, x: Tensor) -> Tensor:
        """Of all entries of each block, 0-d."""
        blocks = torch.linalg.vector_norm(x.reshape(len(x), -1), dim=1)
        return blocks.amax() / math.sqrt(max(x[0].numel(), 1))

    def choose(self, which: Tensor | None, new: Tensor, old: Tensor) -> Tensor:
        """By a 0-d flag."""
        return new if which is None else torch.where(which, new, old)

    def everyone(self, z: Tensor) -> Tensor | None:
        """None."""

    def take(self, whole: Tensor, index: Tensor | None) -> Tensor:
        """All of it."""
        return whole

    def put(self, whole: Tensor, index: Tensor | None, part: Tensor) -> Tensor:
        """All of it is replaced."""
        return part


@dataclasses.dataclass(frozen=True, eq=False)
class Groups:
    """Which samples step together.

    ids: [b] int64, the group of each sample, below n.  among: [b], the samples that are under way: those
    that have ended no longer weigh on the others' steps.
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

    def first(self, v: Tensor, among: Tensor) -> Tensor:
        """[b]: the number of the first of each sample's group, of those in `among`; theirs alone changes."""
        own = torch.arange(len(v), dtype=torch.int64, device=v.device)
        none = torch.full_like(own[:1], len(v) - 1).expand(self.n)
        leader = none.scatter_reduce(0, self.ids, torch.where(among, own, len(v) - 1), "amin")
        return torch.where(among, v[leader[self.ids]], v)


@dataclasses.dataclass(frozen=True)
class Each(Clocks):
    """A clock a sample.

    batch: the state's batch axis (0, or 1 for blocks [K, B, *S]).  ndim: of the state.
    groups: which samples step together; None: each alone.
    """

    batch: int
    ndim: int
    groups: Groups | None = None

    def spread(self, v: Tensor) -> Tensor:
        """[b] as a tensor that broadcasts against the state; further clocks in front ([m, b]) stay there."""
        return v.reshape(*v.shape[:-1], *[-1 if i == self.batch else 1 for i in range(self.ndim)])

    def time(self, t: Tensor, like: Tensor) -> Tensor:
        """[b] times as [b, 1, …, 1], as many dimensions as the state, or as a block."""
        return t.to(like.dtype).view(-1, *[1] * (self.ndim - 1 - self.batch))

    def per_sample(self, x: Tensor) -> Tensor:
        """The state as [b, n]."""
        return x.movedim(self.batch, 0).reshape(x.shape[self.batch], -1)

    def rows_per_sample(self, x: Tensor) -> Tensor:
        """Several states, [rows, *state], as [rows, b, n]; n is 1 for a state [b]."""
        return x.movedim(self.batch + 1, 1).reshape(len(x), x.shape[self.batch + 1], -1)

    def all(self, flags: Tensor) -> Tensor:
        """[b]."""
        return self.per_sample(flags).all(1)

    def total(self, x: Tensor) -> Tensor:
        """[b]."""
        return self.per_sample(x).sum(1)

    def totals(self, x: Tensor) -> Tensor:
        """[n, b]."""
        return self.rows_per_sample(x).sum(2)

    def rms(self, x: Tensor) -> Tensor:
        """[b]."""
        flat = self.per_sample(x)
        size, width = torch.linalg.vector_norm(flat, dim=1), max(flat.shape[1], 1)
        if self.groups is None:
            return size / math.sqrt(width)
        pooled = self.groups.total(size.double().square()).sqrt().to(x.dtype)
        return pooled / (width * self.groups.total(torch.ones_like(size))).sqrt().to(x.dtype)

    def maximum(self, x: Tensor) -> Tensor:
        """[b]."""
        size = self.per_sample(x).abs().amax(1)
        return size if self.groups is None else self.groups.largest(size).to(x.dtype)

    def block_rms(self, x: Tensor) -> Tensor:
        """[b], for a state [K, B, *S]."""
        return torch.stack([self.of(block).rms(block) for block in x]).amax(0)

    def of(self, leaf: Tensor) -> Each:
        """The same clocks for a leaf or a block, whose batch is axis 0."""
        return Each(0, leaf.dim(), self.groups)

    def agreed(self, flags: Tensor) -> Tensor:
        """[b]: whether it is so for all of a sample's group."""
        return flags if self.groups is None else self.groups.every(flags)

    def led(self, v: Tensor, among: Tensor) -> Tensor:
        """[b]: the number of the first of a sample's group: powers of equal numbers may differ by a rounding
        from one lane of a processor to the next, and the group's clocks would drift apart."""
        return v if self.groups is None else self.groups.first(v, among)

    def batch_size(self, z: Tensor) -> int:
        """The number of samples in z."""
        return z.shape[self.batch]

    def choose(self, which: Tensor | None, new: Tensor, old: Tensor) -> Tensor:
        """By a flag a sample, [b]."""
        return new if which is None else torch.where(self.spread(which), new, old)

    def everyone(self, z: Tensor) -> Tensor | None:
        """[B], int64."""
        return torch.arange(self.batch_size(z), dtype=torch.int64, device=z.device)

    def take(self, whole: Tensor, index: Tensor | None) -> Tensor:
        """A copy where some samples have left, the state itself where none has."""
        if index is None or len(index) == self.batch_size(whole):
            return whole
        return whole.index_select(self.batch, index)

    def put(self, whole: Tensor, index: Tensor | None, part: Tensor) -> Tensor:
        """A copy where some samples have left, the part itself where none has."""
        if index is None or len(index) == self.batch_size(whole):
            return part
        return whole.index_copy(self.batch, index, part)


@functools.lru_cache(maxsize=64)  # one object for one form: programs are known by it and its methods
def each(batch: int, ndim: int) -> Each:
    """A clock a sample, for states with that batch axis and that many dimensions."""
    return Each(batch, ndim)


ONE = One()
