"""Memory order of states: whichever dense order y0 has (channels-last, say), its stages have too."""

from __future__ import annotations

from torch import Tensor


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


def regular(x: Tensor) -> Tensor:
    """x, or a copy: without gaps in memory, and with a new tensor's strides along axes of size 1."""
    strides, expected = [0] * x.dim(), 1
    order = sorted(range(x.dim()), key=lambda d: (dense_strides(x)[d], x.shape[d], -d))
    for d in order:
        strides[d] = expected
        expected *= x.shape[d]
    if x.is_contiguous():
        strides = list(x.new_empty(x.shape, device="meta").stride())
    if x.stride() == tuple(strides):
        return x
    return x.new_empty_strided(x.shape, strides).copy_(x)


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
