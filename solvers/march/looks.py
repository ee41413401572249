"""Where a step is looked at for events, and what fires between two looks.

An event fires in the part of a step in which its function loses the sign that it was last seen to have.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from ..methods.tableau import Tableau, hermite
from ..step.clocks import sent
from .event import Event

PARTS = 8  # of a step: an event function is looked at between them
LOOKS = [k / PARTS for k in range(1, PARTS)]  # their θ, without the step's ends


def numbered(values: Tensor) -> Tensor:
    """For each look the last one up to it whose value is a number, [PARTS + 1, …]; 0 where there is none."""
    index = torch.arange(len(values), dtype=torch.int64, device=values.device).view(
        -1, *[1] * (values.dim() - 1)
    )
    return torch.where(values.isnan(), 0, index).cummax(0).values


class Looks:
    """Which events fire in which part of a step; values are [PARTS + 1, E, …], each event function at the
    ends of the parts, the step's ends included."""

    def __init__(self, events: Sequence[Event], like: Tensor):
        self.events, self.like = events, like.new_empty(0)

    @functools.cached_property
    def masks(self) -> tuple[Tensor, Tensor]:
        """[E] each: which events may fire on the way up, and on the way down."""

        def mask(sign: int) -> Tensor:
            wanted = [event.direction * sign >= 0 for event in self.events]
            return sent(wanted, self.like.device, torch.bool)

        return mask(1), mask(-1)

    def calm(self, values: Tensor) -> Tensor:
        """[E, …]: where nothing can fire, since all values are numbers of one sign."""
        low, high = torch.aminmax(values, dim=0)  # NaN where one is
        return (low > 0) | (high < 0)

    def fires(self, values: Tensor) -> Tensor:
        """[PARTS, E, …]: whether the sign that was last seen is lost within the part."""
        before = values.gather(0, numbered(values))[:-1]
        after = values[1:]
        shape = (-1, *[1] * (values.dim() - 2))
        up, down = self.masks
        rising = (before < 0) & (after >= 0) & up.view(shape)
        return rising | ((before > 0) & (after <= 0) & down.view(shape))


def begins(values: Sequence[float], direction: int) -> dict[int, int]:
    """`Looks.fires` of one event with one clock, on the host: of each part in which it fires, at which look
    its sign was last seen."""
    if (
        min(values) > 0.0 or max(values) < 0.0
    ):  # either is False of a NaN that stands first; others are left out
        return {}
    found, last = {}, 0
    for part, after in enumerate(values[1:]):
        if values[part] == values[part]:
            last = part
        before = values[last]
        if (before < 0.0 <= after and direction >= 0) or (before > 0.0 >= after and direction <= 0):
            found[part] = last
    return found


@functools.lru_cache(maxsize=256)
def look_table(tableau: Tableau, dtype: torch.dtype, device: torch.device, closer: bool) -> Tensor:
    """b_i(θ) at the looks inside a step, [PARTS − 1, n].

    closer: of the dense output.  Else of what costs no evaluation: that too, or where it needs further stages
        the cubic through y0, f0, y1, f1.
    """
    rows = tableau.interpolant
    if tableau.c_dense and not closer:
        rows = hermite(tableau.b, tableau.n_stages - 1)
    found = [[sum(float(w) * theta ** (k + 1) for k, w in enumerate(row)) for row in rows] for theta in LOOKS]
    return _constant(found, dtype, device)


@functools.lru_cache(maxsize=64)
def look_places(device: torch.device) -> Tensor:
    """The looks' θ, [PARTS − 1, 1], float64."""
    return _constant([[theta] for theta in LOOKS], torch.float64, device)


def _constant(rows: list[list[float]], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False), torch._C._DisableFuncTorch():  # as in `Tableau.numeric`
        table = torch.tensor(rows, dtype=torch.float64, device="cpu")
        return table.to(device=device, dtype=dtype, non_blocking=True)
