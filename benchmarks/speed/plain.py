"""The same equations as a user writes them: plain modules under autograd, which the peers differentiate.

Each shares the parameters of one of our dynamics, in the order of its ``theta()``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from adamode.models.dynamics import AdamODE, NeuralODE
from adamode.models.fields import MLP


class PlainMLP(nn.Module):
    """tanh layers; time, where it enters, is one more column of the input."""

    def __init__(self, layers: nn.ModuleList, time: bool):
        super().__init__()
        self.layers, self.time = layers, time

    def forward(self, t: Tensor, h: Tensor) -> Tensor:
        """f, [B, D]; t: 0-d or [B]."""
        x = torch.cat((h, t.reshape(-1, 1).expand(h.shape[0], 1)), dim=1) if self.time else h
        for layer in self.layers[:-1]:
            x = torch.tanh(layer(x))
        return self.layers[-1](x)


class PlainConv(nn.Module):
    """1×1 → 3×3 → 1×1, a constant channel t put beside the others before each."""

    def __init__(self, layers: nn.ModuleList, activation: str):
        super().__init__()
        self.layers, self.sigma = layers, {"relu": torch.relu, "tanh": torch.tanh}[activation]

    def forward(self, t: Tensor, h: Tensor) -> Tensor:
        """f, [B, C, H, W]; t: 0-d or [B]. The layout follows h's."""
        time = t.reshape(-1, 1, 1, 1).expand(h.shape[0], 1, *h.shape[2:])
        x = h
        for layer in self.layers[:-1]:
            x = self.sigma(layer(torch.cat((x, time), dim=1)))
        return self.layers[-1](torch.cat((x, time), dim=1))


class PlainAdamNODE(nn.Module):
    """h' = −m/√(v+ε),  m' = −A(f + m),  v' = B(f² − v) on [3, B, …]."""

    def __init__(self, dynamics: AdamODE, field: nn.Module):
        super().__init__()
        self.raw_alpha, self.raw_beta = dynamics.raw_alpha, dynamics.raw_beta
        self.field, self.eps = field, dynamics.eps

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """dz, [3, B, …]."""
        h, m, v = z.unbind(0)
        f = self.field(t, h)
        a, b = torch.sigmoid(self.raw_alpha), torch.sigmoid(self.raw_beta)
        return torch.stack((-m * torch.rsqrt(v + self.eps), -a * (f + m), b * (f * f - v)))


class PlainNODE(nn.Module):
    """h' = f(t, h) on [1, B, …]."""

    def __init__(self, field: nn.Module):
        super().__init__()
        self.field = field

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """dz, [1, B, …]."""
        return self.field(t, z[0])[None]


class VanDerPol(nn.Module):
    """y'' = μ(1 − y²)y' − y, a batch of samples [B, 3]: y, y' and μ, which rides along beside its sample."""

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        """The derivative, [B, 3]."""
        y, v, mu = state.unbind(-1)
        return torch.stack((v, mu * (1 - y * y) * v - y, torch.zeros_like(mu)), -1)


def oscillators(mu: Tensor) -> Tensor:
    """The start of `VanDerPol`, [B, 3], y = 2 and y' = 0, for μ [B]."""
    return torch.stack((torch.full_like(mu, 2.0), torch.zeros_like(mu), mu), -1)


class ChannelsLast(nn.Module):
    """A plain module on a state [K, B, H, W, C] in memory: its convolutions see channels-last tensors."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """dz, [K, B, H, W, C]."""
        return self.inner(t, z.permute(0, 1, 4, 2, 3)).permute(0, 1, 3, 4, 2)


class BatchFirst(nn.Module):
    """A plain module on [B, K·n], one row a sample, as torchode wants its state; t: [B]."""

    def __init__(self, inner: nn.Module, shape: torch.Size):
        super().__init__()
        self.inner, self.shape = inner, shape  # of the state, [K, B, …]

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """dy, [B, K·n]."""
        z = y.view(y.shape[0], self.shape[0], *self.shape[2:]).transpose(0, 1)
        return self.inner(t, z).transpose(0, 1).flatten(1)


def plain_of(dynamics: Any) -> nn.Module:
    """The plain module on a dynamics' own parameters."""
    own = dynamics.field
    if isinstance(own, MLP):
        field: nn.Module = PlainMLP(own.layers, own.time)
    else:
        field = PlainConv(own.layers, own.activation)
    return PlainNODE(field) if isinstance(dynamics, NeuralODE) else PlainAdamNODE(dynamics, field)
