"""A batch in which some samples need far more steps than others: van der Pol, μ from 1 to 100.

What is counted is samples × stages: the rows that the right-hand side evaluates.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

import adamode

from ..speed.job import Tally
from ..speed.plain import VanDerPol, oscillators


@dataclasses.dataclass(frozen=True)
class Batch:
    """rows: summed over all calls of the right-hand side.
    failed: samples that did not reach the end.
    """

    rows: int
    calls: int
    failed: int


def solve_batch(samples: int, end: float, tolerance: float, **options: Any) -> Batch:
    """The batch with `adamode.solve` and these options (stepping, compact, method)."""
    f = Tally(VanDerPol())
    t = torch.tensor([0.0, end], dtype=torch.float64)
    z0 = oscillators(torch.logspace(0, 2, samples, dtype=torch.float64))
    sol = adamode.solve(f, z0, t, rtol=tolerance, atol=tolerance, gradient=None, **options)
    failed = int((torch.as_tensor(sol.status) != int(adamode.Status.SUCCESS)).sum())
    return Batch(f.rows, f.nfe, failed)


MODES: dict[str, dict[str, Any]] = {
    "shared": {},
    "per sample": {"stepping": "per_sample"},
    "per sample, compact": {"stepping": "per_sample", "compact": True},
}
