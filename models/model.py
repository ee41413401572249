"""A whole model: encoder → start → block → head, and the kinds of those three around a block."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..solvers.checks import check_call, check_positive
from ..solvers.errors import ArgumentError
from .block import WithBlock
from .checks import check_sizes
from .dynamics.field_dynamics import Softplus

# The released code's slope in the encoder.
LEAKY_SLOPE = 0.3

Start = dict[str, Tensor]


class Model(WithBlock):
    """encoder(x) = o, start(x/u, o/u) = (h0, …), block = h(T), head(u h(T)) = output.

    encoder, head: modules of one tensor.
    start: a module from (x, o) to a block's starts by name.
    block: from its starts to h(T).
    state_unit: u, the size that is 1 in the block's state.
    """

    def __init__(
        self,
        encoder: nn.Module,
        start: nn.Module,
        block: nn.Module,
        head: nn.Module,
        *,
        state_unit: float = 1.0,
    ):
        super().__init__()
        check_positive(state_unit, "state_unit")
        check_call(encoder, "encoder", "encoder(x)")
        check_call(start, "start", "start(x, o)")
        check_call(head, "head", "head(h)")
        self.encoder, self.start, self.block, self.head = encoder, start, block, head
        self.state_unit = state_unit

    def forward(self, x: Tensor) -> Tensor:
        """The head's output for a batch x, [B, C, H, W]."""
        o, u = self.encoder(x), self.state_unit
        start: dict[str, Any] = self.start(x, o) if u == 1 else self.start(x / u, o / u)
        end = self.block(**start)
        output: Tensor = self.head(end if u == 1 else u * end)
        return output


class ConvEncoder(nn.Module):
    """o = LeakyReLU(conv(x)): one convolution, x [B, in_channels, H, W] → [B, out_channels, H, W].

    kernel: 1 mixes channels only, so what depends on neighbours is left to the block.
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """The encoded input, o."""
        return nn.functional.leaky_relu(self.conv(x), LEAKY_SLOPE)


class DeepConvEncoder(nn.Module):
    """o = C₃(σ(C₂(σ(C₁(x))))), σ = LeakyReLU(0.3): 1×1 → 3×3 → 1×1, what the released code has for images.

    x [B, in_channels, H, W] → [B, out_channels, H, W]; hidden: channels between.
    """

    def __init__(self, in_channels: int, hidden: int, out_channels: int):
        super().__init__()
        self.layers = nn.ModuleList(
            (
                nn.Conv2d(in_channels, hidden, 1),
                nn.Conv2d(hidden, hidden, 3, padding=1),
                nn.Conv2d(hidden, out_channels, 1),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """The encoded input, o."""
        first, second, last = self.layers
        x = nn.functional.leaky_relu(first(x), LEAKY_SLOPE)
        encoded: Tensor = last(nn.functional.leaky_relu(second(x), LEAKY_SLOPE))
        return encoded


class Beside(nn.Module):
    """[x, o] side by side in dim 1: the input and what an encoder makes of it."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels of x and o, …]."""
        return torch.cat((x, self.encoder(x)), dim=1)


class ZeroStart(nn.Module):
    """h0 = o; every other block starts at zero."""

    def forward(self, x: Tensor, o: Tensor) -> Start:
        """The start {"h0"}; zeros are the block's own default for the others."""
        return {"h0": o}


