"""The released code's convolutional field, 1×1 → 3×3 → 1×1 with a time channel, VJP by hand."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...solvers.errors import ArgumentError, DynamicsError
from .activations import get_activation
from .field import Field, Gradients, stacked


class Conv(Field):
    """f(t, h) = C₃[σ(C₂[σ(C₁[h, t]), t]), t]: every convolution sees a constant channel t.

    channels: of h, [B, channels, H, W].  hidden: of the two layers between.  C₁, C₃ are 1×1,
    C₂ is 3×3 with zero padding.  out_channels: of f, channels unless given.
    """

    def __init__(
        self, channels: int, hidden: int, *, out_channels: int | None = None, activation: str = "relu"
    ):
        super().__init__()
        out = channels if out_channels is None else out_channels
        for name, value in (("channels", channels), ("hidden", hidden), ("out_channels", out)):
            if not isinstance(value, int) or value < 1:
                raise ArgumentError(f"Conv field: {name}={value!r} must be a whole number ≥ 1.")
        self.channels = channels
        self.channels_in, self.channels_out = channels, out
        self.activation = get_activation(activation).name
        self.layers = nn.ModuleList(
            (
                nn.Conv2d(channels + 1, hidden, 1),
                nn.Conv2d(hidden + 1, hidden, 3, padding=1),
                nn.Conv2d(hidden + 1, out, 1),
            )
        )

    def reference(self, t: Tensor, h: Tensor) -> Tensor:
        """f(t, h) with the time channel put beside the others and `nn.Conv2d`."""
        self._check(h)
        sigma = get_activation(self.activation).value
        time = t.expand(h.shape[0], 1, *h.shape[2:])
        x = h
        for layer in self.layers[:-1]:
            x = sigma(layer(torch.cat((x, time), dim=1)))
        return self.layers[-1](torch.cat((x, time), dim=1))

    def forward(self, t: Tensor, h: Tensor) -> tuple[Tensor, Any]:
        """(f, (t, [input of each layer])): the time channel is folded into a bias."""
        self._check(h)
        sigma = get_activation(self.activation).value
        inputs, x = [], h
        for i, layer in enumerate(self.layers):
            inputs.append(x.to(layer.weight.dtype))  # under autocast x is shorter; the VJP is not
            x = _convolve(layer, t, x)
            if i < len(self.layers) - 1:
                x = sigma(x)
        return x, (t, inputs)

    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """δ₃ = c; x̄ = Cᵀδ; δ_{l−1} = x̄ ⊙ σ'. deltas: [δ₁, δ₂, δ₃]."""
        _, inputs = saved
        backward = get_activation(self.activation).backward
        delta, deltas = cotangent, [cotangent]
        for i in range(len(self.layers) - 1, 0, -1):
            delta = backward(_input_cotangent(self.layers[i], delta, inputs[i]), inputs[i])
            deltas.append(delta)
        return _input_cotangent(self.layers[0], delta, inputs[0]), deltas[::-1]

    def parameter_gradients(self, saved: list[Any], deltas: list[Any], weights: Tensor | None) -> Gradients:
        """One convolution a layer over all stages; the time channel's part from Σ t δ."""
        found: list[Tensor | None] = []
        for i, layer in enumerate(self.layers):
            if not (layer.weight.requires_grad or layer.bias.requires_grad):
                found += [None, None]
                continue
            delta = stacked([d[i] for d in deltas], weights)
            weight_bar = None
            if layer.weight.requires_grad:
                x = stacked([inputs[i] for _, inputs in saved])
                times = torch.cat([t.expand(inputs[0].shape[0], 1, 1, 1) for t, inputs in saved])
                weight_bar = _weight_gradient(layer, delta, x, times)
            found += [weight_bar, delta.sum((0, 2, 3)) if layer.bias.requires_grad else None]
        return tuple(found)

    def _check(self, h: Tensor) -> None:
        if h.ndim != 4 or h.shape[1] != self.channels:
            raise DynamicsError(
                f"Conv field: h has shape {tuple(h.shape)}; it must be [B, {self.channels}, H, W]."
            )


def _convolve(layer: nn.Conv2d, t: Tensor, x: Tensor) -> Tensor:
    """layer([x, t]) without the channel: a constant channel adds t times a map of its own kernel."""
    channels = x.shape[1]
    weight, time = layer.weight[:, :channels], layer.weight[:, channels:]
    if t.ndim == 0 and layer.padding == (0, 0):  # the map is constant: a bias
        return F.conv2d(x, weight, layer.bias + t * time[:, 0, 0, 0])
    ones = x.new_ones(1, 1, *x.shape[2:])  # zero padding makes the map smaller at the border
    shift = F.conv2d(ones, time, padding=layer.padding)
    return F.conv2d(x, weight, layer.bias, padding=layer.padding) + t * shift


def _backward(layer: nn.Conv2d, delta: Tensor, x: Tensor, weight: Tensor, mask: list[bool]) -> tuple:
    return torch.ops.aten.convolution_backward(
        delta, x, weight, None, layer.stride, layer.padding, layer.dilation, False, [0, 0], 1, mask
    )


def _input_cotangent(layer: nn.Conv2d, delta: Tensor, x: Tensor) -> Tensor:
    weight = layer.weight[:, : x.shape[1]]
    return _backward(layer, delta, x, weight, [True, False, False])[0]


def _weight_gradient(layer: nn.Conv2d, delta: Tensor, x: Tensor, times: Tensor) -> Tensor:
    """[out, in + 1, k, k]; the last channel's input is t · 1, so that Σ t δ over stages is enough."""
    channels = x.shape[1]
    # One product: Σ t δ over stages and samples, 5 times faster than multiply and sum.
    summed = torch.mv(delta.flatten(1).t(), times.flatten()).view(1, *delta.shape[1:])
    if layer.kernel_size == (1, 1):  # a matrix product, 2 to 3 times faster than the convolution
        main = torch.einsum("nop,nip->oi", delta.flatten(2), x.flatten(2))
        return torch.cat((main, summed.sum((0, 2, 3))[:, None]), dim=1)[:, :, None, None]
    main = _backward(layer, delta, x, layer.weight[:, :channels], [False, True, False])[1]
    ones = x.new_ones(1, 1, *x.shape[2:])
    time = _backward(layer, summed, ones, layer.weight[:, channels:], [False, True, False])[1]
    return torch.cat((main, time), dim=1)
