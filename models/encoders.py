"""Encoders: the input x → o, from which the start of the block is made."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# The released code's slope in the encoder.
LEAKY_SLOPE = 0.3


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
        return last(nn.functional.leaky_relu(second(x), LEAKY_SLOPE))


class Beside(nn.Module):
    """[x, o] side by side in dim 1: the input and what an encoder makes of it."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels of x and o, …]."""
        return torch.cat((x, self.encoder(x)), dim=1)
