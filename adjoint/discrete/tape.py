"""What a forward solve keeps for its backward pass, as on_accept hooks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor

from ...solvers.march.stepper import Step, stage_times
from ...solvers.methods.tableau import Tableau
from .checkpointing import Take, Thinning, walk_back


@dataclasses.dataclass(frozen=True)
class KeptStep:
    """One accepted step: its times, its state, and (keep="stages") what each stage saved.

    chained: its first stage is the last of the step before.  times: of its stages; None where they are
    `stage_times(t0, t1)`: a 0-d tensor a stage would be a whole small state a step.
    k0: f(t0, y0), where a compiled walk takes the stages again.
    """

    t0: float
    t1: float
    y0: Tensor | None
    times: list[Tensor] | None
    saved: Sequence[Any] | None
    chained: bool
    k0: Tensor | None = None

    @property
    def dt(self) -> float:
        """Signed length."""
        return self.t1 - self.t0

    def stage_times(self, tableau: Tableau, like: Tensor) -> list[Tensor]:
        """Where its stages are evaluated anew, 0-d each, of like's dtype."""
        return stage_times(self.t0, self.t1, tableau, like) if self.times is None else self.times


# (state, steps to take from there) → the state after them
Again = Callable[[Tensor, Sequence[KeptStep]], Tensor]


class Tape:
    """The accepted steps of a solve, in order.

    stages: keep what the field saved at every stage (else the state, and stages are evaluated anew).
    first: keep f(t0, y0) beside the state.
    """

    def __init__(self, *, stages: bool, first: bool = False):
        self.stages, self.first = stages, first
        self.steps: list[KeptStep] = []

    def __call__(self, step: Step) -> None:
        """The hook."""
        saved = None
        if self.stages and getattr(step, "has_saved", True):
            saved = tuple(step.saved) if isinstance(step.saved, list) else step.saved
        y0 = step.y0 if saved is None else None
        k0 = getattr(step, "k0", None) if self.first else None
        times = None if step.plain else step.times
        self.steps.append(KeptStep(step.t0, step.t1, y0, times, saved, step.chained, k0))

    def backwards(self, again: Again) -> Iterator[tuple[int, KeptStep]]:
        """The steps from the last to the first."""
        for n in range(len(self.steps) - 1, -1, -1):
            yield n, self.steps[n]


class CheckpointTape:
    """The accepted steps, with at most `checkpoints` of their states kept, now or in the walk back.

    Steps are taken again from the nearest kept state with the sizes they had: the same numbers.
    """

    def __init__(self, checkpoints: int):
        self.checkpoints = checkpoints
        self.thinning = Thinning(max(checkpoints // 2, 1))
        self.steps: list[KeptStep] = []
        self.states: dict[int, Tensor] = {}

    def __call__(self, step: Step) -> None:
        """The hook."""
        n = len(self.steps)
        self.steps.append(
            KeptStep(step.t0, step.t1, None, None if step.plain else step.times, None, step.chained)
        )
        if self.thinning.offer(n):
            self.states[n] = step.y0
        for k in self.thinning.gone:
            self.states.pop(k, None)

    def backwards(self, again: Again) -> Iterator[tuple[int, KeptStep]]:
        """The steps from the last to the first, states taken again; the tape itself stays as it is."""
        states = dict(self.states)
        kept = sorted(states)
        for action in walk_back(kept, len(self.steps), self.checkpoints - len(kept)):
            if isinstance(action, Take):
                states[action.end] = again(states[action.start], self.steps[action.start : action.end])
            else:
                yield action.n, dataclasses.replace(self.steps[action.n], y0=states.pop(action.n))
