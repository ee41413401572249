"""The forward solve with a step size for each sample."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from .axes import Axes
from .batched import SampleSolve
from .batched_output import SampleOutput
from .loop import Stats
from .samples import Rows, SampleRecorder, SampleSettings
from .step import Field


@dataclasses.dataclass
class SampleRun:
    """values, derivatives: [T, *state], NaN where not computed.  rows: how each sample ended."""

    values: Tensor
    derivatives: Tensor | None
    rows: Rows


def sample_solve(
    field: Field,
    z0: Tensor,
    times: Tensor,
    axes: Axes,
    settings: SampleSettings,
    stats: Stats,
    *,
    differentiable: bool = False,
    derivatives: bool = False,
    recorder: SampleRecorder | None = None,
) -> SampleRun:
    """Solves each sample over its own times [B, T] (float64, each row monotone or all equal).

    Raises for no sample: statuses are in the rows, and in stats each number is one a sample.
    """
    output = SampleOutput(
        times, z0, axes, derivatives=derivatives, differentiable=differentiable and torch.is_grad_enabled()
    )
    solve = SampleSolve(
        field,
        z0,
        times[:, 0],
        times[:, -1],
        axes,
        settings,
        output,
        stats,
        differentiable=differentiable,
        recorder=recorder,
    )
    rows = solve.run()
    stats.nfe, stats.n_accepted, stats.n_rejected = rows.nfe, rows.n_accepted, rows.n_rejected
    stats.dt_last = rows.dt
    slopes = None if output.derivatives is None else output.result(output.derivatives)
    return SampleRun(output.result(output.values), slopes, rows)
