"""Joined tensors. torch is imported at the first call, so the catalogue can be listed without it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def cat(parts: Sequence[Tensor], axis: int = 0) -> Tensor:
    """`torch.cat`."""
    import torch

    return torch.cat(tuple(parts), axis)


def stack(parts: Sequence[Tensor]) -> Tensor:
    """`torch.stack` along a new first axis."""
    import torch

    return torch.stack(tuple(parts))
