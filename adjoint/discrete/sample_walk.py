"""The discrete adjoint with a step size for each sample: `discrete.StepBack` over attempts.

An attempt that a sample rejected has dt = 0 for it: λ and the held cotangent of its first stage pass
by. dL/dθ stays one copy: every sample's own dt is already in its stages' cotangents.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...solvers.march.host import Stats
from ...solvers.methods.tableau import Tableau
from ...solvers.step.clocks import Each
from ...solvers.step.runge_kutta import StageBuffer, dense_stages, rk_step
from ..dynamics.protocol import Dynamics, ThetaSum
from .sample_tape import KeptAttempt, KeptFirst, SampleCheckpointTape, SampleTape, State, Unit
from .walk import Interior, StepBack


class SampleDiscreteWalk:
    """The walk backwards over a SampleTape; g: [T, *state]."""

    def __init__(
        self,
        dynamics: Dynamics,
        tableau: Tableau,
        tape: SampleTape | SampleCheckpointTape,
        g: Tensor,
        clocks: Each,
        stats: Stats,
        *,
        want_theta: bool = True,
    ):
        self.dynamics, self.tableau, self.tape, self.clocks, self.stats = (
            dynamics,
            tableau,
            tape,
            clocks,
            stats,
        )
        self.numeric = tableau.numeric(g.dtype, g.device)
        self.theta = ThetaSum(dynamics, wanted=want_theta)
        self.back = StepBack(dynamics, tableau, self.numeric, self.theta, stats)
        self.by_sample = g.movedim(clocks.batch + 1, 1)  # [T, B, …]
        self.lam, self.held = torch.zeros_like(g[0]), torch.zeros_like(g[0])

    def run(self) -> Tensor:
        """dL/dz at the start, without the cotangent of the output there; fills `theta`."""
        for entry in self.tape.backwards(self._again):
            lam, held = self._take(self.lam, entry.index), self._take(self.held, entry.index)
            if isinstance(entry, KeptAttempt):
                lam, held = self._attempt(entry, lam, held)
            else:
                lam, held = self._first(entry, lam, held)
            self.lam = self._put(self.lam, entry.index, lam)
            self.held = self._put(self.held, entry.index, held)
        return self.lam

    def _take(self, whole: Tensor, index: Tensor) -> Tensor:
        if len(index) == self.clocks.batch_size(whole):
            return whole
        return whole.index_select(self.clocks.batch, index)

    def _put(self, whole: Tensor, index: Tensor, part: Tensor) -> Tensor:
        if len(index) == self.clocks.batch_size(whole):
            return part
        return whole.index_copy(self.clocks.batch, index, part)

    def _first(self, entry: KeptFirst, lam: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
        mask = self.clocks.spread(entry.which)
        self.back.kept, self.back.deltas = [], []
        bar = self.back.vjp(entry.saved, torch.where(mask, held, 0.0))
        self.theta.add(self.back.kept, self.back.deltas)
        return torch.where(mask, lam + bar, lam), torch.where(mask, 0.0, held)

    def _attempt(self, entry: KeptAttempt, lam: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
        mask = self.clocks.spread(entry.accepted)
        interior: Interior = []
        for written in entry.outputs:
            g = self.by_sample[written.place, entry.index].movedim(1, self.clocks.batch + 1)  # [m, *state]
            valid = self.clocks.spread(written.valid)
            interior.append((torch.where(valid, g, 0.0), [self.clocks.spread(w) for w in written.weights]))
        n = self.tableau.n_stages
        saved = self._saved(entry, dense=any(len(row) > n for _, row in interior))
        y_bar, k_bar = self.back(saved, entry.dt, lam, torch.where(mask, held, 0.0), interior)
        return torch.where(mask, y_bar, lam), torch.where(mask, k_bar, held)

    def _saved(self, entry: KeptAttempt, *, dense: bool) -> Sequence[Any]:
        """What each stage saved, evaluated anew (with dt = 0 where not accepted) if it was not kept."""
        if entry.saved is not None:
            return entry.saved
        assert entry.y0 is not None
        assert entry.first is not None
        buffer = StageBuffer(self.numeric, entry.y0, entry.dt)
        result = rk_step(self._evaluate, entry.y0, (entry.first, None), entry.times, self.tableau, buffer)
        if dense and self.tableau.c_dense:
            dense_stages(self._evaluate, entry.y0, entry.times, self.tableau, result)
        return result.saved

    def _again(self, state: State, units: Sequence[Unit]) -> State:
        """Takes the attempts of all units but the last again, and what lies before each after the first."""
        y, first = state
        for unit, following in itertools.pairwise(units):
            attempt = unit.attempt
            buffer = StageBuffer(self.numeric, y, attempt.dt)
            result = rk_step(self._unsaved, y, (first, None), attempt.times, self.tableau, buffer)
            move = self.clocks.spread(attempt.accepted)
            first = torch.where(move, buffer.get(self.tableau.n_stages - 1), first)
            y = torch.where(move, result.y1, y)
            for event in following.before:
                if isinstance(event, Tensor):
                    y, first = (x.index_select(self.clocks.batch, event) for x in (y, first))
                else:
                    assert event.first is not None
                    first = torch.where(self.clocks.spread(event.which), event.first, first)
        return y, first

    def _unsaved(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        return self._evaluate(t, z)[0], None

    def _evaluate(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        self.stats.nfe_recomputed += 1
        return self.dynamics.forward(t, z)
