"""How the cotangents of outputs enter the discrete walk: by their places, or by what was written."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import torch
from torch import Tensor

from ...solvers.march.output import by_step
from ...solvers.methods.tableau import Numeric
from ...solvers.step.clocks import Each
from ...solvers.step.interpolant import weights
from ..recording import Rows, Seen
from .tape import Attempt

# What outputs inside a step add: to each k̄_i (None: nothing), and to dL/dy
Inside = tuple[Sequence[Tensor | None], Tensor]


def plus(total: Tensor | None, term: Tensor | None) -> Tensor | None:
    """The sum of those that are there."""
    if term is None:
        return total
    return term if total is None else total + term


class Outputs(abc.ABC):
    """The cotangents of a solve's outputs and events."""

    @abc.abstractmethod
    def begin(self, z0: Tensor) -> tuple[Tensor, Tensor | None]:
        """λ and the held k̄ at the end of the last step."""

    @abc.abstractmethod
    def at_end(self, n: int, lam: Tensor) -> Tensor:
        """λ with the outputs at the end of step n."""

    @abc.abstractmethod
    def inside(self, n: int, attempt: Attempt) -> Inside | None:
        """What outputs inside step n add; None where none lies there."""

    @abc.abstractmethod
    def at_start(self, lam: Tensor) -> Tensor:
        """λ with the outputs at the start itself, but for the first."""


class ByPlace(Outputs):
    """Of one clock: a list of places."""

    def __init__(self, seen: Seen, g: Rows, numeric: Numeric):
        self.g, self.numeric = list(g), numeric
        self.ending, self.within = by_step(seen.places)

    def begin(self, z0: Tensor) -> tuple[Tensor, Tensor | None]:
        """Nothing is held: the last stage's VJP may be spared."""
        return torch.zeros_like(z0), None

    def at_end(self, n: int, lam: Tensor) -> Tensor:
        """One after another."""
        for i in self.ending.get(n, ()):
            lam = lam + self.g[i]
        return lam

    def at_start(self, lam: Tensor) -> Tensor:
        """One after another."""
        for i in self.ending[-1][1:]:
            lam = lam + self.g[i]
        return lam

    def _rows(self, n: int) -> list[list[float]]:
        """b_i(θ) of the outputs inside step n."""
        return [weights(self.numeric, theta) for _, theta in self.within[n]]

    def _sums(self, n: int, rows: list[list[float]], dt: float) -> tuple[Tensor, Tensor]:
        # One product for all outputs and stages: an addition each was slower than the step's VJPs.
        g = torch.stack([self.g[i] for i, _ in self.within[n]])
        table = torch.tensor(rows, dtype=torch.float64, device="cpu").mul_(dt)
        table = table.to(g.device, g.dtype, non_blocking=True)
        return torch.mm(table.t(), g.reshape(len(g), -1)).view(-1, *g.shape[1:]), g.sum(0)

    def sums(self, n: int, dt: float) -> tuple[Tensor, Tensor]:
        """What outputs inside step n add to all k̄_i, [stages, *S], and to dL/dy."""
        return self._sums(n, self._rows(n), dt)

    def inside(self, n: int, attempt: Attempt) -> Inside | None:
        """Stages that no output weighs are left out, and so their VJPs."""
        if n not in self.within:
            return None
        rows = self._rows(n)
        k_bar, y_bar = self._sums(n, rows, attempt.ends[1] - attempt.ends[0])
        used = [any(row) for row in zip(*rows, strict=True)]
        return [k if wanted else None for k, wanted in zip(k_bar.unbind(), used, strict=True)], y_bar


class ByWritten(Outputs):
    """Of a clock a sample: what was written in each attempt, or what lies there of a question asked later."""

    def __init__(self, seen: Seen, g: Tensor, clocks: Each, numeric: Numeric):
        self.g, self.clocks, self.numeric, self.asked = g, clocks, numeric, seen.outputs
        self.by_sample = g.movedim(clocks.batch + 1, 1)  # [n, B, …]
        assert isinstance(seen.times, Tensor)
        self.starting = seen.times[1:] == seen.times[:1]

    def begin(self, z0: Tensor) -> tuple[Tensor, Tensor | None]:
        """A cotangent of 0 is held for every sample."""
        return torch.zeros_like(self.g[0]), torch.zeros_like(self.g[0])

    def at_end(self, n: int, lam: Tensor) -> Tensor:
        """None: an output at a step's end lies in it at θ = 1."""
        return lam

    def at_start(self, lam: Tensor) -> Tensor:
        """Of the samples whose own time is their start."""
        for row, mask in zip(self.g[1:], self.starting, strict=True):
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
