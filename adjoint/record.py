"""What a forward solve keeps for its backward pass, as on_accept hooks."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor

from ..solvers.stepper import Step


@dataclasses.dataclass(frozen=True)
class KeptStep:
    """One accepted step: its times, its state, and (keep="stages") what each stage saved.

    chained: its first stage is the last of the step before.
    """

    t0: float
    t1: float
    y0: Tensor | None
    saved: tuple[Any, ...] | None
    chained: bool

    @property
    def dt(self) -> float:
        """Signed length."""
        return self.t1 - self.t0


class Tape:
    """The accepted steps of a solve, in order.

    stages: keep what the field saved at every stage (else the state, and stages are evaluated anew).
    """

    def __init__(self, *, stages: bool):
        self.stages = stages
        self.steps: list[KeptStep] = []

    def __call__(self, step: Step) -> None:
        """The hook."""
        saved = tuple(step.saved) if self.stages else None
        y0 = None if self.stages else step.y0
        self.steps.append(KeptStep(step.t0, step.t1, y0, saved, step.chained))
