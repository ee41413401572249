"""Samples of every fate in one batch, told apart by their state alone: any part of it may be solved."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from adamode import Status

NAN = float("nan")


def zoo(t: Tensor, y: Tensor) -> Tensor:
    """[b, 3]: (x, which kind of sample, a phase); the last two do not move.

    0 swings, 1 follows x' = x², 2 is NaN after t = 0.4, 3 is always NaN, 4 is stiff.
    """
    x, kind, phase = y[:, 0], y[:, 1], y[:, 2]
    time = t[:, 0] if t.dim() else t
    swings = -0.5 * x + torch.sin(3 * time + phase)
    dx = torch.where(kind == 0, swings, x * x)
    dx = torch.where(kind == 2, torch.where(time > 0.4, NAN, swings), dx)
    dx = torch.where(kind == 3, NAN, dx)
    dx = torch.where(kind == 4, -1e6 * (x - torch.cos(time)), dx)
    still = torch.zeros_like(x)
    return torch.stack((dx, still, still), 1)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of sample: its number in the zoo, its x0, whether it ends well, and the statuses it may have."""

    number: int
    x0: float
    statuses: tuple[Status, ...]
    stays: bool = False

    def row(self, phase: float) -> list[float]:
        return [self.x0, float(self.number), phase]

    @property
    def well(self) -> bool:
        return self.statuses == (Status.SUCCESS,)


KINDS = {
    "swings": Kind(0, 0.7, (Status.SUCCESS,)),
    "stays": Kind(0, -0.3, (Status.SUCCESS,), stays=True),
    # ends when its steps get too short, or when x² overflows, whichever comes first
    "blows up": Kind(1, 3.0, (Status.STEP_UNDERFLOW, Status.NON_FINITE)),
    "turns NaN": Kind(2, 0.2, (Status.NON_FINITE,)),
    "is NaN": Kind(3, 1.0, (Status.NON_FINITE,)),
    "begins NaN": Kind(0, NAN, (Status.NON_FINITE,)),
    "is stiff": Kind(4, 2.0, (Status.MAX_STEPS,)),
}


def batch(names: Sequence[str], spans: Sequence[tuple[float, float]], n_times: int) -> tuple[Tensor, Tensor]:
    """(y0 [B, 3], t [B, T]) of these kinds over these spans."""
    y0 = torch.tensor([KINDS[name].row(0.3 * i) for i, name in enumerate(names)], dtype=torch.float64)
    t = torch.stack(
        [
            torch.full((n_times,), a, dtype=torch.float64)
            if KINDS[name].stays
            else torch.linspace(a, b, n_times, dtype=torch.float64)
            for name, (a, b) in zip(names, spans, strict=True)
        ]
    )
    return y0, t


def reached(t: Tensor, y: Tensor, end: Callable[[int], float]) -> Tensor:
    """[T, B]: which outputs must be there, if sample i got as far as end(i) at least."""
    far = torch.tensor([end(i) for i in range(len(t))], dtype=torch.float64)
    return (t - t[:, :1]).abs().t() <= (far - t[:, 0]).abs()
