"""Steps as they go into a file or a copy: numbers, without a graph and without what the field saved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..methods.tableau import Numeric
from .runge_kutta import StageBuffer, StageList, Stages, StepResult


class KeptBuffer(StageBuffer):
    """A `StageBuffer` that can be written."""

    def __reduce__(self) -> tuple[Any, ...]:
        return kept_stages, (True, self.numeric, self.dt, [row.clone() for row in self.rows[: self.count]])


class KeptList(StageList):
    """A `StageList` that can be written."""

    def __reduce__(self) -> tuple[Any, ...]:
        return kept_stages, (False, self.numeric, self.dt, self.rows)


def kept_stages(buffer: bool, numeric: Numeric, dt: float | Tensor, rows: Sequence[Tensor]) -> Stages:
    """The stages with these rows, in one tensor or apart, as they were."""
    found = KeptBuffer(numeric, rows[0], dt) if buffer else KeptList(numeric, dt)
    for i, row in enumerate(rows):
        found.put(i, row)
    return found


def kept(result: StepResult) -> StepResult:
    """The result of a step whose dense output is all that is wanted of it."""
    stages, n = result.stages, len(result.saved)
    dt = stages.dt.detach() if isinstance(stages.dt, Tensor) else stages.dt
    rows = [stages.get(i).detach() for i in range(n)]
    own = kept_stages(isinstance(stages, StageBuffer), stages.numeric, dt, rows)
    return StepResult(result.y1.detach(), own, [None] * n)
