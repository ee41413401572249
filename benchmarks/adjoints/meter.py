"""How many bytes of tensors a gradient keeps between its two passes, and the most there were.

(Compared once with the allocator's own record in torch's profiler: within 400 bytes, but for `Direct()`:
24 kB, 0.1 %.)
"""

from __future__ import annotations

from typing import Any

import torch

from adamode.memory import LiveStorage


def memory(way: Any, case: Any, tol: float) -> tuple[int, int]:
    """(bytes kept between the forward and the backward pass, most at any time in the two)."""
    z0 = case.z0.clone().requires_grad_()
    theta = case.dynamics.theta()
    with LiveStorage() as meter:
        loss = (way.forward(case, z0, tol) * case.w).sum()
        kept = meter.now
        torch.autograd.grad(loss, [z0, *theta])
    return kept, meter.peak
