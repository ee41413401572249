"""How the cotangents of a solve's outputs and events enter its steps, walked backwards."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...solvers.march.output import by_step
from ...solvers.methods.tableau import Numeric, weights
from ...solvers.step.clocks import Each
from ..recording import Rows, Seen
from .tape import Attempt

# What outputs inside a step add: to each k̄_i (None: nothing), and to dL/dy
Inside = tuple[Sequence[Tensor | None], Tensor]
Back = tuple[Tensor, Any]  # λ and the held k̄; of one clock None where none is held


def plus(total: Tensor | None, term: Tensor | None) -> Tensor | None:
    """The sum of those that are there."""
    if term is None:
        return total
    return term if total is None else total + term


class Outputs(abc.ABC):
    """The cotangents of a solve's outputs and events."""

    @abc.abstractmethod
    def begin(self, z0: Tensor) -> Back:
        """At the end of the last step."""

    @abc.abstractmethod
    def at_end(self, n: int, lam: Tensor) -> Tensor:
        """λ with the outputs at the end of step n; n = −1: at the start itself, but for the first."""

    @abc.abstractmethod
    def inside(self, n: int, attempt: Attempt) -> Inside | None:
        """What outputs inside step n add; None where none lies there."""


class ByPlace(Outputs):
    """Of one clock: a list of places."""

    def __init__(self, seen: Seen, g: Rows, numeric: Numeric):
        self.whole, self.g, self.numeric = g, list(g)[1:], numeric
        self.ending, self.within = by_step(seen.places[1:])

    def begin(self, z0: Tensor) -> Back:
        """Nothing is held: the last stage's VJP may be spared."""
        return torch.zeros_like(z0), None

    def at_end(self, n: int, lam: Tensor) -> Tensor:
        """One after another."""
        for i in self.ending.get(n, ()):
            lam = lam + self.g[i]
        return lam

    def sums(self, n: int, dt: float) -> tuple[Tensor, Tensor, list[list[float]]]:
        """What outputs inside step n add to all k̄_i, [stages, *S], and to dL/dy; and their b_i(θ).

        One product for all outputs and stages: an addition each was slower than the step's VJPs.
        """
        first, last = self.within[n][0][0], self.within[n][-1][0]
        if isinstance(self.whole, Tensor) and last - first == len(self.within[n]) - 1:
            g = self.whole[first + 1 : last + 2]  # an event's lies behind all outputs
        else:
            g = torch.stack([self.g[i] for i, _ in self.within[n]])
        rows = [weights(self.numeric, theta) for _, theta in self.within[n]]
        table = torch.tensor([[*(dt * w for w in row), 1.0] for row in rows], dtype=g.dtype, device="cpu")
        table = table.to(g.device, non_blocking=True)
        both = torch.mm(table.t(), g.reshape(len(g), -1)).view(-1, *g.shape[1:])
        return both[:-1], both[-1], rows

    def inside(self, n: int, attempt: Attempt) -> Inside | None:
        """Stages that no output weighs are left out, and so their VJPs."""
        if n not in self.within:
            return None
        assert isinstance(attempt.dt, float)
        k_bar, y_bar, rows = self.sums(n, attempt.dt)
        used = zip(k_bar.unbind(), zip(*rows, strict=True), strict=True)
        return [k if any(row) else None for k, row in used], y_bar


class ByWritten(Outputs):
    """Of a clock a sample: what was written in each attempt, or what lies there of a question asked later."""

    def __init__(self, seen: Seen, g: Rows, clocks: Each, numeric: Numeric):
        assert isinstance(seen.times, Tensor)
        assert isinstance(g, Tensor)
        self.g, self.clocks, self.numeric, self.asked = g, clocks, numeric, seen.outputs
        self.by_sample = g.movedim(clocks.batch + 1, 1)  # [n, B, …]
        self.at_start = seen.times[1:] == seen.times[:1]

    def begin(self, z0: Tensor) -> Back:
        """A cotangent of 0 is held for every sample."""
        return torch.zeros_like(self.g[0]), torch.zeros_like(self.g[0])

    def at_end(self, n: int, lam: Tensor) -> Tensor:
        """Of the samples whose own time is their start; an output at a step's end lies in it at θ = 1."""
        for row, mask in zip(self.g[1:], self.at_start, strict=True) if n < 0 else ():
            lam = lam + torch.where(self.clocks.spread(mask), row, 0.0)
        return lam

    def inside(self, n: int, attempt: Attempt) -> Inside | None:
        """Each sample's own outputs with its own weights."""
        outputs = attempt.outputs if self.asked is None else self.asked[n]
        if not outputs:
            return None
        k_bar: list[Tensor | None] = [None] * len(self.numeric.a_rows)
        y_bars, spread = [], self.clocks.spread
        for written in outputs:
            g = self.by_sample[written.place, attempt.who.index].movedim(1, self.clocks.batch + 1)
            g = torch.where(spread(written.valid), g, 0.0)  # [m, *state]
            y_bars.append(g.sum(0))
            for j, w in enumerate(written.weights):
                k_bar[j] = plus(k_bar[j], (g * spread(w)).sum(0) * attempt.dt)
        return k_bar, torch.stack(y_bars).sum(0)
