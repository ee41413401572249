"""Stages that only the dense output needs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..methods.tableau import Tableau
from .runge_kutta import Field, StepResult


def dense_stages(
    field: Field, y: Tensor, times: Sequence[Tensor], tableau: Tableau, result: StepResult
) -> None:
    """Evaluates the further stages that only the dense output needs (dop853's three, say)."""
    first = tableau.n_stages
    for i in range(first, first + len(tableau.c_dense)):
        k, kept = field(times[i], result.stages.advance(y, i))
        result.stages.put(i, k)
        result.saved.append(kept)
