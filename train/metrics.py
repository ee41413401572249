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
    """Sums over the samples seen so far in a pass; part of every checkpoint."""

    samples: int = 0
    loss: float = 0.0
    correct: int = 0
    nfe_forward: float = 0.0
    nfe_backward: float = 0.0
    seconds: float = 0.0

    def add(self, n: int, loss: float, correct: int, nfe: tuple[float, float]) -> None:
        """Adds a batch of n samples: its mean loss, correct answers and mean NFE."""
        self.samples += n
        self.loss += loss * n
        self.correct += correct
        self.nfe_forward += nfe[0] * n
        self.nfe_backward += nfe[1] * n

    def mean(self, name: str) -> float:
        """Mean over samples of loss, nfe_forward or nfe_backward."""
        return getattr(self, name) / self.samples

    @property
    def accuracy(self) -> float:
        """Share of samples answered correctly, 0 … 1."""
        return self.correct / self.samples


def solve_counts(model: nn.Module) -> tuple[float, float]:
    """(forward, backward) NFE of the model's last call; (0, 0) where nothing was solved.

    Per-sample statistics are averaged over the batch.
    """
    stats = getattr(model, "last_stats", None)
    if stats is None:
        stats = getattr(getattr(model, "block", None), "last_stats", None)
    if stats is None:
        return 0.0, 0.0
    return _mean(getattr(stats, "nfe", 0)), _mean(getattr(stats, "nfe_backward", 0))


def _mean(count: Any) -> float:
    if isinstance(count, Tensor):
        return float(count.double().mean())  # host read
    return float(count or 0)


def efficacy(accuracy: float, nfe: float) -> float | None:
    """Accuracy per evaluation; None where nothing was evaluated (the block is the identity)."""
    return accuracy / nfe if nfe > 0 else None


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
