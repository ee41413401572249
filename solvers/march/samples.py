"""What stepping with many clocks knows of its samples: settings, one attempt, who else sees it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..methods.tableau import Tableau
from ..step.attempt import Attempt
from ..step.clocks import Each
from ..step.controller import PID
from ..step.norms import Tolerance

SampleNorm = Callable[[Tensor], Tensor]  # state → [b]


@dataclasses.dataclass(frozen=True, eq=False)
class Together:
    """Samples that step in groups.

    ids: [B] int64, each sample's group, below n.  norm: of clocks in groups, the norm pooled over each.
    """

    ids: Tensor
    n: int
    norm: Callable[[Each], SampleNorm]


def beside(time: Tensor, which: Tensor, side: Tensor) -> Tensor:
    """The next float towards side · ∞ (±1, [b]) for the samples in `which`; time: as f wants it."""
    shape = time.shape
    toward = (side * math.inf).to(time).view(shape)
    return torch.where(which.view(shape), torch.nextafter(time, toward), time)


@dataclasses.dataclass(frozen=True)
class SampleSettings:
    """What decides the steps; norm gives one number a sample.

    stops: [M] times every sample must end a step on (step_at and jump_at); jumps: [M] bool, where f
    is discontinuous.  dt0: first |dt|, [B] or None for Hairer's.  dt: a fixed |dt|, or None.
    fresh_first: evaluate every attempt's first stage anew (a quadrature wants it saved with the rest).
    together: which samples share their steps; None: each has its own.
    """

    clocks: Each
    tableau: Tableau
    tolerance: Tolerance
    norm: SampleNorm
    controller: PID
    dt0: Tensor | None
    dt: float | None
    max_steps: int
    stops: Tensor
    jumps: Tensor
    compact: bool
    fresh_first: bool = False
    together: Together | None = None

    @property
    def fixed(self) -> bool:
        """Whether steps have one length, given beforehand."""
        return self.dt is not None

    def at_jump(self, t: Tensor) -> Tensor:
        """[b]: which of the times are discontinuities of f."""
        return ((t[:, None] == self.stops) & self.jumps).any(1)


@dataclasses.dataclass(frozen=True)
class Written:
    """m outputs inside a step: which output of each row (place [m, b]), whether it is one (valid [m, b]),
    and its weights b_i(θ), [n, m, b]."""

    place: Tensor
    valid: Tensor
    weights: Tensor


@dataclasses.dataclass(frozen=True)
class SampleStep(Attempt):
    """One attempt of all samples; its numbers are [b].

    index: which samples.  clocks: of the state.  outputs: what was written inside the step.
    until: where the solution ends, if a terminal event lies in the step; else None for all samples.
    """

    index: Tensor
    clocks: Each
    outputs: list[Written] = dataclasses.field(default_factory=list)
    until: Tensor | None = None

    @property
    def n_stages(self) -> int:
        """Stages of the step itself, f(t1, y1) included."""
        return len(self.result.stages.numeric.b)

    def combine(self, y: Tensor | None, weights: Tensor) -> Tensor:
        """y + dt Σ w_i k_i with each sample's own weights, [n, b] or [n, m, b] (without y: Σ w_i k_i).

        Only outputs before a step's end need the dense output's own stages: n may leave them out.
        """
        total = None
        for i, row in enumerate(weights):
            term = self.result.stages.get(i) * self.clocks.spread(row)
            total = term if total is None else total + term
        assert total is not None
        return total if y is None else y + self.dt * total


class SampleListener:
    """Who else wants to see every attempt (a trace, a dense output); by itself it does nothing."""

    def attempt(self, step: SampleStep, dt_next: Tensor, nfe: Tensor) -> None:
        """An attempt, the |dt| proposed after it, and the evaluations of each sample so far."""


class KeptSteps(SampleListener):
    """Keeps every attempt."""

    def __init__(self) -> None:
        self.steps: list[SampleStep] = []

    def attempt(self, step: SampleStep, dt_next: Tensor, nfe: Tensor) -> None:
        """One attempt."""
        self.steps.append(step)


class SampleRecorder:
    """What an adjoint may keep of a solve; by itself nothing."""

    def start(self, saved: Any) -> None:
        """The first evaluation."""

    def step(self, step: SampleStep) -> None:
        """An attempt, after its outputs were written."""

    def restart(self, saved: Any, which: Tensor, first: Tensor) -> None:
        """First stages (then `first`) evaluated anew for the samples in `which`."""

    def compact(self, keep: Tensor) -> None:
        """Only the rows at these positions stay."""
