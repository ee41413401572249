"""Encoders: the input x → o, from which the start of the block is made."""

from __future__ import annotations

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
