"""One linear layer as a field, and its VJP."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...solvers.errors import ArgumentError, DynamicsError
from .field import Field, Gradients
from .products import layer_gradients, weighted


def shrunk(layer: nn.Linear, scale: float) -> nn.Linear:
    """The layer with its start weights times scale."""
    with torch.no_grad():
        for p in layer.parameters():
            p.mul_(scale)
    return layer


class Linear(Field):
    """f(t, x) = W x + b; time does not enter.

    dim: features of x, [B, dim].  out_dim: of f, dim unless given.  scale: the start weights are
    torch's times this; small ones keep a long solve from growing before anything is learnt.
    With an input signal, f(t, h) = W [h, u(t)] + b: see `Driven`.
    """

    def __init__(self, dim: int, *, out_dim: int | None = None, scale: float = 1.0):
        super().__init__()
        out = dim if out_dim is None else out_dim
        for name, value in (("dim", dim), ("out_dim", out)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ArgumentError(f"Linear field: {name}={value!r} must be a whole number ≥ 1.")
        self.channels_in, self.channels_out = dim, out
        self.layer = shrunk(nn.Linear(dim, out), scale)

    def reference(self, t: Tensor, h: Tensor) -> Tensor:
        """f by `nn.Linear`."""
        self._check(h)
        return self.layer(h)

    def forward(self, t: Tensor, h: Tensor) -> tuple[Tensor, Any]:
        """(f, x)."""
        self._check(h)
        weight = self.layer.weight
        return torch.addmm(self.layer.bias, h, weight.t()), h if h.dtype is weight.dtype else h.to(
            weight.dtype
        )

    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """x̄ = c W; deltas: c."""
        return (cotangent @ self.layer.weight).to(cotangent.dtype), cotangent

    def parameter_gradients(self, saved: list[Any], deltas: list[Any], weights: Tensor | None) -> Gradients:
        """W̄ = Σ c xᵀ and b̄ = Σ c, one product over all stages and samples."""
        weight, bias = self.layer.weight, self.layer.bias
        if not (weight.requires_grad or bias.requires_grad):
            return None, None
        weight_bar, bias_bar = layer_gradients(weighted(deltas, weights), saved)
        return weight_bar if weight.requires_grad else None, bias_bar if bias.requires_grad else None

    def _check(self, h: Tensor) -> None:
        if h.ndim != 2 or h.shape[1] != self.channels_in:
            raise DynamicsError(
                f"Linear field: h has shape {tuple(h.shape)}; it must be [B, {self.channels_in}]."
            )
