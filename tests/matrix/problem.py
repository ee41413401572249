"""A problem whose solution, events and every derivative are known, on any state and either clock.

y' = p κ(t) y (1 − y) in every entry, κ(t) = 1 + q sin 3t, and from `JUMP` on `KICK` more where it jumps, and
more by a signal, of each sample, that jumps there as well: y(t) = y0 / (y0 + (1 − y0) e^(−pK)), K = ∫κ. It is
nonlinear, so that samples that start apart go apart.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from adamode import Dynamics

B = 3  # samples
JUMP, KICK = 0.15, 1.5
RISE, STRENGTH = 1.3, 0.5  # p and q
FIRST = (0.3, 0.45, 0.28)  # each sample's first entry; the next ones rise by 0.04


@dataclasses.dataclass(frozen=True)
class State:
    """A kind of state: its leaves' shapes, where their batch is, how they are one pytree."""

    shapes: tuple[tuple[int, ...], ...]
    batch: int | None = 0
    names: tuple[str, ...] = ()

    def pack(self, leaves: list[Tensor]) -> Any:
        """The state from its leaves."""
        return dict(zip(self.names, leaves, strict=True)) if self.names else leaves[0]

    def leaves(self, y: Any) -> list[Tensor]:
        """Its leaves, in the order of `shapes`."""
        return [y[name] for name in self.names] if self.names else [y]

    def spread(self, clock: Tensor, leaf: Tensor, lead: int = 0) -> Tensor:
        """A number a clock (`lead` clocks before it), so that it broadcasts against the leaf."""
        if clock.dim() == lead or self.batch is None:
            return clock.reshape(*clock.shape[:lead], *[1] * leaf.dim())
        shape = [1] * leaf.dim()
        shape[self.batch] = -1
        return clock.reshape(*clock.shape[:lead], *shape)

    def first(self, y: Any) -> Tensor:
        """The first entry of every sample, [B]; of a state without a batch, 0-d."""
        leaf = self.leaves(y)[0]
        if self.batch is None:
            return leaf
        moved = leaf.movedim(self.batch, 0)
        return moved.reshape(len(moved), -1)[:, 0]

    def start(self, backwards: bool) -> list[Tensor]:
        """The leaves at the start; against time the mirror image 1 − y, which does as much."""
        made = []
        for shape in self.shapes:
            leaf = torch.arange(max(1, torch.Size(shape).numel()), dtype=torch.float64).reshape(shape)
            if self.batch is None:
                made.append(torch.full_like(leaf, FIRST[0]))
                continue
            moved = leaf.movedim(self.batch, 0)
            entries = 0.04 * torch.arange(moved[0].numel(), dtype=torch.float64).reshape(moved[0].shape)
            rows = torch.stack([first + entries for first in FIRST])
            made.append(rows.movedim(0, self.batch).contiguous())
        return [1 - leaf if backwards else leaf for leaf in made]


STATES = {
    "0-d": State(((),), None),
    "[B]": State(((B,),)),
    "[B, D]": State(((B, 2),)),
    "image": State(((B, 1, 2, 2),)),
    "pytree": State(((B, 2), (B,)), names=("a", "b")),
    "Dynamics": State(((2, B, 2),), batch=1),
}


Kick = float | Tensor


def kappa(t: Tensor, q: Tensor, kick: Kick, before: Kick = 0.0) -> Tensor:
    """κ, at the jump the value after it."""
    return 1 + before + q * torch.sin(3 * t) + kick * (t >= JUMP).to(t.dtype)


def integral(t0: Tensor, t: Tensor, q: Tensor, kick: Kick, before: Kick = 0.0) -> Tensor:
    """∫κ from t0 to t."""

    def after(t: Tensor) -> Tensor:
        return torch.where(t >= JUMP, t - JUMP, 0.0)

    return (
        (1 + before) * (t - t0)
        - q / 3 * (torch.cos(3 * t) - torch.cos(3 * t0))
        + kick * (after(t) - after(t0))
    )


class Field(nn.Module):
    """The problem for autograd, on any pytree."""

    def __init__(self, kick: float):
        super().__init__()
        self.p = nn.Parameter(torch.tensor(RISE, dtype=torch.float64))
        self.q = nn.Parameter(torch.tensor(STRENGTH, dtype=torch.float64))
        self.kick = kick

    def forward(self, t: Tensor, y: Any, u: Tensor | None = None) -> Any:
        rate = self.p * kappa(t, self.q, self.kick, 0.0 if u is None else u.reshape(t.shape))

        def slope(leaf: Tensor) -> Tensor:
            own = rate if t.dim() == 0 else rate.reshape(-1, *[1] * (leaf.dim() - 1))
            return own * leaf * (1 - leaf)

        return pytree.tree_map(slope, y)


