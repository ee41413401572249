"""A batch in which some samples need far more steps than others: van der Pol, μ from 1 to 100.

What is counted is samples × stages: the rows that the right-hand side evaluates.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

import adamode


@dataclasses.dataclass(frozen=True)
class Batch:
    """rows: summed over all calls of the right-hand side.  failed: samples that did not reach the end."""

    rows: int
    calls: int
    failed: int


def van_der_pol(samples: int) -> Tensor:
    """[B, 3]: y, y' and μ, which rides along in the state so that compacting keeps it beside its sample."""
    mu = torch.logspace(0, 2, samples, dtype=torch.float64)
    return torch.stack((torch.full_like(mu, 2.0), torch.zeros_like(mu), mu), -1)


def solve_batch(samples: int, end: float, tolerance: float, **options: Any) -> Batch:
    """The batch with `adamode.solve` and these options (stepping, compact, method)."""
    rows = calls = 0

    def f(t: Tensor, state: Tensor) -> Tensor:
        nonlocal rows, calls
        rows, calls = rows + state.shape[0], calls + 1
        y, v, mu = state.unbind(-1)
        return torch.stack((v, mu * (1 - y * y) * v - y, torch.zeros_like(mu)), -1)

    t = torch.tensor([0.0, end], dtype=torch.float64)
    sol = adamode.solve(f, van_der_pol(samples), t, rtol=tolerance, atol=tolerance, gradient=None, **options)
    failed = int((torch.as_tensor(sol.status) != int(adamode.Status.SUCCESS)).sum())
    return Batch(rows, calls, failed)


MODES: dict[str, dict[str, Any]] = {
    "shared": {},
    "per sample": {"stepping": "per_sample"},
    "per sample, compact": {"stepping": "per_sample", "compact": True},
}
