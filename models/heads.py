"""Heads: h(T) → the model's output."""

from __future__ import annotations

from torch import Tensor, nn

from ..solvers.errors import ArgumentError


class PoolHead(nn.Module):
    """Average over a grid of cells, then one linear layer: h [B, C, H, W] → logits [B, classes].

    cells: of the grid, a side. The fewer, the less the head can do by itself.
    """

    def __init__(self, channels: int, classes: int, *, cells: int = 1):
        super().__init__()
        if cells < 1:
            raise ArgumentError(f"PoolHead: cells={cells!r} must be ≥ 1.")
        self.cells = cells
        self.linear = nn.Linear(channels * cells * cells, classes)

    def forward(self, h: Tensor) -> Tensor:
        """Logits."""
        return self.linear(nn.functional.adaptive_avg_pool2d(h, self.cells).flatten(1))


class FlatHead(nn.Module):
    """One linear layer on all of h: [B, *S] with ``features`` numbers a sample → logits [B, classes]."""

    def __init__(self, features: int, classes: int):
        super().__init__()
        self.linear = nn.Linear(features, classes)

    def forward(self, h: Tensor) -> Tensor:
        """Logits."""
        if h.ndim < 2 or h[0].numel() != self.linear.in_features:
            raise ArgumentError(
                f"h(T) has shape {tuple(h.shape)}, but the head takes {self.linear.in_features} numbers a "
                "sample: give inputs of the size that the model was made for."
            )
        return self.linear(h.flatten(1))
