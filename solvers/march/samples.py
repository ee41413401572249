"""What per-sample stepping knows of its samples: settings, rows, one attempt, what a recorder sees."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from ..methods.tableau import Tableau
from ..status import Status
from ..step.clocks import Each
from ..step.controller import PID
from ..step.norms import Tolerance
from ..step.runge_kutta import StepResult

SampleNorm = Callable[[Tensor], Tensor]  # state → [B]


def beside(time: Tensor, which: Tensor, side: Tensor) -> Tensor:
    """The next float towards side · ∞ (±1, [b]) for the samples in `which`; time: as f wants it."""
    shape = time.shape
    toward = (side * math.inf).to(time).view(shape)
    return torch.where(which.view(shape), torch.nextafter(time, toward), time)


class SampleListener(Protocol):
    """Who else wants to see every attempt (a trace, a dense output)."""

    def attempt(self, step: SampleStep, rows: Rows) -> None:
        """An attempt; rows as they are after it."""


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


@dataclasses.dataclass(frozen=True)
class SampleSettings:
    """What decides the steps; norm gives one number a sample.

    stops: [M] times every sample must end a step on (step_at and jump_at); jumps: [M] bool, where f
    is discontinuous.  dt0: first |dt|, [B] or None for Hairer's.  dt: a fixed |dt|, or None.
    fresh_first: evaluate every attempt's first stage anew (a quadrature wants it saved with the rest).
    """

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

    @property
    def fixed(self) -> bool:
        """Whether steps have one length, given beforehand."""
        return self.dt is not None

    def at_jump(self, t: Tensor) -> Tensor:
        """[b]: which of the times are discontinuities of f."""
        return ((t[:, None] == self.stops) & self.jumps).any(1)


@dataclasses.dataclass
class Rows:
    """The loop's variables, one entry for each sample still in the batch; index: which sample it is."""

    index: Tensor
    t: Tensor
    end: Tensor
    direction: Tensor
    dt: Tensor
    e1: Tensor
    e2: Tensor
    after_rejection: Tensor
    non_finite: Tensor
    status: Tensor
    n_accepted: Tensor
    n_rejected: Tensor
    nfe: Tensor

    @classmethod
    def begin(cls, t0: Tensor, end: Tensor) -> Rows:
        """All samples at their start."""
        one = torch.ones_like(t0)
        index = torch.arange(len(t0), dtype=torch.int64, device=t0.device)
        direction = torch.where(end < t0, -one, one)
        # Each a tensor of its own: a compiled program is made anew where two of its arguments are one.
        ratios = (one, one.clone())
        rejected, bad = (torch.zeros_like(index, dtype=torch.bool) for _ in range(2))
        status = torch.full_like(index, int(Status.RUNNING), dtype=torch.int8)
        counts = [torch.zeros_like(index) for _ in range(3)]
        return cls(index, t0, end, direction, torch.zeros_like(t0), *ratios, rejected, bad, status, *counts)

    def _fields(self) -> list[str]:
        return [f.name for f in dataclasses.fields(self)]

    def select(self, keep: Tensor) -> Rows:
        """The rows at the positions in keep."""
        return Rows(*(getattr(self, name).index_select(0, keep) for name in self._fields()))

    def write_into(self, whole: Rows) -> None:
        """Puts these rows back where they stand in the whole batch."""
        for name in self._fields():
            setattr(whole, name, getattr(whole, name).index_copy(0, self.index, getattr(self, name)))

    @property
    def running(self) -> Tensor:
        """Which samples go on."""
        return self.status == int(Status.RUNNING)

    def mark(self, which: Tensor, status: Status | Tensor) -> None:
        """Gives the samples in `which` a status."""
        value = status if isinstance(status, Tensor) else int(status)
        self.status = torch.where(which, value, self.status).to(torch.int8)


@dataclasses.dataclass(frozen=True)
class Written:
    """m outputs inside a step: which output of each row (place [m, b]), whether it is one (valid [m, b]),
    and its weights b_i(θ), [n, m, b]."""

    place: Tensor
    valid: Tensor
    weights: Tensor


@dataclasses.dataclass
class SampleStep:
    """One attempt of all samples.

    index, t0, t1: [b]; y0, first: state and first stage; dt: signed, broadcasts against the state;
    times: of the stages; tried: which samples were under way; accepted, finite: [b] bool.
    outputs: what was written inside the step.  until: where the solution ends, if a terminal event
    lies in the step; else None for all samples.
    """

    index: Tensor
    t0: Tensor
    t1: Tensor
    y0: Tensor
    first: Tensor
    dt: Tensor
    times: list[Tensor]
    result: StepResult
    error_ratio: Tensor
    finite: Tensor
    accepted: Tensor
    tried: Tensor
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
