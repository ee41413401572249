"""How far states that a walk back has rebuilt are from those that were stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from ...solvers.errors import ReconstructionError
from ...solvers.march.output import by_step
from ...solvers.step.clocks import Each, Norm, Tolerance
from ..recording import Seen
from .tape import Attempt, Solved


@dataclasses.dataclass(frozen=True)
class Limit:
    """How far a rebuilt state may be from the stored one.

    norm, tolerance: of the solve.
    most: in units of the tolerance.
    """

    norm: Norm
    tolerance: Tolerance
    most: float


class Comparison:
    """How far rebuilt states are from stored ones: the largest distance of each clock, and its time."""

    def __init__(self, solved: Solved, limit: Limit, seen: Seen):
        self.solved, self.limit, self.seen, self.clocks = solved, limit, seen, solved.clocks
        self.ending = by_step(seen.places[1:])[0]
        self.worst = solved.clocks.total(torch.zeros_like(solved.z0.detach())).double()
        self.time = torch.zeros_like(self.worst)

    def at_end(self, n: int, t1: Any, attempt: Attempt, y: Tensor) -> None:
        """Outputs at the end t1 of step n, where the samples of the attempt have the state y."""
        index, tolerance, seen = attempt.who.index, self.limit.tolerance, self.seen
        if index is None:
            for i in self.ending.get(n, ()):
                self._see(t1, self._distance(y, seen.values[i + 1], tolerance))
            return
        if seen.outputs is not None or not attempt.outputs:  # of a question asked later nothing is stored
            return
        clocks = cast("Each", self.clocks)
        batch = clocks.batch_size(self.solved.z0)
        tolerance = tolerance if len(index) == batch else tolerance.select(index, clocks, batch)
        times, by_sample = (
            cast("Tensor", seen.times),
            cast("Tensor", seen.values).movedim(clocks.batch + 1, 1),
        )
        for written in attempt.outputs:
            for place, valid in zip(written.place, written.valid, strict=True):
                mine = valid & (times[place, index] == t1)
                stored = clocks.choose(mine, by_sample[place, index].movedim(0, clocks.batch), y)
                off = torch.where(mine, self._distance(y, stored, tolerance), 0.0)
                self._see(t1, off, index)

    def at_start(self, t0: Any, states: Sequence[Tensor], moved: Tensor | None) -> None:
        """The start, where y0 is. moved: the samples that took a step."""
        z0 = self.solved.z0.detach()
        for y in states:
            off = self._distance(y, self.clocks.choose(moved, z0, y), self.limit.tolerance)
            self._see(t0, off if moved is None else torch.where(moved, off, 0.0))

    def _distance(self, back: Tensor, stored: Tensor, tolerance: Tolerance) -> Tensor:
        return self.limit.norm((back - stored) / tolerance.scale(stored)).double()

    def _see(self, time: Any, off: Tensor, index: Tensor | None = None) -> None:
        if index is not None and len(index) != len(self.worst):
            time = self.time.index_copy(0, index, time)
            off = torch.zeros_like(self.worst).index_copy(0, index, off)
        larger = ~(off <= self.worst)  # so that NaN is the largest
        self.worst, self.time = torch.where(larger, off, self.worst), torch.where(larger, time, self.time)

    def judge(self) -> ReconstructionError | None:
        """The complaint, where a rebuilt state lies past the limit; else None. One host read."""
        off, which = self.worst.reshape(-1).max(0)
        found, b, time = torch.stack((off, which.to(off), self.time.reshape(-1)[which].to(off))).tolist()
        self.solved.stats.reconstruction_error = found
        if found <= self.limit.most:
            return None
        whose = f" of sample {int(b)}" if self.worst.dim() else ""
        return ReconstructionError(
            f"reversible: rebuilt at t={time:.6g}, the state{whose} is {found:.3g} tolerances (RMS) from the "
            f"stored one; the limit is {self.limit.most:g}. Rounding has grown on the way back, and the "
            "gradient cannot be trusted. Use a coupling nearer to 1, float64, or fewer steps; or "
            "gradient=adamode.Discrete(checkpoints=…), which rebuilds no state backwards. Or raise "
            "reconstruction_limit."
        )
