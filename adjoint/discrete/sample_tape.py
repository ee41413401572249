"""What a per-sample solve keeps for its backward pass."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ...solvers.march.samples import SampleRecorder, SampleStep, Written
from ..dynamics.repeatable import LastEvaluation
from .checkpointing import Take, Thinning, walk_back


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
    """First stages evaluated on their own (at the start, or after a jump), for the samples in `which`.

    first: their values, where steps may be taken again (checkpoints).
    """

    index: Tensor
    which: Tensor
    saved: Any
    first: Tensor | None = None


# (y, first stage), attempts to take from there, each with what happened before it → the pair after them
State = tuple[Tensor, Tensor]
SamplesAgain = Callable[[State, Sequence["Unit"]], State]


@dataclasses.dataclass
class Unit:
    """One attempt and what happened between the one before and it: first stages evaluated on their own
    (with their values), and positions of the samples that stayed."""

    attempt: KeptAttempt
    before: list[KeptFirst | Tensor]


class SampleTape(SampleRecorder):
    """A SampleRecorder: attempts in which some sample accepted, in order.

    stages: keep what the field saved at every stage (else states, and stages are evaluated anew).
    """

    def __init__(self, batch: int, device: torch.device, *, stages: bool):
        self.stages = stages
        self.index = torch.arange(batch, dtype=torch.int64, device=device)
        self.entries: list[KeptAttempt | KeptFirst] = []
        self.last = LastEvaluation()

    def start(self, saved: Any) -> None:
        """The first evaluation."""
        self.entries.append(KeptFirst(self.index, torch.ones_like(self.index, dtype=torch.bool), saved))

    def restart(self, saved: Any, which: Tensor, first: Tensor) -> None:
        """First stages evaluated anew."""
        self.entries.append(KeptFirst(self.index, which, saved))

    def step(self, step: SampleStep) -> None:
        """One attempt."""
        mask = step.clocks.spread(step.accepted)
        dt = torch.where(mask, step.dt, 0.0)
        saved = list(step.result.saved) if self.stages else None
        y0 = first = None
        times = step.times
        if not self.stages:
            self.last.see(step)
            y0, first = step.y0, step.first
            calm = step.times[0]
            times = [torch.where(step.accepted.view(calm.shape), t, calm) for t in step.times]
        self.entries.append(KeptAttempt(step.index, step.accepted, dt, saved, y0, first, times, step.outputs))

    def backwards(self, again: SamplesAgain) -> Iterator[KeptAttempt | KeptFirst]:
        """The entries from the last to the first."""
        yield from reversed(self.entries)

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


class SampleCheckpointTape(SampleRecorder):
    """A SampleRecorder with at most `checkpoints` pairs (state, first stage), now or in the walk back."""

    def __init__(self, batch: int, device: torch.device, checkpoints: int):
        self.checkpoints = checkpoints
        self.index = torch.arange(batch, dtype=torch.int64, device=device)
        self.thinning = Thinning(max(checkpoints // 2, 1))
        self.units: list[Unit] = []
        self.states: dict[int, State] = {}
        self._before: list[KeptFirst | Tensor] = []
        self.last = LastEvaluation()

    def start(self, saved: Any) -> None:
        """The first evaluation."""
        self._before.append(KeptFirst(self.index, torch.ones_like(self.index, dtype=torch.bool), saved))

    def restart(self, saved: Any, which: Tensor, first: Tensor) -> None:
        """First stages evaluated anew."""
        self._before.append(KeptFirst(self.index, which, saved, first))

    def compact(self, keep: Tensor) -> None:
        """Samples have left."""
        self.index = self.index.index_select(0, keep)
        self._before.append(keep)

    def step(self, step: SampleStep) -> None:
        """One attempt."""
        self.last.see(step)
        dt = torch.where(step.clocks.spread(step.accepted), step.dt, 0.0)
        calm = step.times[0]
        times = [torch.where(step.accepted.view(calm.shape), t, calm) for t in step.times]
        attempt = KeptAttempt(step.index, step.accepted, dt, None, None, None, times, step.outputs)
        n = len(self.units)
        self.units.append(Unit(attempt, self._before))
        self._before = []
        if self.thinning.offer(n):
            self.states[n] = (step.y0, step.first)
        for k in self.thinning.gone:
            self.states.pop(k, None)

    def backwards(self, again: SamplesAgain) -> Iterator[KeptAttempt | KeptFirst]:
        """The entries from the last to the first, states taken again; the tape itself stays as it is."""
        if not self.units:  # no sample began
            return
        states = dict(self.states)
        kept = sorted(states)
        for action in walk_back(kept, len(self.units), self.checkpoints - len(kept)):
            if isinstance(action, Take):
                states[action.end] = again(states[action.start], self.units[action.start : action.end + 1])
                continue
            unit = self.units[action.n]
            y0, first = states.pop(action.n)
            yield dataclasses.replace(unit.attempt, y0=y0, first=first)
            for entry in reversed(unit.before):
                if isinstance(entry, KeptFirst):
                    yield entry

    def with_outputs(self, outputs: list[list[Written]]) -> SampleCheckpointTape:
        """The same attempts with other outputs inside them, one list an attempt."""
        twin = copy.copy(self)
        twin.units = [
            Unit(dataclasses.replace(unit.attempt, outputs=own), unit.before)
            for unit, own in zip(self.units, outputs, strict=True)
        ]
        return twin
