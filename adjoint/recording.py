"""What an adjoint keeps of a forward solve, and what it is told to walk back over it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..solvers.march.output import Place
from ..solvers.march.samples import Written

Result = tuple[Tensor, list[Tensor]]  # dL/dz at the start before the first cotangent, gradients of θ


@dataclasses.dataclass(frozen=True)
class Seen:
    """Outputs and events of a solve, the start first.

    times: of one clock floats, of a clock a sample [n, B] with NaN where not reached.  values: [n, *z].
    places: of one clock, where each lies.  outputs: of a clock a sample, what lies inside each attempt, for
    times that are asked for later; None for those that the solve itself wrote.
    """

    times: Any
    values: Tensor
    places: list[Place] | None = None
    outputs: list[list[Written]] | None = None


@dataclasses.dataclass(frozen=True)
class Recording:
    """recorder: sees the forward solve.  walk(seen, g, want_theta): the way back.

    dense: the forward solve must keep its steps.  saves: the way back uses what the forward solve's
    evaluations saved (their graphs, say).
    """

    recorder: Any
    walk: Callable[[Seen, Tensor, bool], Result]
    dense: bool = False
    saves: bool = False
