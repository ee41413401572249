"""What compiled programs write out where a loop in the kernel beats a call out of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .tanh import tanh_in_programs

SMALL = 2048  # multiplications in a product, below which a loop in the kernel beats a call out of it


def _small_product(a: Tensor, b: Tensor) -> Tensor:
    """a b as a sum: inductor then makes one kernel of everything around it (a whole attempt, say)."""
    if a.device.type != "cpu" or a.shape[0] * a.shape[1] * b.shape[1] > SMALL:
        return NotImplemented
    return (a[:, :, None] * b[None]).sum(1)


def _small_product_plus(c: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    found = NotImplemented if beta != 1 or alpha != 1 else _small_product(a, b)
    return found if found is NotImplemented else found + c


def own_decompositions() -> dict[Any, Callable[..., Any]]:
    """Small products and float32's tanh, written out."""
    return {
        torch.ops.aten.mm.default: _small_product,
        torch.ops.aten.addmm.default: _small_product_plus,
        torch.ops.aten.tanh.default: tanh_in_programs,
    }
