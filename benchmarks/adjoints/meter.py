"""How many bytes of tensors are alive, and the most there were, while something runs on the CPU.

Every operation that torch dispatches is seen, those in a backward pass too, and with it each new
storage; a storage counts until it is freed, whoever holds it: Python or autograd's graph. (Compared once
with the allocator's own record in torch's profiler: within 400 bytes, but for `Direct()`: 24 kB, 0.1 %.)
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Meter(TorchDispatchMode):
    """now, peak: bytes beyond those alive at the start.  apart: tensors that were there before."""

    def __init__(self, apart: Sequence[Tensor] = ()):
        super().__init__()
        self.now = self.peak = 0
        self.known = {x.untyped_storage()._cdata for x in apart}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(x, Tensor):
                self._see(x)
        return out

    def _see(self, x: Tensor) -> None:
        storage = x.untyped_storage()
        if storage._cdata in self.known:
            return
        self.known.add(storage._cdata)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, storage._cdata, size)

    def _gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def memory(way: Any, case: Any, tol: float) -> tuple[int, int]:
    """(bytes kept between the forward and the backward pass, most at any time in the two)."""
    z0 = case.z0.clone().requires_grad_()
    theta = case.dynamics.theta()
    with Meter((z0, case.z0, case.t, case.w, *theta)) as meter:
        loss = (way.forward(case, z0, tol) * case.w).sum()
        kept = meter.now
        torch.autograd.grad(loss, [z0, *theta])
    return kept, meter.peak