class Blocks(Dynamics):
    """The same with its VJP by hand, on [K, B, D]."""

    def __init__(self, kick: float):
        field = Field(kick)
        self.p, self.q, self.kick = field.p, field.q, kick

    def theta(self) -> tuple[Tensor, ...]:
        return self.p, self.q

    def forward(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        k = kappa(t, self.q, self.kick)
        return self.p * k * z * (1 - z), (t, k, z)

    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        _, k, z = saved
        return self.p * k * (1 - 2 * z) * cotangent, cotangent * z * (1 - z)

    def parameter_gradients(
        self, saved: list[Any], deltas: list[Any], weights: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        by_p, by_q = torch.zeros_like(self.p), torch.zeros_like(self.q)
        for i, ((t, k, _), delta) in enumerate(zip(saved, deltas, strict=True)):
            weight = torch.ones(()) if weights is None else weights[i]
            weighted = delta * weight.reshape(-1, 1)  # [B, 1] or [1, 1]
            by_p = by_p + (k * weighted).sum()
            by_q = by_q + (self.p * torch.sin(3 * t) * weighted).sum()
        return by_p, by_q


class BlocksModule(Blocks, nn.Module):
    """The same as a module, which can be compiled."""

    def __init__(self, kick: float):
        nn.Module.__init__(self)
        Blocks.__init__(self, kick)


@dataclasses.dataclass(frozen=True)
class Closed:
    """The closed solution, from leaves that want gradients. t0: one start a clock.

    kick, before: what is more from the jump on, and what is everywhere, of all or of each clock.
    """

    state: State
    leaves: list[Tensor]
    p: Tensor
    q: Tensor
    kick: Kick
    t0: Tensor
    before: Kick = 0.0

    def wide(self, t: Tensor) -> Tensor:
        """Times [n] or [n, B] as they broadcast against numbers of clocks."""
        own = max(self.t0.dim(), self.before.dim() if isinstance(self.before, Tensor) else 0)
        return t[:, None] if t.dim() < 1 + own else t

    def of(self, clock: int) -> tuple[Kick, Kick]:
        """What is more after the jump, and everywhere, of one clock."""
        both = (self.kick, self.before)
        kick, before = (x[clock] if isinstance(x, Tensor) and x.dim() else x for x in both)
        return kick, before

    def at(self, t: Tensor) -> list[Tensor]:
        """The leaves at [n] or [n, B] times (n times, of all clocks or of each)."""
        t = self.wide(t)
        exponent = self.p * integral(self.t0, t, self.q, self.kick, self.before)
        return [y / (y + (1 - y) * torch.exp(-self.state.spread(exponent, y, 1))) for y in self.leaves]

    def slope(self, t: Tensor) -> list[Tensor]:
        """y' there."""
        t = self.wide(t)
        rate = self.p * kappa(t, self.q, self.kick, self.before)
        return [
            self.state.spread(rate, y, 1) * v * (1 - v) for y, v in zip(self.leaves, self.at(t), strict=True)
        ]

    def crossing(self, level: Tensor, clock: int, end: float) -> Tensor | None:
        """When a clock's first entry meets the level on its way to `end`; None where it does not."""
        first = self.state.first(self.state.pack(self.leaves))
        y0 = first if first.dim() == 0 else first[clock]
        t0 = self.t0 if self.t0.dim() == 0 else self.t0[clock]
        target = torch.logit(level) - torch.logit(y0)
        kick, before = self.of(clock)
        both = [float(x.detach()) if isinstance(x, Tensor) else x for x in (kick, before)]

        def gap(t: float) -> float:
            """In floats: sixty bisections of tensors cost more than the solve."""
            q, begin = self.q.item(), t0.item()
            smooth = (1 + both[1]) * (t - begin) - q / 3 * (math.cos(3 * t) - math.cos(3 * begin))
            kicked = both[0] * (max(t - JUMP, 0.0) - max(begin - JUMP, 0.0))
            return target.item() - self.p.item() * (smooth + kicked)

        low, high = t0.item(), end
        ahead = gap(low)
        if ahead == 0 or not ahead * gap(high) <= 0:
            return None
        for _ in range(60):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if gap(middle) * ahead > 0 else (low, middle)
        when = torch.tensor(high, dtype=torch.float64)
        for _ in range(2):  # Newton's steps change nothing here but the derivatives: right to second order
            residual = target - self.p * integral(t0, when, self.q, kick, before)
            when = when + residual / (self.p * kappa(when, self.q, kick, before))
        return when
