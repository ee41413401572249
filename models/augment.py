"""The start of the state, (h0, m0, v0), from the input x and its encoding o."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..solvers.errors import ArgumentError
from .transforms import Softplus

Start = dict[str, Tensor]


class ZeroStart(nn.Module):
    """h0 = o; every other block starts at zero."""

    def forward(self, x: Tensor, o: Tensor) -> Start:
        """{"h0"}."""
        return {"h0": o}


class LearnedStart(nn.Module):
    """h0 = o; m0 and v0 are learnt, one number a channel, the same for every sample and place.

    v0 = softplus(raw) > 0, 1 at first: √(v + ε) stays away from zero, so AdamODE keeps inside its
    domain whatever ε is, also where it is solved backwards. m0 is 0 at first.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.m0 = nn.Parameter(torch.zeros(channels))
        self.raw_v0 = nn.Parameter(torch.full((channels,), Softplus.inverse("v0", 1.0)))

    def forward(self, x: Tensor, o: Tensor) -> Start:
        """{"h0", "m0", "v0"}, each [B, C, …]."""
        shape = (-1, *(1,) * (o.ndim - 2))
        m0, v0 = self.m0.reshape(shape), Softplus.value(self.raw_v0).reshape(shape)
        return {"h0": o, "m0": m0.expand_as(o), "v0": v0.expand_as(o)}


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
