"""What a per-sample solve keeps for its backward pass."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from torch import Tensor

from ..solvers.samples import SampleStep, Written


@dataclasses.dataclass(frozen=True)
class KeptAttempt:
    """One attempt of all samples then in the batch.

    index: which samples; accepted: [b]; dt: 0 where not accepted.  saved: what each stage saved, or
    None, and then y0, first and times say how to evaluate the stages again.
    """

    index: Tensor
    accepted: Tensor
    dt: Tensor
    saved: list[Any] | None
    y0: Tensor | None
    first: Tensor | None
    times: list[Tensor]
    outputs: list[Written]


@dataclasses.dataclass(frozen=True)
class KeptFirst:
    """First stages evaluated on their own (at the start, or after a jump), for the samples in `which`."""

    index: Tensor
    which: Tensor
    saved: Any


class SampleTape:
    """A SampleRecorder: attempts in which some sample accepted, in order.

    stages: keep what the field saved at every stage (else states, and stages are evaluated anew).
    """

    def __init__(self, batch: int, device: torch.device, *, stages: bool):
        self.stages = stages
        self.index = torch.arange(batch, device=device)
        self.entries: list[KeptAttempt | KeptFirst] = []

    def start(self, saved: Any) -> None:
        """The first evaluation."""
        self.restart(saved, torch.ones_like(self.index, dtype=torch.bool))

    def restart(self, saved: Any, which: Tensor) -> None:
        """First stages evaluated anew."""
        self.entries.append(KeptFirst(self.index, which, saved))

    def step(self, step: SampleStep) -> None:
        """One attempt."""
        mask = step.axes.spread(step.accepted)
        dt = torch.where(mask, step.dt, 0.0)
        saved = list(step.result.saved) if self.stages else None
        y0 = first = None
        times = step.times
        if not self.stages:
            y0, first = step.y0, step.first
            calm = step.times[0]
            times = [torch.where(step.accepted.view(calm.shape), t, calm) for t in step.times]
        self.entries.append(KeptAttempt(step.index, step.accepted, dt, saved, y0, first, times, step.outputs))

    def with_outputs(self, outputs: list[list[Written]]) -> SampleTape:
        """The same attempts with other outputs inside them, one list an attempt."""
        twin = copy.copy(self)
        rest = iter(outputs)
        twin.entries = [
            dataclasses.replace(entry, outputs=next(rest)) if isinstance(entry, KeptAttempt) else entry
            for entry in self.entries
        ]
        return twin

    def compact(self, keep: Tensor) -> None:
        """Samples have left."""
        self.index = self.index.index_select(0, keep)
