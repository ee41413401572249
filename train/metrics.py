"""What is told of a run besides its sums: efficacy (accuracy ÷ NFE), sizes, memory."""

from __future__ import annotations

import sys

import torch
from torch import nn


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
