"""A flow as a model that is trained: a batch of data → log p of each sample."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from ..solvers.checks import check_positive
from ..solvers.errors import ArgumentError
from .block import WithBlock
from .checks import check_sizes
from .flow import Flow

KINDS_OF_Q = ("learned", "normal")


class NormalMomenta(nn.Module):
    """q(m | x): independent normals, means and logarithms of scales a network of one hidden layer (tanh).

    dim: features of x, [B, dim].
    momenta: how many blocks there are beside x.
    width: of the hidden layer.
    At first it is the standard normal, whatever x is.
    """

    def __init__(self, dim: int, momenta: int, width: int = 64):
        super().__init__()
        check_sizes(dim=dim, momenta=momenta, width=width)
        self.dim, self.momenta, self.width = dim, momenta, width
        self.net = nn.Sequential(nn.Linear(dim, width), nn.Tanh(), nn.Linear(width, 2 * momenta * dim))
        for p in self.net[-1].parameters():
            nn.init.zeros_(p)

    def forward(self, x: Tensor) -> Distribution:
        """The distribution of [B] samples, each [momenta, dim]."""
        mean, scale = self.net(x).view(len(x), 2, self.momenta, self.dim).unbind(1)
        normal = Normal(mean, scale.exp(), validate_args=False)  # `Flow` looks at what is drawn
        return Independent(normal, 2)


class DensityModel(WithBlock):
    """log p(x), [B], of x [B, *shape] under a flow of all its numbers as one vector.

    shape: of a sample.
    draws: with momenta, so many draws of them are what the weighted bound takes in evaluation mode. In
        training mode it is one, of which the bound is the evidence bound.
    """

    def __init__(self, flow: Flow, shape: tuple[int, ...], draws: int = 16):
        super().__init__()
        check_positive(draws, "draws", integer=True)
        self.flow, self.shape, self.draws = flow, torch.Size(shape), draws

    @property
    def block(self) -> Any:
        """The block that the flow solves with."""
        return self.flow.block

    @property
    def exact(self) -> bool:
        """Whether log p(x) is told, and no bound on it."""
        return len(self.flow.blocks) == 1

    def forward(self, x: Tensor) -> Tensor:
        """log p(x), or a lower bound on it, [B]. Raises: ArgumentError for x of another shape."""
        if x.shape[1:] != self.shape:
            raise ArgumentError(
                f"x has shape {tuple(x.shape)}; this density is for samples of {tuple(self.shape)}."
            )
        return self.flow.log_prob(x.flatten(1), 1 if self.training else self.draws)

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """Draws of x, [n, *shape], by torch's global generator."""
        return self.flow.sample(n).view(n, *self.shape)
