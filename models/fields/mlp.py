"""A multi-layer perceptron f(t, h) with time as one more input, and its VJP by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...solvers.errors import ArgumentError, DynamicsError
from .activations import get_activation
from .field import Field, Gradients, in_place, weights_of
from .products import layer_gradients, weighted


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
        sigma, fused = get_activation(self.activation), in_place()
        layers = weights_of(self.layers)
        dtype, last = layers[0][0].dtype, len(layers) - 1
        inputs, x = [], h
        for i, (weight, bias) in enumerate(layers):
            # Under autocast x is shorter; the VJP is not.
            inputs.append(x if x.dtype is dtype else x.to(dtype))
            if i == 0 and self.time:
                weight, bias = weight[:, : self.dim], torch.addcmul(bias, t, weight[:, self.dim])
            x = sigma.layer(x, weight, bias, fused=fused) if i < last else torch.addmm(bias, x, weight.t())
        return x, (t, inputs)

    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """δ_L = c; x̄ = δ W; δ_{l−1} = x̄ ⊙ σ'. deltas: [δ_1, …, δ_L]."""
        _, inputs = saved
        backward = get_activation(self.activation).backward
        layers, dtype = weights_of(self.layers), cotangent.dtype
        delta, deltas = cotangent, [cotangent]
        for i in range(len(layers) - 1, 0, -1):
            x_bar = torch.mm(delta, layers[i][0])
            if x_bar.dtype is not dtype:  # autocast shortens products
                x_bar = x_bar.to(dtype)
            delta = backward(x_bar, inputs[i])  # inputs[i] = σ's output
            deltas.append(delta)
        first = layers[0][0]
        h_bar = torch.mm(delta, first[:, : self.dim] if self.time else first)
        deltas.reverse()
        return (h_bar if h_bar.dtype is dtype else h_bar.to(dtype)), deltas

    def parameter_gradients(self, saved: list[Any], deltas: list[Any], weights: Tensor | None) -> Gradients:
        """W̄ = Σ δ xᵀ and b̄ = Σ δ over all stages and samples."""
        found: list[Tensor | None] = []
        for i, (weight, bias) in enumerate(weights_of(self.layers)):
            if not (weight.requires_grad or bias.requires_grad):
                found += [None, None]
                continue
            weight_bar, bias_bar = layer_gradients(
                weighted([d[i] for d in deltas], weights),
                [inputs[i] for _, inputs in saved],
                [t for t, _ in saved] if i == 0 and self.time else None,
            )
            found.append(weight_bar if weight.requires_grad else None)
            found.append(bias_bar if bias.requires_grad else None)
        return tuple(found)

    def _check(self, h: Tensor) -> None:
        if h.ndim != 2 or h.shape[1] != self.dim:
            raise DynamicsError(f"MLP field: h has shape {tuple(h.shape)}; it must be [B, {self.dim}].")
