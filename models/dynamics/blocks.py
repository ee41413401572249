"""What the dynamics share: f fitted to its block, and a scalar parameter's gradient over the stages."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...solvers.errors import DynamicsError
from ..fields.field import per_sample
from ..fields.products import JOINED_BELOW


def fitted(f: Tensor, z: Tensor) -> Tensor:
    """f in the state's dtype (autocast shortens f); DynamicsError where it has not the shape of a block."""
    if f.shape != z.shape[1:]:
        raise DynamicsError(
            f"the field returned {tuple(f.shape)} for a block of the state of {tuple(z.shape[1:])}: "
            "dh must have h's shape."
        )
    return f if f.dtype is z.dtype else f.to(z.dtype)


def grouped(
    stages: Sequence[tuple[Tensor, ...]], weights: Tensor | None
) -> list[tuple[tuple[Tensor, ...], Tensor | None]]:
    """(blocks, weight) of each stage; small blocks, [B, …], joined over the stages to one group.

    weights: [n], [n, B] or None; a group's weight is 0-d, one for each row of its blocks, or None.
    """
    n, first = len(stages), stages[0][0]
    if n == 1 or first.numel() >= JOINED_BELOW:
        return [(blocks, None if weights is None else weights[i]) for i, blocks in enumerate(stages)]
    if weights is not None:
        weights = (weights if weights.ndim == 2 else weights[:, None].expand(n, first.shape[0])).reshape(-1)
    return [(tuple(torch.cat(blocks) for blocks in zip(*stages, strict=True)), weights)]


def paired(a: Tensor, slope: Tensor, weight: Tensor | None) -> Tensor:
    """Σ w ⟨a, x⟩ over a group, 0-d. a, slope: [B, …]; slope is written over. weight: 0-d, [B] or None."""
    product = slope.mul_(a)
    if weight is not None:
        product = product.mul_(per_sample(weight, product))
    return product.sum()


def total(parts: list[Tensor]) -> Tensor:
    """The sum of groups' parts."""
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum()
