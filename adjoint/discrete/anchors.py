"""States kept along the way of a forward solve, from which a reverse solve starts again."""

from __future__ import annotations

import torch
from torch import Tensor

from ...solvers.march.samples import SampleRecorder, SampleStep
from ...solvers.march.stepper import Step
from ...solvers.step.clocks import Each
from ..dynamics.repeatable import LastEvaluation
from .checkpointing import Thinning


class Anchors:
    """An on_accept hook that keeps a few states along the way, evenly spread, whatever the number of
    steps: where backsolve's rebuilt state drifts too far, it starts again from each of them."""

    def __init__(self, most: int):
        self.thinning = Thinning(most)
        self.n_steps = 0
        self.states: dict[int, tuple[float, Tensor]] = {}

    def __call__(self, step: Step) -> None:
        """The hook."""
        if self.thinning.offer(self.n_steps):
            self.states[self.n_steps] = (step.t0, step.y0)
        for k in self.thinning.gone:
            self.states.pop(k, None)
        self.n_steps += 1

    def __len__(self) -> int:
        return len(self.states)


class SampleAnchors(SampleRecorder):
    """A few states along the way (`Anchors` for each sample); `most` may be 0."""

    def __init__(self, batch: int, clocks: Each, most: int):
        self.batch, self.clocks, self.most = batch, clocks, most
        self.thinning = Thinning(most)
        self.n_attempts = 0
        self.states: dict[int, tuple[Tensor, Tensor]] = {}
        self.last = LastEvaluation()

    def step(self, step: SampleStep) -> None:
        """One attempt: each sample's time and state where it accepted."""
        self.last.see(step)
        if self.most and self.thinning.offer(self.n_attempts):
            time = torch.where(step.accepted, step.t1, float("nan"))
            whole = torch.full((self.batch,), float("nan"), dtype=time.dtype, device=time.device)
            shape = list(step.y0.shape)
            shape[self.clocks.batch] = self.batch
            state = step.y0.new_full(shape, float("nan"))
            self.states[self.n_attempts] = (
                whole.index_copy(0, step.index, time),
                state.index_copy(self.clocks.batch, step.index, step.result.y1),
            )
        for k in self.thinning.gone:
            self.states.pop(k, None)
        self.n_attempts += 1
