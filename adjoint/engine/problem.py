"""One shared-step solve, checked and packed, and the adjoint's walk back over it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from ...solvers.errors import NotRepeatableError, ReconstructionError
from ...solvers.march.host import Stats
from ...solvers.march.output import Place
from ...solvers.solve import Settings, Wish
from ...solvers.step.field import Autocast
from ..continuous.stepping import ThetaNorm
from ..dynamics.protocol import Dynamics

# times, places, values, cotangents of outputs and events, whether θ's gradients are wanted
# → dL/dz at the start before the first cotangent is added, gradients of θ
Walk = Callable[[list[float], list[Place], list[Tensor], list[Tensor], bool], tuple[Tensor, list[Tensor]]]


def _raise(error: ReconstructionError | NotRepeatableError) -> None:
    raise error


@dataclasses.dataclass(frozen=True)
class Speed:
    """How attempts are made: `sync_every` and `compile` of `solve`."""

    sync_every: int = 1
    compile: bool = False


@dataclasses.dataclass(frozen=True)
class Problem:
    """One solve, checked and packed.

    plain: f(t, z) → dz under the caller's grad mode; dynamics: the same with its VJP (made when a
    gradient is wanted).  times: floats; t: the tensor they came from.  complain: what happens to a
    reconstruction error past its limit.  observers: keyword arguments of `forward_solve` (callbacks).
    wish: what to record besides.  theta_norm: an error norm of the reverse solve that wants θ's
    adjoints.  guard: around the backward pass (torchdiffeq's manners).
    speed, func, named: how attempts are made, what a program would compile, whether params were named.
    """

    plain: Callable[[Tensor, Tensor], Tensor]
    make_dynamics: Callable[[], Dynamics]
    z0: Tensor
    t: Tensor
    times: Sequence[float]
    settings: Settings
    autocast: Autocast
    stats: Stats
    reverse_settings: Settings | None = None
    complain: Callable[[ReconstructionError | NotRepeatableError], None] = _raise
    observers: dict[str, Any] = dataclasses.field(default_factory=dict)
    reverse_observers: dict[str, Any] = dataclasses.field(default_factory=dict)
    theta_norm: ThetaNorm | None = None
    wish: Wish = Wish()  # noqa: RUF009  (frozen)
    guard: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    speed: Speed = Speed()
    func: Any = None
    named: bool = False
