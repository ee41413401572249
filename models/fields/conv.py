"""The released code's convolutional field, 1×1 → 3×3 → 1×1 with a time channel, VJP by hand."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check_widths
from .field import Layered, get_activation, layer_gradients, weights_of


class Conv(Layered):
    """f(t, h) = C₃[σ(C₂[σ(C₁[h, t]), t]), t]: every convolution sees a constant channel t.

    channels: of h, [B, channels, H, W].
    hidden: of the two layers between.
    out_channels: of f, channels unless given.
    activation: σ, "relu", "tanh" or "sigmoid".
    C₁ and C₃ are 1×1, C₂ is 3×3 with zero padding.
    All layers work on channels-last memory: the 1×1 ones are then matrix products without a copy.
    """

    channels_last = True
    places = ", H, W"
    timed = 3

    def __init__(
        self, channels: int, hidden: int, *, out_channels: int | None = None, activation: str = "relu"
    ):
        super().__init__()
        out = channels if out_channels is None else out_channels
        check_widths("Conv field", channels=channels, hidden=hidden, out_channels=out)
        self.channels_in, self.channels_out = channels, out
        self.activation = get_activation(activation).name
        self.layers = nn.ModuleList(
            (
                nn.Conv2d(channels + 1, hidden, 1),
                nn.Conv2d(hidden + 1, hidden, 3, padding=1),
                nn.Conv2d(hidden + 1, out, 1),
            )
        )

    def forward(self, t: Tensor, h: Tensor) -> tuple[Tensor, Any]:
        """(f, (t, [input of each layer, channels last])): the time channel is folded into a bias.

        f lies in memory as h does, channels-last or plain.
        """
        self._check(h)
        sigma = get_activation(self.activation)
        layers = weights_of(self.layers)
        dtype, inputs = layers[0][0].dtype, []
        x = h.permute(0, 2, 3, 1).contiguous()  # [B, H, W, C]; no copy where h is channels-last
        for i, (weight, bias) in enumerate(layers):
            inputs.append(
                x if x.dtype is dtype else x.to(dtype)
            )  # under autocast x is shorter; the VJP is not
            x = _one(weight, bias, t, x) if i != 1 else _three(weight, bias, t, x)
            if i < len(layers) - 1:
                x = sigma.in_place(x)
        return _formatted(x, h), (t, inputs)

    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """δ₃ = c; x̄ = Cᵀδ; δ_{l−1} = x̄ ⊙ σ'. deltas: [δ₁, δ₂, δ₃], channels last."""
        _, inputs = saved
        backward = get_activation(self.activation).backward
        (first, _), (middle, _), (last, _) = weights_of(self.layers)
        third = cotangent.permute(0, 2, 3, 1).contiguous()
        dtype = cotangent.dtype
        second = backward(_one_back(last, third, inputs[2]).to(dtype), inputs[2])
        x_bar = _three_back(middle[:, :-1], second, inputs[1], [True, False, False])[0]
        delta = backward(x_bar.permute(0, 2, 3, 1).to(dtype), inputs[1])
        h_bar = _one_back(first, delta, inputs[0]).to(dtype)
        return _formatted(h_bar, cotangent), [delta, second, third]

    def _layer_gradients(
        self, i: int, deltas: list[Tensor], inputs: list[Tensor], times: list[Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """The 1×1 layers' by products over all places, the 3×3 one's stage by stage."""
        assert times is not None  # every layer sees the time
        if i == 1:
            return _three_gradients(self.layers[1].weight, deltas, inputs, times)
        rows = [d.flatten(0, 2) for d in deltas], [x.flatten(0, 2) for x in inputs]
        weight_bar, bias_bar = layer_gradients(*rows, times)
        return weight_bar[:, :, None, None], bias_bar


def _formatted(x: Tensor, like: Tensor) -> Tensor:
    """x, [B, H, W, C], as [B, C, H, W] in the memory format of ``like``."""
    x = x.permute(0, 3, 1, 2)
    if like.is_contiguous(memory_format=torch.channels_last):
        return x
    return x.contiguous()


def _one(weight: Tensor, bias: Tensor, t: Tensor, x: Tensor) -> Tensor:
    """The 1×1 layer as a matrix product over places; t acts as a bias. x, result: [B, H, W, C]."""
    batch, height, width, channels = x.shape
    kernel, time = weight[:, :-1, 0, 0], weight[:, -1, 0, 0]
    if t.ndim == 0:
        shifted = torch.addcmul(bias, t, time)
        return torch.addmm(shifted, x.view(-1, channels), kernel.t()).view(batch, height, width, -1)
    shifted = (bias + t.reshape(-1, 1) * time)[:, None]  # a bias for each sample
    places = torch.baddbmm(shifted, x.view(batch, -1, channels), kernel.t().expand(batch, -1, -1))
    return places.view(batch, height, width, -1)


def _one_back(weight: Tensor, delta: Tensor, x: Tensor) -> Tensor:
    # Into few columns the product is twice as fast from a weight laid out by column (50 → 5: 0.9 ms, 0.4).
    kernel = weight[:, : x.shape[3], 0, 0].t().contiguous().t()
    return torch.mm(delta.flatten(0, 2), kernel).view(x.shape)


def _three(weight: Tensor, bias: Tensor, t: Tensor, x: Tensor) -> Tensor:
    """The 3×3 layer without the constant channel, which adds t times a map of its own kernel."""
    ones = x.new_ones(1, 1, *x.shape[1:3])  # zero padding makes the map smaller at the border
    shift = F.conv2d(ones, weight[:, -1:], padding=1).permute(0, 2, 3, 1)
    y = F.conv2d(x.permute(0, 3, 1, 2), _channels_last(weight[:, :-1]), bias, padding=1)
    return y.permute(0, 2, 3, 1).contiguous().add_(t * shift)


def _channels_last(weight: Tensor) -> Tensor:
    return weight.contiguous(memory_format=torch.channels_last)


def _three_back(weight: Tensor, delta: Tensor, x: Tensor, mask: list[bool]) -> tuple[Any, ...]:
    """`convolution_backward` of the 3×3 layer on [B, H, W, C]; the results are [B, C, H, W]."""
    delta, x = delta.permute(0, 3, 1, 2), x.permute(0, 3, 1, 2)
    return torch.ops.aten.convolution_backward(
        delta, x, _channels_last(weight), None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, mask
    )


def _three_gradients(
    weight: Tensor, deltas: list[Tensor], inputs: list[Tensor], times: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """([out, in + 1, 3, 3], [out]). The last channel's input is t · 1, so Σ δ and Σ t δ over samples do."""
    main, maps, mask = None, None, [False, True, False]
    for delta, x, t in zip(deltas, inputs, times, strict=True):
        found = _three_back(weight[:, :-1], delta, x, mask)[1]
        main = found if main is None else main.add_(found)
        # Both sums in one product that reads δ once.
        factors = t.reshape(-1).expand(len(delta)).to(delta.dtype)
        sums = torch.mm(torch.stack((torch.ones_like(factors), factors)), delta.flatten(1))
        maps = sums if maps is None else maps.add_(sums)
    assert main is not None
    assert maps is not None  # a step has a stage
    plain, timed = maps.view(2, *deltas[0].shape[1:])
    ones = timed.new_ones(1, *timed.shape[:2], 1)
    column = _three_back(weight[:, -1:], timed[None], ones, mask)[1]
    return torch.cat((main, column), dim=1), plain.sum((0, 1))
