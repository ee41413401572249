"""dL/dθ as a sum over stages, outside the integrator's state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .protocol import Dynamics


class ThetaSum:
    """Accumulates the gradients of θ; parameters that get none stay zero.

    wanted: False skips all work (no parameter needs a gradient).
    """

    def __init__(self, dynamics: Dynamics, *, wanted: bool = True):
        self.dynamics, self.wanted = dynamics, wanted
        self.totals: list[Tensor | None] = [None] * len(dynamics.theta())

    def add(self, saved: list[Any], deltas: list[Any], weights: Tensor | None = None) -> None:
        """Adds Σ wᵢ (∂F/∂θ)ᵀaᵢ of one step's stages."""
        if not self.wanted or not self.totals or not saved:
            return
        for i, gradient in enumerate(self.dynamics.parameter_gradients(saved, deltas, weights)):
            if gradient is not None:
                total = self.totals[i]
                # The first is not ours to write into: it may share memory with what f saved.
                self.totals[i] = gradient.clone() if total is None else total.add_(gradient)

    def result(self) -> list[Tensor]:
        """One gradient for each of θ."""
        theta = self.dynamics.theta()
        return [
            torch.zeros_like(p) if total is None else total
            for p, total in zip(theta, self.totals, strict=True)
        ]
