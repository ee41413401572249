"""Attempts taken again in the walk back, from a kept state and with the sizes they had."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...solvers.errors import solver_error
from ...solvers.march.output import as_time
from ...solvers.status import Status
from ...solvers.step.clocks import Each
from ...solvers.step.further import dense_stages
from ...solvers.step.implicit.choose import implicit_steps
from ...solvers.step.implicit.esdirk import ImplicitSteps
from ...solvers.step.implicit.newton import Measure
from ...solvers.step.runge_kutta import Field, StageBuffer, StepResult, rk_step
from ..dynamics.adapt import tell
from .tape import Attempt, Entry, First, Inside, Solved, State


class Again:
    """Takes the attempts of a solve again; evaluations are counted as recomputed."""

    def __init__(self, solved: Solved):
        self.solved, self.clocks = solved, solved.clocks

    def entry(self, attempt: Attempt, state: State | None, inside: Inside | None, *, end: bool) -> Attempt:
        """The attempt with what each stage saves, evaluated anew, with dt = 0 where not accepted.

        end: f(t1, y1) is needed.
        """
        assert state is not None
        tell(self.solved.dynamics, attempt.who.index)
        y = state[0]
        first = None if attempt.who.index is None else state[1]  # what it saves may be wanted as well
        tableau, result = attempt.tableau, self._taken(self.evaluate, attempt, y, first, end=end)
        if inside is not None and any(k is not None for k in inside[0][tableau.n_stages :]):
            dense_stages(self.evaluate, y, attempt.stage_times(y), tableau, result)
        solved = result.solved
        points, found = (None, None) if solved is None else (solved.points, solved.found)
        return dataclasses.replace(attempt, saved=result.saved, points=points, found=found)

    def steps(self, state: State, entries: Sequence[Entry]) -> State:
        """Takes attempts again from a kept state, and what lies between them."""
        (y, first), clocks = state, self.clocks
        one_clock = first is None
        for entry in entries:
            if isinstance(entry, Tensor):  # samples have left
                y, first = clocks.take(y, entry), clocks.take(first, entry)
            elif isinstance(entry, First):
                first = None if one_clock else clocks.choose(entry.who.which, entry.value, first)
            else:
                tell(self.solved.dynamics, entry.who.index)
                result = self._taken(self._unsaved, entry, y, first)
                first = clocks.choose(entry.who.which, result.stages.get(entry.tableau.n_stages - 1), first)
                y = clocks.choose(entry.who.which, result.y1, y)
        return y, None if one_clock else first

    def at_start(self, t: float) -> Any:
        """The values that the evaluation at the start saves."""
        z0 = self.solved.z0.detach()
        return self.evaluate(as_time(t, z0), z0)[1]

    def evaluate(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """f, and what it saves."""
        self.solved.stats.nfe_recomputed += 1
        return self.solved.dynamics.forward(t, z)

    def _unsaved(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        return self.evaluate(t, z)[0], None

    def _taken(
        self, field: Field, attempt: Attempt, y: Tensor, first: Any, *, end: bool = True
    ) -> StepResult:
        """An attempt from y with the size it had. first: f there, or None to evaluate it."""
        times = attempt.stage_times(y)
        known = field(times[0], y) if first is None else (first, None)
        stages = StageBuffer(attempt.numeric(y), y, attempt.dt)
        if not attempt.tableau.implicit:
            return rk_step(field, y, known, times, attempt.tableau, stages, evaluate_end=end)
        result = self._implicit(attempt)(field, y, known, times, stages)
        assert result.solved is not None
        failed = result.solved.failed
        if attempt.who.which is not None:
            failed = failed & attempt.who.which
        if bool(failed.any()):  # host read
            said = "The forward solve had taken the step, which is taken again in the backward pass."
            t, dt = (
                float(times[0].reshape(-1)[0]),
                float(stages.dt.abs().max() if isinstance(stages.dt, Tensor) else abs(stages.dt)),
            )
            raise solver_error(t, dt, Status.NEWTON, None, said)
        return result

    def _implicit(self, attempt: Attempt) -> ImplicitSteps:
        """What takes an implicit step, with a Jacobian of its own: no step depends on another."""
        assert self.solved.implicit is not None
        jacobian, measure = self.solved.implicit
        clocks, index = self.clocks, attempt.who.index
        if isinstance(clocks, Each) and index is not None:
            batch = clocks.batch_size(self.solved.z0)
            if len(index) < batch:
                measure = Measure(clocks, measure.norm, measure.tolerance.select(index, clocks, batch))
        return implicit_steps(attempt.tableau, jacobian, measure, stubborn=True)
