"""The reverse solve that both continuous adjoints share: interval by interval, with jumps.

From the last observation to the first the adjoint equation is solved by the forward integrator;
a jumps by g_i at t_i.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...solvers.errors import SolverError
from ..recording import Result
from .carrier import Carrier
from .quadrature import Quadrature, Watch
from .stepping import Stepping


class ReverseSolve:
    """One reverse solve over a carrier's observations.

    want_theta: whether θ's gradients are wanted.  dt: |dt| to begin with, or None for Hairer's.
    watch: sees the adjoint at the end of every accepted step (shared steps).
    """

    def __init__(
        self,
        stepping: Stepping[Any, Any],
        carrier: Carrier,
        *,
        want_theta: bool,
        dt: Any = None,
        watch: Watch | None = None,
    ):
        self.stepping, self.carrier, self.dt, self.watch = stepping, carrier, dt, watch
        z = carrier.seen.values[0]
        numeric = stepping.backward.tableau.numeric(z.dtype, z.device)
        self.quadrature = Quadrature(carrier, numeric, wanted=want_theta, watch=watch)

    def run(self) -> Result:
        """dL/dz at the start, without the cotangent of the output there, and θ's gradients."""
        g = self.carrier.seen.g
        a = g[-1]
        for i in range(len(g) - 1, 0, -1):
            a = self._interval(i, a)
            if i > 1:
                a = a + g[i - 1]
        return a, self.quadrature.theta.result()

    def _interval(self, i: int, a: Tensor) -> Tensor:
        """From observation i to the one before; the step size goes on as it was."""
        carrier, times = self.carrier, self.carrier.seen.times
        moved: bool | Tensor = times[i] != times[i - 1]
        if moved is False:  # an event at an observation
            return a
        pair = carrier.start(i, a)
        if self.watch is not None:
            self.watch(times[i], a, carrier.rebuilt(pair))
        try:
            pair, self.dt = self.stepping.solve(carrier, pair, i, self.dt, self.quadrature)
        except SolverError as error:
            raise carrier.explained(error, i - 1) from error
        carrier.landed(i - 1, pair, moved)
        return self.stepping.clocks.choose(None if moved is True else moved, pair[1], a)
