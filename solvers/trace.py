"""A record of every attempted step, for study."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import torch
from torch import Tensor

from .march.output import Step
from .march.samples import SampleListener, SampleStep
from .march.stiffness import sample_stiffness, stiffness
from .methods.tableau import Tableau
from .stats import Stats


@dataclasses.dataclass(frozen=True)
class TraceRow:
    """One attempt.

    t: its start; dt: signed length; error_ratio: ≤ 1 is accepted (NaN with fixed steps); factor: the
    length the controller proposed next over |dt|; nfe: evaluations of func so far; y_norm: RMS of the
    state at its start; stage_norms: RMS of each k_i; stiffness: dt·|λ|, NaN where the method cannot tell;
    sample: which sample, in per-sample stepping.
    """

    t: float
    dt: float
    error_ratio: float
    accepted: bool
    factor: float
    nfe: int
    y_norm: float
    stage_norms: tuple[float, ...]
    stiffness: float
    sample: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """The row's fields by name."""
        return dataclasses.asdict(self)


class Trace:
    """Rows of a shared-step solve; what was measured is read only when asked for."""

    def __init__(self, stats: Stats):
        self.stats = stats
        self._attempts: list[tuple[float, float, float, bool, float, int]] = []
        self._measured: list[Tensor] = []

    def attempt(self, step: Step, accepted: bool, dt_next: float) -> None:
        """One attempt, with the |dt| proposed after it."""
        self._measured.append(self._measure(step))
        factor, nfe = dt_next / abs(step.dt), int(self.stats.nfe)
        self._attempts.append((step.t0, step.dt, step.error_ratio, accepted, factor, nfe))

    @staticmethod
    @torch.no_grad()
    def _measure(step: Step) -> Tensor:
        stages = step.result.stages
        ks = [stages.get(i) for i in range(min(len(step.result.saved), step.tableau.n_stages))]
        norms = [torch.sqrt(x.double().square().mean()) for x in (step.y0, *ks)]
        return torch.stack([*norms, stiffness(step).to(norms[0])])

    def rows(self) -> list[TraceRow]:
        """All attempts in order."""
        if not self._attempts:
            return []
        found = []
        flat = iter(torch.cat(self._measured).tolist())  # host read, one for all
        for attempt, measured in zip(self._attempts, self._measured, strict=True):
            y_norm, *norms, stiff = itertools.islice(flat, len(measured))
            found.append(TraceRow(*attempt, y_norm, tuple(norms), stiff))
        return found


class SampleTrace(SampleListener):
    """Rows of a per-sample solve: one for each attempt of each sample that was still under way."""

    def __init__(self, tableau: Tableau) -> None:
        self.tableau = tableau
        self._attempts: list[Tensor] = []

    @torch.no_grad()
    def attempt(self, step: SampleStep, dt_next: Tensor, nfe: Tensor) -> None:
        """One attempt; read only when asked for."""
        length = step.t1 - step.t0
        ks = [step.result.stages.get(i) for i in range(step.n_stages)]
        norms = [step.clocks.rms(x.double()) for x in (step.y0, *ks)]
        steps = [step.tried, step.index, step.t0, length, step.error_ratio, step.accepted, dt_next, nfe]
        columns = [*steps, sample_stiffness(step, self.tableau), *norms]
        self._attempts.append(torch.stack([c.double() for c in columns], 1))

    def rows(self) -> list[TraceRow]:
        """All attempts in order."""
        if not self._attempts:
            return []
        found = []
        for row in torch.cat(self._attempts).tolist():  # host read, one for all
            tried, b, t, dt, ratio, accepted, dt_next, nfe, stiff, y_norm, *norms = row
            if tried:
                factor = dt_next / abs(dt)
                found.append(
                    TraceRow(
                        t, dt, ratio, bool(accepted), factor, int(nfe), y_norm, tuple(norms), stiff, int(b)
                    )
                )
        return found
