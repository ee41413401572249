"""Fixed grids."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

from ..errors import solver_error
from ..stats import Stats
from ..status import Status

Grid = Callable[[Sequence[float]], Sequence[float]]  # from the times asked for


def uniform_grid(times: Sequence[float], dt: float, most: float = math.inf) -> list[float]:
    """times[0], times[0] ± dt, … and times[-1] exactly; the last step may be shorter.

    Raises SolverError (MAX_STEPS) where more than `most` steps would be needed.
    """
    t0, end = times[0], times[-1]
    direction = math.copysign(1.0, end - t0)
    steps = abs(end - t0) / dt - 1e-9
    if steps > most:
        raise solver_error(
            t0, dt, Status.MAX_STEPS, Stats(), f"A fixed step of dt={dt:g} makes {steps:.3g} steps."
        )
    n = max(1, math.ceil(steps))
    return [t0 + direction * dt * i for i in range(n)] + [end]


def grid_through(times: Sequence[float], stops: Sequence[float], make: Grid) -> Sequence[float]:
    """A grid for the times that has the stops in it, the last of them the end. Raises as make does."""
    if len(stops) < 2:
        return make(times)
    pieces = itertools.pairwise([times[0], *stops])
    return [times[0], *itertools.chain.from_iterable(make(piece)[1:] for piece in pieces)]
