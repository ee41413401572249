"""A multi-layer perceptron f(t, h) with time as one more input, and its VJP by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...solvers.errors import ArgumentError, DynamicsError
from .activations import get_activation
from .field import Field, Gradients, stacked


class MLP(Field):
    """f(t, h) = W_L σ(… σ(W_1 [h, t] + b_1) …) + b_L.

    dim: features of h, [B, dim].  hidden: widths.  activation: "tanh", "relu" or "sigmoid".
    out_dim: features of f, dim unless given.  time: whether t is an input (the last column of W_1).
    """

    def __init__(
        self,
        dim: int,
        hidden: Sequence[int] = (64, 64),
        *,
        activation: str = "tanh",
        out_dim: int | None = None,
        time: bool = True,
    ):
        super().__init__()
        widths = [dim, *hidden, dim if out_dim is None else out_dim]
        for width in widths:
            if not isinstance(width, int) or width < 1:
                raise ArgumentError(f"MLP widths {widths} must be whole numbers ≥ 1; {width!r} is not.")
        self.dim, self.time = dim, time
        self.channels_in, self.channels_out = widths[0], widths[-1]
        self.activation = get_activation(activation).name
        first = widths[0] + (1 if time else 0)
        inputs = [first, *widths[1:-1]]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in zip(inputs, widths[1:], strict=True))

    def reference(self, t: Tensor, h: Tensor) -> Tensor:
        """f(t, h) with [h, t] put together and `nn.Linear`."""
        self._check(h)
        sigma = get_activation(self.activation).value
        x = torch.cat((h, t.expand(h.shape[0], 1)), dim=1) if self.time else h
        for layer in self.layers[:-1]:
            x = sigma(layer(x))
        return self.layers[-1](x)

    def forward(self, t: Tensor, h: Tensor) -> tuple[Tensor, Any]:
        """(f, (t, [input of each layer])): the time column acts as a bias, h is not copied."""
        self._check(h)
        sigma = get_activation(self.activation).value
        inputs, x = [], h
        for i, layer in enumerate(self.layers):
            inputs.append(x.to(layer.weight.dtype))  # under autocast x is shorter; the VJP is not
            weight, bias = layer.weight, layer.bias
            if i == 0 and self.time:
                weight, bias = weight[:, : self.dim], bias + t * weight[:, self.dim]
            x = torch.addmm(bias, x, weight.T)
            if i < len(self.layers) - 1:
                x = sigma(x)
        return x, (t, inputs)

    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """δ_L = c; x̄ = δ W; δ_{l−1} = x̄ ⊙ σ'. deltas: [δ_1, …, δ_L]."""
        _, inputs = saved
        backward = get_activation(self.activation).backward
        delta, deltas = cotangent, [cotangent]
        for i in range(len(self.layers) - 1, 0, -1):
            x_bar = (delta @ self.layers[i].weight).to(cotangent.dtype)  # autocast shortens products
            delta = backward(x_bar, inputs[i])  # inputs[i] = σ's output
            deltas.append(delta)
        h_bar = delta @ self.layers[0].weight[:, : self.dim]
        return h_bar.to(cotangent.dtype), deltas[::-1]

    def parameter_gradients(self, saved: list[Any], deltas: list[Any], weights: Tensor | None) -> Gradients:
        """W̄ = Σ δ xᵀ and b̄ = Σ δ, one product a layer over all stages and samples."""
        found: list[Tensor | None] = []
        for i, layer in enumerate(self.layers):
            if not (layer.weight.requires_grad or layer.bias.requires_grad):
                found += [None, None]
                continue
            delta = stacked([d[i] for d in deltas], weights)
            weight_bar = None
            if layer.weight.requires_grad:
                weight_bar = delta.T @ stacked([inputs[i] for _, inputs in saved])
                if i == 0 and self.time:
                    times = torch.cat([t.expand(inputs[0].shape[0], 1) for t, inputs in saved])
                    weight_bar = torch.cat((weight_bar, delta.T @ times), dim=1)
            found += [weight_bar, delta.sum(0) if layer.bias.requires_grad else None]
        return tuple(found)

    def _check(self, h: Tensor) -> None:
        if h.ndim != 2 or h.shape[1] != self.dim:
            raise DynamicsError(f"MLP field: h has shape {tuple(h.shape)}; it must be [B, {self.dim}].")
