"""The forward solve with a step size for each sample."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from .device.queue import Queue, QueuedClocks
from .march.clocked import ClockedMarch, Watching
from .march.clocked_output import SampleOutput
from .march.samples import SampleSettings
from .stats import Stats
from .step.attempt import Clock
from .step.clocks import Each
from .step.runge_kutta import Field

NOBODY = Watching()


@dataclasses.dataclass
class SampleRun:
    """values, derivatives: [n, *state], the outputs and after them the events' rows; NaN where not
    computed.  times: [n outputs, B].  rows: how each sample ended.  slope0: f at each sample's start.
    """

    values: Tensor
    derivatives: Tensor | None
    times: Tensor
    rows: Clock
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
    watching: Watching = NOBODY,
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
    march: ClockedMarch
    if differentiable or not only_the_end(settings, output, watching):
        march = ClockedMarch(field, z0, settings, output, watching, differentiable=differentiable)
    else:
        march = QueuedClocks(field, z0, settings, output, queue or Queue())
    rows = march.run(stats)
    output.trim()
    slopes = None if output.derivatives is None else output.result(output.derivatives)
    values = output.result(output.values)
    events = watching.events
    if events is not None and events.rows:
        values = torch.cat((values, torch.stack(events.whole_rows(clocks.batch_size(z0)))))
    return SampleRun(values, slopes, output.times, rows, march.slope0)


def only_the_end(settings: SampleSettings, output: SampleOutput, watching: Watching) -> bool:
    """Whether nothing is wanted that the host must see to at each attempt."""
    inside = output.every_step or output.derivatives is not None or output.rows.shape[1] > 2
    stops = len(settings.stops) or settings.fresh_first or settings.dt is not None
    return not (inside or stops or watching != NOBODY)
