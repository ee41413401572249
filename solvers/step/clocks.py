"""Which clocks a state has: one for all of it, or one a sample. All else of an attempt is the same.

A clock's numbers (time, step, error ratio) are 0-d for `One` and [b] for `Each`, where b counts the
samples still in the batch. In groups the samples have clocks that show the same: what judges their steps
is pooled over the group.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError, ArgumentTypeError
from ..methods.tableau import Number
from .field import Layout
from .groups import Groups


class Clocks:
    """How the numbers of clocks and the entries of a state meet; as it stands here, of one clock for all."""

    def spread(self, v: Tensor) -> Tensor:
        """A number a clock as a tensor that broadcasts against the state; clocks in front stay there."""
        return v

    def time(self, t: Tensor, like: Tensor) -> Tensor:
        """Times of the clocks as f wants them, of the state's dtype."""
        return t.to(like.dtype)

    def shape(self, z: Tensor) -> tuple[int, ...]:
        """Of one number a clock of the state z."""
        return ()

    def all(self, flags: Tensor) -> Tensor:
        """Whether all of a clock's entries are True."""
        return flags.all()

    def total(self, x: Tensor) -> Tensor:
        """The sum of a clock's entries."""
        return x.sum()

    def totals(self, x: Tensor) -> Tensor:
        """The same for several states, [n, *state]: a row each."""
        return x.reshape(len(x), -1).sum(1)

    def rms(self, x: Tensor) -> Tensor:
        """Root mean square of a clock's entries."""
        return torch.linalg.vector_norm(x) / math.sqrt(max(x.numel(), 1))

    def maximum(self, x: Tensor) -> Tensor:
        """Largest modulus of a clock's entries."""
        return x.abs().amax()

    def block_rms(self, x: Tensor) -> Tensor:
        """The largest of the blocks' RMS, for a state [K, B, *S]."""
        blocks = torch.linalg.vector_norm(x.reshape(len(x), -1), dim=1)
        return blocks.amax() / math.sqrt(max(x[0].numel(), 1))

    def has_blocks(self, shape: tuple[int, ...]) -> bool:
        """Whether axis 0 of a state of that shape may be one of blocks."""
        return len(shape) > 0

    def of(self, leaf: Tensor) -> Clocks:
        """The same clocks for a leaf or a block, whose batch is axis 0."""
        return self

    def choose(self, which: Tensor | None, new: Tensor, old: Tensor) -> Tensor:
        """The new state where a clock's flag is set, else the old one; None: the new one."""
        return new if which is None else torch.where(self.spread(which), new, old)

    def everyone(self, z: Tensor) -> Tensor | None:
        """The positions of all samples, [B]; None where all have one clock."""
        return None

    def take(self, whole: Tensor, index: Tensor | None) -> Tensor:
        """The samples at the positions in index; None: all."""
        return whole

    def put(self, whole: Tensor, index: Tensor | None, part: Tensor) -> Tensor:
        """The whole state with those samples replaced."""
        return part

    def pick(self, rows: Tensor, place: Tensor) -> Tensor:
        """The state made of one of n states, [n, *S], for each clock: place holds their numbers, [1]."""
        return rows.index_select(0, place)[0]

    def store(self, rows: Tensor, place: Tensor, z: Tensor) -> None:
        """Writes each clock's part of a state into the row at its place."""
        rows.index_copy_(0, place, z[None])

    def agreed(self, flags: Tensor) -> Tensor:
        """Flags of clocks, True where it is for all that step together."""
        return flags

    def agreed_any(self, flags: Tensor) -> Tensor:
        """Flags of clocks, True where it is for one of those that step together."""
        return ~self.agreed(~flags)

    def led(self, v: Tensor, *among: Tensor) -> Tensor:
        """Numbers of clocks, the same for all that step together, of those in one of `among` (none: all)."""
        return v

    def pooled(self, v: Tensor, like: Tensor) -> Tensor:
        """Numbers (at least 0) of the clocks of a state, the largest of all that step together."""
        return v


@dataclasses.dataclass(frozen=True)
class One(Clocks):
    """One clock for the whole state: a clock's numbers are 0-d, and samples are not told apart."""


