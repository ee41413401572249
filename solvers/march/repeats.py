"""Whether func gives one value at one place: asked by a solve in trouble.

Dropout and noise look like errors of the steps, which become shorter and shorter. A solve that comes on asks
nothing.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..errors import random_sentence, solver_error
from ..status import Status
from ..step.attempt import Clock
from ..step.field import CountedBatches, CountedField
from ..step.runge_kutta import Field

FIRST = 1000  # attempts before the first look: some tenths of a second
LONG = 10_000  # attempts that few solves need


def distance(again: Tensor, k: Tensor) -> Tensor:
    """The largest difference, relative to the largest entry of k (absolute where k is 0), 0-d."""
    scale = k.abs().amax()
    return torch.where(scale == 0, again.abs().amax(), (again - k).abs().amax() / scale)


def unlike(off: float, dtype: torch.dtype) -> bool:
    """Whether two evaluations at one place differ by more than rounding.

    off: the difference, relative to the value.
    Rounding measured: up to 23 eps, of two 4096-wide layers whose rows are multiplied alone and in a batch of
    64. The limit is 40 times that; randomness is far above (what dropout drops is a whole entry).
    """
    return not off <= 1e3 * torch.finfo(dtype).eps


def asked_twice(field: Field, t: float, time: Tensor, y: Tensor) -> float:
    """By how much two evaluations at (t, y) differ, relative to their largest entry; NaN counts as nothing.

    t, time: the time as a number, and as func wants it.

    The random generators are put back, so that asking changes no number. One host read.
    """
    prepare = getattr(field, "prepare", None)
    with torch.no_grad(), _generators_kept(y.device):
        values = []
        for _ in range(2):
            if prepare is not None:
                prepare([t])
            values.append(field(time, y)[0].detach().clone())  # func may hand back one buffer
        first, second = (torch.nan_to_num(k, nan=0.0) for k in values)
        return float(distance(second, first))  # host read


@contextlib.contextmanager
def _generators_kept(device: torch.device) -> Iterator[None]:
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        yield


class Doubt:
    """When a solve asks.

    limit: the attempts that it may make.
    It looks at how far it has come at 1,000 attempts, 2,000, 4,000, …; where more than the limit, or than
    10,000, would be needed at this pace, it asks func, once: two evaluations of tens of thousands.
    """

    def __init__(self, field: Field, limit: int, *, fixed: bool = False):
        forward = isinstance(field, CountedField | CountedBatches)  # a walk back has a check of its own
        self.field, self.most, self.limit = field, limit, min(limit, LONG)
        self.made, self.at = 0, FIRST if forward and not fixed else 0

    def due(self, n: int = 1) -> bool:
        """Counts n attempts; whether to look after them."""
        self.made += n
        return 0 < self.at <= self.made

    def asks(self, share: float) -> bool:
        """Whether to ask now. share: of the way, that lies behind."""
        slow = math.isfinite(share) and share * self.limit < self.made
        self.at = 0 if slow else 2 * self.made  # 0: never again
        return slow


def slowest(clock: Clock, began: Tensor, end: Tensor) -> list[float]:
    """Of the sample that is furthest from its end: the share of the way behind it, its time, its |dt|."""
    share = ((clock.t - began) / (end - began)).masked_fill(~clock.running, 1.0)
    at = share.argmin()[None]
    found: list[float] = torch.cat([x.index_select(0, at) for x in (share, clock.t, clock.dt)]).tolist()
    return found  # host read


def refuse_random(field: Field, place: tuple[float, Tensor], y: Tensor, dt: float) -> None:
    """Raises SolverError (MAX_STEPS) where func is random.

    place: the time as a number, and as func wants it.
    """
    off = asked_twice(field, *place, y)
    if unlike(off, y.dtype):  # of samples there are no counts yet
        stats = field.stats if isinstance(field, CountedField) else None
        raise solver_error(place[0], dt, Status.MAX_STEPS, stats, random_sentence(off))
