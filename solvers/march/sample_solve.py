"""The forward solve with a step size for each sample."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from ..device.queue import Queue
from ..step.clocks import Each
from ..step.runge_kutta import Field
from .clocked import SampleSolve
from .clocked_events import SampleEvents
from .clocked_output import SampleOutput
from .host import Stats
from .samples import Rows, SampleListener, SampleRecorder, SampleSettings


@dataclasses.dataclass
class SampleRun:
    """values, derivatives: [n, *state], the outputs and after them the events' rows; NaN where not
    computed.  times: [n outputs, B].  rows: how each sample ended.  slope0: f at each sample's start.
    """

    values: Tensor
    derivatives: Tensor | None
    times: Tensor
    rows: Rows
    slope0: Tensor


def sample_solve(
    field: Field,
    z0: Tensor,
    times: Tensor,
    clocks: Each,
    settings: SampleSettings,
    stats: Stats,
    *,
    differentiable: bool = False,
    derivatives: bool = False,
    every_step: bool = False,
    recorder: SampleRecorder | None = None,
    events: SampleEvents | None = None,
    listeners: Sequence[SampleListener] = (),
    keep: bool = False,
    queue: Queue | None = None,
) -> SampleRun:
    """Solves each sample over its own times [B, T] (float64, each row monotone or all equal).

    Raises for no sample: statuses are in the rows, and in stats each number is one a sample.
    """
    output = SampleOutput(
        times,
        z0,
        clocks,
        derivatives=derivatives,
        differentiable=differentiable and torch.is_grad_enabled(),
        every_step=every_step,
    )
    solve = SampleSolve(
        field,
        z0,
        times[:, 0],
        times[:, -1],
        clocks,
        settings,
        output,
        stats,
        differentiable=differentiable,
        recorder=recorder,
        events=events,
        listeners=listeners,
        keep=keep,
        queue=queue,
    )
    rows = solve.run()
    stats.nfe = stats.nfe + rows.nfe
    stats.n_accepted, stats.n_rejected = rows.n_accepted, rows.n_rejected
    stats.dt_last = rows.dt
    output.trim()
    slopes = None if output.derivatives is None else output.result(output.derivatives)
    values = output.result(output.values)
    if events is not None and events.rows:
        values = torch.cat((values, torch.stack(events.whole_rows(clocks.batch_size(z0)))))
    return SampleRun(values, slopes, output.times, rows, solve.slope0)
