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

    other: "m0" (heavy balls) or "v0" (SONODE).  Needs channels(x) + channels(o) = 2 C.
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
