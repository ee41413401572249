"""Sums over an epoch, efficacy, memory.

Forward NFE: evaluations of f in the forward solve of a batch, the first step's probe and rejected
steps included. Backward NFE: evaluations of f's VJP. Both are counted by the engine, read from
the model's statistics after each batch, and averaged over samples, so that a short last batch
counts for what it is. Efficacy is accuracy ÷ NFE.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import torch
from torch import Tensor, nn


@dataclasses.dataclass
class EpochSums:
    """Sums over the samples seen so far in a pass; part of every checkpoint.

    score: right answers, or squared errors.  skipped: batches that could not be solved and were left
    out (``on_solver_error="skip"``).
    """

    samples: int = 0
    loss: float = 0.0
    score: float = 0.0
    nfe_forward: float = 0.0
    nfe_backward: float = 0.0
    seconds: float = 0.0
    skipped: int = 0

    def add(self, n: int, loss: float, score: float, nfe: tuple[float, float]) -> None:
        """Adds a batch of n samples: its sums of losses, of scores, and of NFE over the samples."""
        self.samples += n
        self.loss += loss
        self.score += score
        self.nfe_forward += nfe[0]
        self.nfe_backward += nfe[1]

    def mean(self, name: str) -> float:
        """Mean over samples of loss, nfe_forward or nfe_backward."""
        return getattr(self, name) / self.samples


def solve_counts(model: nn.Module, n: int) -> tuple[float, float]:
    """(forward, backward) NFE of the model's last call, summed over its n samples.

    Where one step size serves the batch each sample counts every evaluation; per-sample counts are
    added up, exactly. (0, 0) where nothing was solved.
    """
    stats = last_stats(model)
    if stats is None:
        return 0.0, 0.0
    return _sum(getattr(stats, "nfe", 0), n), _sum(getattr(stats, "nfe_backward", 0), n)


def last_stats(model: nn.Module) -> Any:
    """What the model's, or its block's, last solve left; None where there was none."""
    stats = getattr(model, "last_stats", None)
    return getattr(getattr(model, "block", None), "last_stats", None) if stats is None else stats


def _sum(count: Any, n: int) -> float:
    if isinstance(count, Tensor) and count.ndim:
        return float(count.double().sum())  # host read
    return float(count or 0) * n


def efficacy(accuracy: float | None, nfe: float) -> float | None:
    """Accuracy per evaluation; None where nothing was evaluated, or where values are predicted."""
    return accuracy / nfe if accuracy is not None and nfe > 0 else None


def count_parameters(model: nn.Module) -> int:
    """Entries of all parameters that are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def peak_memory_mib(device: torch.device) -> float | None:
    """Largest memory use so far in MiB: of torch on a CUDA device, else of the process.

    None where the system does not tell (Windows).
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