@dataclasses.dataclass(frozen=True)
class Each(Clocks):
    """A clock a sample.

    batch: the state's batch axis (0, or 1 for blocks [K, B, *S]).
    ndim: of the state.
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

    def shape(self, z: Tensor) -> tuple[int, ...]:
        """One a sample, (b,)."""
        return (self.batch_size(z),)

    def pick(self, rows: Tensor, place: Tensor) -> Tensor:
        """Of each sample its own; place: [b]."""
        return rows.gather(0, self.spread(place).expand(1, *rows.shape[1:]))[0]

    def store(self, rows: Tensor, place: Tensor, z: Tensor) -> None:
        """Of each sample to its own; place: [b]."""
        rows.scatter_(0, self.spread(place).expand(1, *z.shape), z[None])

    def per_sample(self, x: Tensor) -> Tensor:
        """The state as [b, n]."""
        return x.movedim(self.batch, 0).reshape(x.shape[self.batch], -1)

    def rows_per_sample(self, x: Tensor) -> Tensor:
        """Several states, [rows, *state], as [rows, b, n]; n is 1 for a state [b]."""
        return x.movedim(self.batch + 1, 1).reshape(len(x), x.shape[self.batch + 1], -1)

    def all(self, flags: Tensor) -> Tensor:
        """One a sample, [b]."""
        return self.per_sample(flags).all(1)

    def total(self, x: Tensor) -> Tensor:
        """One a sample, [b]."""
        return self.per_sample(x).sum(1)

    def totals(self, x: Tensor) -> Tensor:
        """One a state and sample, [n, b]."""
        return self.rows_per_sample(x).sum(2)

    def rms(self, x: Tensor) -> Tensor:
        """One a sample, [b]."""
        flat = self.per_sample(x)
        size, width = torch.linalg.vector_norm(flat, dim=1), max(flat.shape[1], 1)
        if self.groups is None:
            return size / math.sqrt(width)
        pooled = self.groups.total(size.double().square()).sqrt().to(size.dtype)
        return pooled / (width * self.groups.total(torch.ones_like(size))).sqrt().to(size.dtype)

    def maximum(self, x: Tensor) -> Tensor:
        """One a sample, [b]."""
        size = self.per_sample(x).abs().amax(1)
        return self.pooled(size, size)

    def block_rms(self, x: Tensor) -> Tensor:
        """[b], for a state [K, B, *S]."""
        return largest([self.of(block).rms(block) for block in x])

    def has_blocks(self, shape: tuple[int, ...]) -> bool:
        """Only of a Dynamics' state, [K, B, …]."""
        return self.batch == 1

    def of(self, leaf: Tensor) -> Each:
        """The same clocks for a leaf or a block, whose batch is axis 0."""
        return Each(0, leaf.dim(), self.groups)

    def agreed(self, flags: Tensor) -> Tensor:
        """[b]: whether it is so for all of a sample's group."""
        return flags if self.groups is None else self.groups.every(flags)

    def led(self, v: Tensor, *among: Tensor) -> Tensor:
        """[b]: the number of the first of a sample's group: powers of equal numbers may differ by a rounding
        from one lane of a processor to the next, and the group's clocks would drift apart."""
        return v if self.groups is None else self.groups.first(v, *among)

    def pooled(self, v: Tensor, like: Tensor) -> Tensor:
        """[b]: the largest of a sample's group."""
        return v if self.groups is None else self.groups.largest(v).to(like.dtype)

    def batch_size(self, z: Tensor) -> int:
        """The number of samples in z."""
        return z.shape[self.batch]

    def everyone(self, z: Tensor) -> Tensor | None:
        """Positions 0 … B − 1, int64."""
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
rms, maximum, block_rms = ONE.rms, ONE.maximum, ONE.block_rms


def times_between(t0: Number, t1: Number, nodes: Sequence[float]) -> list[Number]:
    """t0 + c_i (t1 − t0) for every stage, exactly t1 where c_i = 1."""
    span = t1 - t0
    return [t1 if c == 1.0 else t0 + c * span for c in nodes]


def sent(numbers: Sequence[Any], device: torch.device, dtype: torch.dtype = torch.float64) -> Tensor:
    """Numbers (or rows of such) of the host's on a device, without waiting for it."""
    return torch.tensor(numbers, dtype=dtype, device="cpu").to(device, non_blocking=True)


