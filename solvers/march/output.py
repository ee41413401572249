"""Writes the solution at the times asked for, as steps are accepted."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from torch import Tensor

from .stepper import Step


@dataclasses.dataclass(frozen=True)
class Place:
    """Where an output lies: in the step with this index (−1: the start), at θ in (0, 1].

    A step of −2 means nowhere: a time after the event that ended the solve.
    """

    step: int
    theta: float


def by_step(places: Sequence[Place]) -> tuple[dict[int, list[int]], dict[int, list[tuple[int, float]]]]:
    """Of each step, which outputs lie at its end, and which inside it, with their θ."""
    ending: dict[int, list[int]] = {}
    inside: dict[int, list[tuple[int, float]]] = {}
    for i, place in enumerate(places):
        if place.theta == 1.0:
            ending.setdefault(place.step, []).append(i)
        else:
            inside.setdefault(place.step, []).append((i, place.theta))
    return ending, inside


class OutputWriter:
    """An on_accept hook: the values (and derivatives, where wanted) at given times, or at every step.

    times: strictly monotone; the first is the start.  derivatives: also record y'(t).
    every_step: write the end of each accepted step instead.
    """

    def __init__(
        self, times: Sequence[float], y0: Tensor, *, derivatives: bool = False, every_step: bool = False
    ):
        self.wanted, self.every_step = times, every_step
        self.direction = math.copysign(1.0, times[-1] - times[0])
        self.times: list[float] = [times[0]]
        self.values: list[Tensor] = [y0]
        self.derivatives: list[Tensor] | None = [] if derivatives else None
        self.places: list[Place] = [Place(-1, 1.0)]
        self.n_accepted = 0

    def __call__(self, step: Step, end: float | None = None) -> None:
        """Every output in (t0, t1] of an accepted step, up to `end` where an event ended the solve."""
        if self.derivatives is not None and not self.derivatives:
            self.derivatives.append(step.result.stages.get(0).clone())
        last = step.t1 if end is None else end
        if self.every_step:
            self.write(step, last)
        else:
            while len(self.times) < len(self.wanted):
                t = self.wanted[len(self.times)]
                if (t - last) * self.direction > 0:
                    break
                self.write(step, t)
        self.n_accepted += 1

    def write(self, step: Step, t: float) -> None:
        """One output at t in the step."""
        self.values.append(step.value(t))
        if self.derivatives is not None:
            # A stage is a view into memory that the next attempt overwrites.
            self.derivatives.append(step.derivative(t).clone())
        self.times.append(t)
        self.places.append(Place(self.n_accepted, 1.0 if t == step.t1 else step.theta(t)))
