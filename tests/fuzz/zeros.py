"""Event functions, cut off in all the ways that users cut them off, and where they fire on an exact flow."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from .flows import Flow, Theta

KINDS = ("level", "time", "mixed", "cube", "clamp", "relu", "where", "bool", "sign", "late_zero")
# Their slope at the zero is 0, or they have none: the time is there, its gradient is refused or NaN
WITHOUT_SLOPE = ("cube", "clamp", "relu", "where", "bool", "sign")
GRID = 256
SHALLOW = 0.1  # above the error of the coarsest fixed steps here, 0.06
STEEPEST = 0.25  # least |dg/dt| at a zero: its time then moves by at most 4 times the state's error


@dataclasses.dataclass(frozen=True)
class Zero:
    """kind: one of KINDS.  direction: as Event's.  side: the sign that `level − y` has to be seen as
    positive with, for the functions that are cut off below 0.  late: where `late_zero` becomes 0."""

    kind: str
    terminal: bool
    direction: int
    side: float
    late: float
    forwards: bool

    def base(self, t: Tensor, y: Tensor, level: Tensor) -> Tensor:
        """The smooth function behind it: t […], y […, D] → […]."""
        if self.kind == "time":
            return (t + 0 * y[..., 0]) - level
        found = y[..., 0] - level
        return found + 0.3 * t if self.kind == "mixed" else found

    def value(self, t: Tensor, y: Tensor, level: Tensor) -> Tensor:
        """What the user's function returns."""
        found = self.base(t, y, level)
        if self.kind == "cube":
            return found**3
        if self.kind == "clamp":
            return (self.side * found).clamp(min=0)
        if self.kind == "relu":
            return torch.relu(self.side * found)
        if self.kind == "where":
            return torch.where(self.side * found > 0, found, torch.zeros_like(found))
        if self.kind == "bool":
            return found > 0
        if self.kind == "sign":
            return torch.sign(found)
        if self.kind == "late_zero":
            past = t > self.late if self.forwards else t < self.late
            return torch.where(past, torch.zeros_like(found), found)
        return found

    def fires(self, falls: bool) -> bool:
        """Whether it does where `base` changes its sign downwards, or upwards (as time runs)."""
        if self.kind in ("clamp", "relu"):
            return (falls if self.side > 0 else not falls) and self.direction <= 0
        if self.kind == "where" and falls != (self.side > 0):
            return False
        return self.direction == 0 or (self.direction < 0) == falls


def zeros_of(
    zero: Zero, flow: Flow, start: Tensor, end: Tensor, y0: Tensor, theta: Theta, level: Tensor
) -> list[list[tuple[float, bool]]] | None:
    """For each sample the times at which `base` is 0 on the exact flow, in order, and whether it falls.

    None where they are too hard to find for anyone: a slope below STEEPEST, an extremum nearer to 0 than
    SHALLOW (an error of that size makes two zeros or takes them away), or a zero within a fiftieth of the
    span from its ends.
    """
    with torch.no_grad():
        part = torch.linspace(0, 1, GRID + 1, dtype=torch.float64)[:, None]
        at = start + part * (end - start)  # [n, B]

        def base(at: Tensor) -> Tensor:
            return zero.base(at, flow.exact(at[..., None], start[:, None], y0, theta), level)

        g = base(at)
        change = (g[:-1] < 0) != (g[1:] < 0)
        some = change.any(1)
        low, high, before = at[:-1][some], at[1:][some], g[:-1][some]
        for _ in range(50):
            middle = 0.5 * (low + high)
            same = (base(middle) < 0) == (before < 0)
            low, high = torch.where(same, middle, low), torch.where(same, high, middle)
        slope = (g[1:] - g[:-1]).abs() / (at[1:] - at[:-1]).abs().clamp(min=1e-300)
        rises = g[1:] > g[:-1]
        turns = (rises[1:] != rises[:-1]) & ((end - start).abs() > 0)
        flat = turns & (g[1:-1].abs() < SHALLOW)
        edge = change & ((part[:-1] < 0.02) | (part[1:] > 0.98))
        if bool((change & (slope < STEEPEST)).any() | flat.any() | edge.any()):
            return None
    return [
        [
            (float(t[b]), bool(g0[b] > 0))
            for t, g0, there in zip(high, before, change[some], strict=True)
            if there[b]
        ]
        for b in range(g.shape[1])
    ]


def moving_time(
    zero: Zero, flow: Flow, t: float, b: int, leaves: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """(t*, y* [B, D]) at a zero of sample b, with the gradients of the implicit function theorem.

    leaves: starts [B], y0 [B, D], level, *theta.
    """
    start, y0, level, *theta = leaves
    batch = len(y0)
    with torch.enable_grad():
        moving = torch.full((), t, dtype=torch.float64).requires_grad_()
        own = [x.detach() for x in theta]
        y = flow.exact(moving.expand(1, batch, 1), start.detach()[:, None], y0.detach(), tuple(own))[0]
        (slope,) = torch.autograd.grad(zero.base(moving, y[b], level.detach()), moving)
        fixed = moving.detach()
        y = flow.exact(fixed.expand(1, batch, 1), start[:, None], y0, tuple(theta))[0]
        residual = zero.base(fixed, y[b], level)
        when = fixed - (residual - residual.detach()) / slope.detach()
        state = flow.exact(when.expand(1, batch, 1), start[:, None], y0, tuple(theta))[0]
    return when, state