Norm = Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """rtol and atol: floats, or tensors that broadcast against the state.

    paired: neighbours along the state's last axis are real and imaginary part, and have the modulus as size.
    """

    rtol: float | Tensor
    atol: float | Tensor
    paired: bool = False

    def scale(self, *states: Tensor) -> Tensor:
        """atol + rtol · max |y|, the maximum over the states given."""
        size = self.size(states[0])
        for y in states[1:]:
            size = torch.maximum(size, self.size(y))  # torch.maximum keeps NaN, Python's max drops it
        return size.mul_(self.rtol).add_(self.atol)

    def size(self, y: Tensor) -> Tensor:
        """|y| of each number."""
        if not self.paired:
            return y.abs()
        pairs = y.reshape(*y.shape[:-1], -1, 2)
        return torch.linalg.vector_norm(pairs, dim=-1).repeat_interleave(2, dim=-1)

    def tensors(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """rtol and atol as tensors of like's dtype and device: arguments of a compiled program."""

        def tensor(value: float | Tensor) -> Tensor:
            if isinstance(value, Tensor):
                return value.to(like, non_blocking=True)
            return torch.full((), value, dtype=like.dtype, device=like.device)

        return tensor(self.rtol), tensor(self.atol)

    def select(self, keep: Tensor, clocks: Each, batch: int) -> Tolerance:
        """The tolerances of the samples at the positions in keep."""

        def part(value: float | Tensor) -> float | Tensor:
            if not isinstance(value, Tensor) or value.dim() < clocks.ndim - clocks.batch:
                return value
            axis = clocks.batch - clocks.ndim  # counted from behind: leading clocks may be missing
            return value.index_select(axis, keep) if value.shape[axis] == batch else value

        return dataclasses.replace(self, rtol=part(self.rtol), atol=part(self.atol))


def largest(values: Sequence[Tensor]) -> Tensor:
    """The largest of several tensors; NaN if one is NaN (Python's max would return 0 for max(0, nan))."""
    return torch.stack(list(values)).amax(0)


def combine_errors(norms: Sequence[Tensor]) -> Tensor:
    """One number from the norms of the error estimates.

    One estimate: its norm. Two (dop853): n5² / √(n5² + 0.01 n3²).
    Source: Hairer, Nørsett, Wanner I, II.10, the code DOP853.
    """
    if len(norms) == 1:
        return norms[0]
    n5, n3 = norms
    square = n5 * n5
    both = square + 0.01 * n3 * n3
    return square / torch.where(both == 0, 1.0, both).sqrt()  # 0 of nothing, and so is the gradient


EASED = 0.5  # a ratio at which no controller shortens a step


def error_ratio(
    errors: Sequence[Tensor],
    y0: Tensor,
    y1: Tensor,
    tolerance: Tolerance,
    norm: Norm,
    apart: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Norm of the local error over its tolerance; a step is accepted where it is ≤ 1.

    apart: how far the two solutions of a pair are apart at both ends; the ratio is not below that at y1.
    Source: Hairer, Nørsett, Wanner I, II.4, Eq. (4.11).
    """
    scale = tolerance.scale(y0.detach(), y1.detach())  # no_grad does not stop forward-mode AD
    ratio = combine_errors([norm(error.detach() / scale) for error in errors])
    if apart is None:
        return ratio
    before, after = (norm(x.detach() / scale) for x in apart)
    # A shorter step would not bring together what comes together anyway; the step is not to grow much.
    after = torch.where(after <= before, after.clamp(max=EASED), after)
    return torch.maximum(ratio, after)  # keeps NaN


def norm_value(value: Any, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """What a user's norm returned, its modulus, in the shape that it must have."""
    wanted = f"one number a sample, shape {shape}" if shape else "one number, a 0-d tensor"
    if isinstance(value, (int, float)):
        value = torch.full((), value, dtype=like.dtype, device=like.device)
    if not isinstance(value, Tensor) or value.dtype == torch.bool or value.is_complex():
        found = f"tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
        raise ArgumentTypeError(f"norm returned a {found}; it must return {wanted}.")
    if value.shape != shape if shape else value.numel() != 1:
        raise ArgumentError(f"norm returned shape {tuple(value.shape)}; it must return {wanted}.")
    return value.reshape(shape).abs()


def norm_of(norm: str | Callable[[Any], Any], layout: Layout, clocks: Clocks = ONE) -> Norm:
    """The error norm on the packed state, a number a clock. For a pytree "rms" is the largest of its leaves'
    RMS, and "blocks" the same; for one tensor [K, …] the largest of the RMS of its K blocks. Of a norm of the
    caller's the modulus counts, as torchdiffeq takes it, and the largest of all that step together."""
    if callable(norm):
        own = norm
        return lambda z: clocks.pooled(norm_value(own(layout.seen_by_norm(z)), clocks.shape(z), z), z)
    blocks = norm == "blocks" and layout.single and clocks.has_blocks(layout.shapes[0])
    if layout.single and not layout.paired:
        return clocks.maximum if norm == "max" else clocks.block_rms if blocks else clocks.rms
    if blocks:
        return lambda z: clocks.block_rms(layout.leaves(z)[0])
    if norm == "max":
        return lambda z: largest([clocks.of(leaf).maximum(leaf) for leaf in layout.leaves(z) if leaf.numel()])
    return lambda z: largest([clocks.of(leaf).rms(leaf) for leaf in layout.leaves(z) if leaf.numel()])


def distance(again: Tensor, k: Tensor) -> Tensor:
    """The largest difference, relative to the largest entry of k (absolute where k is 0), 0-d."""
    scale = k.abs().amax()
    return torch.where(scale == 0, again.abs().amax(), (again - k).abs().amax() / scale)


def unlike(off: float, dtype: torch.dtype) -> bool:
    """Whether two evaluations at one place differ by more than rounding.

    off: the difference, relative to the value.
    Rounding measured: up to 23 eps, of two 4096-wide layers whose rows are multiplied alone and in a batch of
    64. The limit is 40 times that; randomness is far above (what dropout drops is a whole entry).
    """
    return not off <= 1e3 * torch.finfo(dtype).eps
