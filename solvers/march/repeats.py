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
from ..step.clocks import distance, unlike
from ..step.field import CountedField
from ..step.runge_kutta import Field

FIRST = 1000  # attempts before the first look: some tenths of a second
LONG = 10_000  # attempts that few solves need


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


def next_look(made: int, share: float, limit: int) -> int:
    """After how many attempts to look again at how far a solve has come; 0: func is to be asked now.

    made: attempts so far.
    share: of the way, that lies behind.
    limit: attempts that the solve may make.
    At 1,000 attempts, 2,000, 4,000, … it asks where more than the limit, or than 10,000, would be needed at
    this pace: two evaluations of tens of thousands, once.
    """
    return 0 if math.isfinite(share) and share * min(limit, LONG) < made else 2 * made


def looked(clock: Clock, ends: tuple[Tensor, Tensor], made: int, limit: int) -> tuple[int, float, float]:
    """`next_look` for the sample that is furthest from its end, its time, its |dt|. One host read.

    ends: where each sample began and ends.
    """
    began, end = ends
    share = ((clock.t - began) / (end - began)).masked_fill(~clock.running, 1.0)
    at = share.argmin()[None]
    found = torch.cat([x.index_select(0, at) for x in (share, clock.t, clock.dt)]).tolist()  # host read
    return next_look(made, found[0], limit), found[1], found[2]


def refuse_random(field: Field, place: tuple[float, Tensor], y: Tensor, dt: float) -> None:
    """Raises SolverError (MAX_STEPS) where func is random.

    place: the time as a number, and as func wants it.
    """
    off = asked_twice(field, *place, y)
    if unlike(off, y.dtype):  # of samples there are no counts yet
        stats = field.stats if isinstance(field, CountedField) else None
        raise solver_error(place[0], dt, Status.MAX_STEPS, stats, random_sentence(off))
