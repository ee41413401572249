"""A model that stands in for an ODE model where a test is about the trainer alone."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from adamode.train import TrainConfig


class StandIn(nn.Module):
    """Dropout and one layer: [B, 1, 8, 8] → [B, 10]. It draws random numbers, and counts NFE as
    8 forwards, 6 backwards for full batches and other numbers for the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.2)
        self.layer = nn.Linear(64, 10)
        self.last_stats: SimpleNamespace | None = None

    def forward(self, x: Tensor) -> Tensor:
        full = len(x) == 64
        self.last_stats = SimpleNamespace(nfe=8 if full else 14, nfe_backward=6 if full else 12)
        return self.layer(self.dropout(x.flatten(1)))


def build_standin(config: TrainConfig) -> nn.Module:
    return StandIn()


class Explodes(StandIn):
    """Gives a NaN loss in its ``at``-th training call, counted from 0."""

    def __init__(self, at: int):
        super().__init__()
        self.at, self.calls = at, 0

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        if self.training and torch.is_grad_enabled():
            self.calls += 1
            if self.calls == self.at + 1:
                return logits * torch.nan
        return logits
