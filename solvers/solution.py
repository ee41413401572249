"""What `solve` returns."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor

from .loop import Stats
from .status import Status


@dataclasses.dataclass(frozen=True)
class Solution:
    """The solution of an initial value problem.

    t: [T], the times asked for.  y: [T, *y0.shape], or a pytree of such in y0's structure.
    status: a Status.  stats: what it cost; the backward pass fills its part when it has run.
    """

    t: Tensor
    y: Any
    status: Status
    stats: Stats