class LearnedStart(nn.Module):
    """h0 = o; the other starts are learnt, one number a channel, the same for every sample and place.

    free: names of starts that may be of either sign, 0 at first (momentum, velocity).
    positive: names of starts softplus(raw) > 0, 1 at first: with v0 > 0, √(v + ε) stays away from
    zero, so AdamODE keeps inside its domain whatever ε is, also where it is solved backwards.
    """

    def __init__(
        self, channels: int, *, free: tuple[str, ...] = ("m0",), positive: tuple[str, ...] = ("v0",)
    ):
        super().__init__()
        self.free, self.positive = free, positive
        for name in free:
            self.register_parameter(name, nn.Parameter(torch.zeros(channels)))
        for name in positive:
            raw = nn.Parameter(torch.full((channels,), Softplus.inverse(name, 1.0)))
            self.register_parameter(f"raw_{name}", raw)

    def forward(self, x: Tensor, o: Tensor) -> Start:
        """{"h0", …}, each [B, C, …]."""
        shape = (-1, *(1,) * (o.ndim - 2))
        start = {"h0": o}
        for name in self.free:
            start[name] = getattr(self, name).reshape(shape).expand_as(o)
        for name in self.positive:
            start[name] = Softplus.value(getattr(self, f"raw_{name}")).reshape(shape).expand_as(o)
        return start


class HalvesStart(nn.Module):
    """[x, o] cut in two along the channels, h0 and one other: the released code's start for images.

    other: "m0" (heavy balls) or "v0" (SONODE).
    Needs channels(x) + channels(o) = 2 C.
    """

    def __init__(self, other: str):
        super().__init__()
        self.other = other

    def forward(self, x: Tensor, o: Tensor) -> Start:
        """{"h0", other}, each [B, C, …]."""
        channels = x.shape[1] + o.shape[1]
        if channels % 2:
            raise ArgumentError(
                f"[x, o] has {x.shape[1]} + {o.shape[1]} = {channels} channels; it must be a multiple of 2."
            )
        h0, other = torch.cat((x, o), dim=1).chunk(2, dim=1)
        return {"h0": h0, self.other: other}


class ThirdsStart(nn.Module):
    """[x, o, o²] cut in three along the channels: the released code's start for images.

    Needs channels(x) + 2 channels(o) = 3 C. v0 ≥ 0 where o has at least C channels.
    """

    def forward(self, x: Tensor, o: Tensor) -> Start:
        """{"h0", "m0", "v0"}, each [B, C, …]."""
        channels = x.shape[1] + 2 * o.shape[1]
        if channels % 3 or o.shape[1] < channels // 3:
            raise ArgumentError(
                f"[x, o, o²] has {x.shape[1]} + 2·{o.shape[1]} = {channels} channels; it must be a multiple "
                "of 3, and o must have a third of them, so that v0 holds squares only."
            )
        h0, m0, v0 = torch.cat((x, o, o * o), dim=1).chunk(3, dim=1)
        return {"h0": h0, "m0": m0, "v0": v0}


class PoolHead(nn.Module):
    """Average over a grid of cells, then one linear layer: h [B, C, H, W] → logits [B, classes].

    cells: of the grid, a side. The fewer, the less the head can do by itself.
    """

    def __init__(self, channels: int, classes: int, *, cells: int = 1):
        super().__init__()
        check_sizes(cells=cells)
        self.cells = cells
        self.linear = nn.Linear(channels * cells * cells, classes)

    def forward(self, h: Tensor) -> Tensor:
        """Logits [B, classes] of h [B, C, H, W]."""
        logits: Tensor = self.linear(nn.functional.adaptive_avg_pool2d(h, self.cells).flatten(1))
        return logits


class FlatHead(nn.Module):
    """One linear layer on all of h: [B, *S] with ``features`` numbers a sample → logits [B, classes]."""

    def __init__(self, features: int, classes: int):
        super().__init__()
        self.linear = nn.Linear(features, classes)

    def forward(self, h: Tensor) -> Tensor:
        """Logits [B, classes]; ArgumentError where h has another size than the head was made for."""
        if h.ndim < 2 or h[0].numel() != self.linear.in_features:
            raise ArgumentError(
                f"h(T) has shape {tuple(h.shape)}, but the head takes {self.linear.in_features} numbers a "
                "sample: give inputs of the size that the model was made for."
            )
        logits: Tensor = self.linear(h.flatten(1))
        return logits
