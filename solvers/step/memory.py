"""In which order of its axes a state lies in memory, new memory of that order, and numbers of the host's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def sent(numbers: Sequence[Any], device: torch.device, dtype: torch.dtype = torch.float64) -> Tensor:
    """Numbers (or rows of such) of the host's on a device, without waiting for it."""
    return torch.tensor(numbers, dtype=dtype, device="cpu").to(device, non_blocking=True)


def dense_strides(x: Tensor) -> tuple[int, ...]:
    """x's strides where it fills its memory without gaps in some order of its axes, else those of a
    contiguous tensor of its shape."""
    if x.is_contiguous():
        return x.stride()
    expected = 1
    for size, stride in sorted(zip(x.shape, x.stride(), strict=True), key=lambda pair: pair[::-1]):
        if size == 1:
            continue
        if stride != expected:
            return x.new_empty(x.shape, device="meta").stride()
        expected *= size
    return x.stride()


def with_strides(x: Tensor, strides: tuple[int, ...]) -> Tensor:
    """x, or a copy of it, with those strides."""
    return x if x.stride() == strides else x.new_empty_strided(x.shape, strides).copy_(x)


def regular(x: Tensor) -> Tensor:
    """x, or a copy: without gaps in memory, and with a new tensor's strides along axes of size 1."""
    strides, expected = [0] * x.dim(), 1
    order = sorted(range(x.dim()), key=lambda d: (dense_strides(x)[d], x.shape[d], -d))
    for d in order:
        strides[d] = expected
        expected *= x.shape[d]
    if x.is_contiguous():
        strides = list(x.new_empty(x.shape, device="meta").stride())
    return with_strides(x, tuple(strides))


def rows_like(n: int, x: Tensor, strides: tuple[int, ...]) -> Tensor:
    """Uninitialised [n, *x.shape], each row in the given dense order."""
    return x.new_empty_strided((n, *x.shape), (x.numel(), *strides))


def flat_rows(rows: Tensor) -> Tensor:
    """[n, *S] of `rows_like` as [n, S's size]: each row as it lies in memory."""
    size = rows[0].numel() if len(rows) else 0
    return rows.as_strided((len(rows), size), (size, 1))


def channels_last(z: Tensor) -> Tensor:
    """[K, B, C, H, W] with each block's memory in the order [B, H, W, C], as convolutions like it best."""
    return z.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
