"""Fields of dense layers, one or many with activations between, and their VJP by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..checks import check_widths
from .field import Layered, copied, get_activation, in_place, layer_gradients, weights_of


class _Views(NamedTuple):
    """What products take of a layer: W without the time's column, its transpose, b, and that column."""

    weight: Tensor
    turned: Tensor
    bias: Tensor
    time: Tensor | None


class _Dense(Layered):
    """f(t, h) = W_L σ(… σ(W_1 [h, t] + b_1) …) + b_L on h, [B, channels_in]."""

    _found: list[_Views] | None = None  # of a copy for one solve: a view costs as much as a small product

    def for_solve(self) -> Any:
        """The field with the views of its weights at hand."""
        return copied(self, _found=self._views())

    def _views(self) -> list[_Views]:
        """The views of all layers, as the weights are now."""
        if self._found is not None:
            return self._found
        found, dim = [], self.channels_in
        for i, (weight, bias) in enumerate(weights_of(self.layers)):
            own, time = (weight[:, :dim], weight[:, dim]) if i < self.timed else (weight, None)
            found.append(_Views(own, own.t(), bias, time))
        return found

    def forward(self, t: Tensor, h: Tensor) -> tuple[Tensor, Any]:
        """(f, (t, [input of each layer])): the time column acts as a bias, h is not copied."""
        self._check(h)
        sigma, fused = get_activation(self.activation), in_place()
        layers = self._views()
        dtype, last = layers[0].weight.dtype, len(layers) - 1
        inputs, x = [], h
        for i, (weight, turned, bias, time) in enumerate(layers):
            # Under autocast x is shorter; the VJP is not.
            inputs.append(x if x.dtype is dtype else x.to(dtype))
            if time is not None:
                bias = torch.addcmul(bias, t, time)
            if i < last:
                x = sigma.layer(x, weight, bias, fused=fused, turned=turned)
            else:
                x = torch.addmm(bias, x, turned)
        return x, (t, inputs)

    def vjp(self, saved: Any, cotangent: Tensor, inside: Sequence[Tensor | None] = ()) -> tuple[Tensor, Any]:
        """δ_L = c; x̄ = δ W; δ_{l−1} = x̄ ⊙ σ'. deltas: [δ_1, …, δ_L].

        inside: cotangents from elsewhere at what the first L − 1 layers hand to σ, which are added there.
        """
        _, inputs = saved
        backward = get_activation(self.activation).backward
        layers, dtype = self._views(), cotangent.dtype
        delta, deltas = cotangent, [cotangent]
        for i in range(len(layers) - 1, 0, -1):
            x_bar = torch.mm(delta, layers[i].weight)
            if x_bar.dtype is not dtype:  # autocast shortens products
                x_bar = x_bar.to(dtype)
            delta = backward(x_bar, inputs[i])  # inputs[i] = σ's output
            own = inside[i - 1] if inside else None
            delta = delta if own is None else delta.add_(own)
            deltas.append(delta)
        h_bar = torch.mm(delta, layers[0].weight)
        deltas.reverse()
        return (h_bar if h_bar.dtype is dtype else h_bar.to(dtype)), deltas

    def linearised(self, t: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """(f, ∂f/∂h), [B, out] and [B, out, in]: W_L diag(σ') … diag(σ') W_1."""
        f, (_, inputs) = self.forward(t, h)
        backward, layers = get_activation(self.activation).backward, self._views()
        slopes = layers[0].weight.expand(len(h), -1, -1)
        for x, layer in zip(inputs[1:], layers[1:], strict=True):  # x = σ's output
            slopes = layer.weight @ (backward(torch.ones_like(x), x)[:, :, None] * slopes)
        return f, slopes

    def _layer_gradients(
        self, i: int, deltas: list[Tensor], inputs: list[Tensor], times: list[Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        return layer_gradients(deltas, inputs, times)


class MLP(_Dense):
    """f(t, h) = W_L σ(… σ(W_1 [h, t] + b_1) …) + b_L.

    dim: features of h, [B, dim].
    hidden: widths.
    activation: "tanh", "relu" or "sigmoid".
    out_dim: features of f, dim unless given.
    time: whether t is an input (the last column of W_1).
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
            check_widths(f"MLP of widths {widths}", width=width)
        self.time, self.timed = time, int(time)
        self.channels_in, self.channels_out = widths[0], widths[-1]
        self.activation = get_activation(activation).name
        inputs = [dim + int(time), *widths[1:-1]]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in zip(inputs, widths[1:], strict=True))


class Linear(_Dense):
    """f(t, x) = W x + b; time does not enter.

    dim: features of x, [B, dim].
    out_dim: features of f, dim unless given.
    scale: the start weights are torch's times this; small ones keep a long solve from growing before
        anything is learnt.
    With an input signal, f(t, h) = W [h, u(t)] + b: see `Driven`.
    """

    def __init__(self, dim: int, *, out_dim: int | None = None, scale: float = 1.0):
        super().__init__()
        out = dim if out_dim is None else out_dim
        check_widths("Linear field", dim=dim, out_dim=out)
        self.channels_in, self.channels_out = dim, out
        self.layer = shrunk(nn.Linear(dim, out), scale)

    @property
    def layers(self) -> tuple[nn.Linear]:
        """The one layer."""
        return (self.layer,)


def shrunk(layer: nn.Linear, scale: float) -> nn.Linear:
    """The layer with its start weights times scale."""
    with torch.no_grad():
        for p in layer.parameters():
            p.mul_(scale)
    return layer
