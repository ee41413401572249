"""The dense output of a whole solve with one step size."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import torch
from torch import Tensor

from ..checks import check_readable
from ..errors import ArgumentError
from .output import Place, Step


class DenseOutput:
    """The kept steps of a solve; answers for any time between its start and its end."""

    def __init__(self, steps: Sequence[Step], start: float, end: float):
        self.steps, self.start, self.end = steps, start, end
        self.like = steps[0].y0
        self.sign = 1.0 if end >= start else -1.0
        self._ends = [self.sign * step.t1 for step in steps]

    def _step(self, t: float) -> int:
        """The index of the step that t lies in; raises ArgumentError outside the solve."""
        if not self.sign * self.start <= self.sign * t <= self.sign * self.end:
            raise ArgumentError(
                f"t={t!r} lies outside the solve, which ran from {self.start!r} to {self.end!r}: a dense "
                "output is no extrapolation."
            )
        return min(bisect.bisect_left(self._ends, self.sign * t), len(self.steps) - 1)

    @staticmethod
    def read(t: Tensor) -> list[float]:
        """Times [n] as they are asked for below; a host read."""
        check_readable(t, "t")
        times: list[float] = t.detach().double().tolist()
        return times

    def evaluate(self, times: list[float], *, derivative: bool = False) -> Tensor:
        """y (or y') at several times, [n, *z]."""
        if not times:
            return self.like.new_empty((0, *self.like.shape))
        return torch.stack([self.derivative(t) if derivative else self.value(t) for t in times])

    def places(self, times: list[float]) -> list[Place]:
        """Where the start and the times lie, for an adjoint."""
        return [Place(-1, 1.0), *(self.place(t) for t in times)]

    def value(self, t: float) -> Tensor:
        """y(t), packed."""
        step = self.steps[self._step(t)]
        return step.y0 if t == step.t0 else step.value(t)

    def derivative(self, t: float) -> Tensor:
        """y'(t), packed."""
        return self.steps[self._step(t)].derivative(t)

    def place(self, t: float) -> Place:
        """Where t lies, for an adjoint."""
        n = self._step(t)
        step = self.steps[n]
        if t == step.t0:
            return Place(n - 1, 1.0)
        return Place(n, 1.0 if t == step.t1 else step.theta(t))
