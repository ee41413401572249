"""Norms and the error ratio by which steps are judged. Every reduction propagates NaN."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .clocks import Each

Norm = Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """rtol and atol: floats, or tensors that broadcast against the state."""

    rtol: float | Tensor
    atol: float | Tensor

    def scale(self, *states: Tensor) -> Tensor:
        """atol + rtol · max |y|, the maximum over the states given."""
        size = states[0].abs()
        for y in states[1:]:
            size = torch.maximum(size, y.abs())  # torch.maximum keeps NaN, Python's max drops it
        return size.mul_(self.rtol).add_(self.atol)

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

        return Tolerance(part(self.rtol), part(self.atol))


def rms(x: Tensor) -> Tensor:
    """Root mean square of all entries, 0-d."""
    return torch.linalg.vector_norm(x) / math.sqrt(max(x.numel(), 1))


def maximum(x: Tensor) -> Tensor:
    """Largest modulus of all entries, 0-d."""
    return x.abs().amax()


def largest(values: Sequence[Tensor]) -> Tensor:
    """The largest of 0-d tensors; NaN if one is NaN (Python's max would return 0 for max(0, nan))."""
    return torch.stack(list(values)).amax()


def block_rms(x: Tensor) -> Tensor:
    """The largest of the blocks' RMS, for a state [K, B, *S]."""
    return torch.linalg.vector_norm(x.reshape(len(x), -1), dim=1).amax() / math.sqrt(max(x[0].numel(), 1))


def combine_errors(norms: Sequence[Tensor]) -> Tensor:
    """One number from the norms of the error estimates.

    One estimate: its norm. Two (dop853): n5² / √(n5² + 0.01 n3²).
    Source: Hairer, Nørsett, Wanner I, II.10, the code DOP853.
    """
    if len(norms) == 1:
        return norms[0]
    n5, n3 = norms
    square = n5 * n5
    denominator = torch.sqrt(square + 0.01 * n3 * n3)
    return torch.where(denominator == 0, denominator, square / denominator)


def error_ratio(errors: Sequence[Tensor], y0: Tensor, y1: Tensor, tolerance: Tolerance, norm: Norm) -> Tensor:
    """Norm of the local error over its tolerance; a step is accepted where it is ≤ 1.

    Source: Hairer, Nørsett, Wanner I, II.4, Eq. (4.11).
    """
    scale = tolerance.scale(y0, y1)
    return combine_errors([norm(error / scale) for error in errors])
