"""Writes the solution at the times asked for, as steps are accepted."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from torch import Tensor

from .stepper import Step


@dataclasses.dataclass(frozen=True)
class Place:
    """Where an output lies: in the step with this index (−1: the start), at θ in (0, 1]."""

    step: int
    theta: float


class OutputWriter:
    """An on_accept hook: the values (and derivatives, where wanted) at given times.

    times: strictly monotone; the first is the start.  derivatives: also record y'(t).
    """

    def __init__(self, times: Sequence[float], y0: Tensor, *, derivatives: bool = False):
        self.times, self.next = times, 1
        self.direction = math.copysign(1.0, times[-1] - times[0])
        self.values: list[Tensor] = [y0]
        self.derivatives: list[Tensor] | None = [] if derivatives else None
        self.places: list[Place] = [Place(-1, 1.0)]
        self.n_accepted = 0

    def __call__(self, step: Step) -> None:
        """Every output in (t0, t1] of an accepted step."""
        if self.derivatives is not None and not self.derivatives:
            self.derivatives.append(step.result.stages.get(0).clone())
        while self.next < len(self.times):
            t = self.times[self.next]
            if (t - step.t1) * self.direction > 0:
                break
            self.values.append(step.value(t))
            if self.derivatives is not None:
                # A stage is a view into memory that the next attempt overwrites.
                self.derivatives.append(step.derivative(t).clone())
            self.places.append(Place(self.n_accepted, 1.0 if t == step.t1 else step.theta(t)))
            self.next += 1
        self.n_accepted += 1
