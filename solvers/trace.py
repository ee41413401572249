"""A record of every attempted step, for study."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import torch
from torch import Tensor

from .march.output import Step
from .march.samples import SampleStep
from .march.stiffness import stiffness
from .methods.stability import real_stability_limit
from .stats import Stats


@dataclasses.dataclass(frozen=True)
class TraceRow:
    """One attempt.

    t: its start; dt: signed length; error_ratio: ≤ 1 is accepted (NaN with fixed steps); factor: the
    length the controller proposed next over |dt|; nfe: evaluations of func so far; y_norm: RMS of the
    state at its start; stage_norms: RMS of each k_i; stiffness: dt·|λ| (a bound of it, of an implicit step),
    NaN where the method cannot tell; method: that took the step; sample: which sample, in per-sample
    stepping; newton: rejected, since the equations of an implicit step were not solved.
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
    method: str
    sample: int | None = None
    newton: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The row's fields by name."""
        return dataclasses.asdict(self)


def stiffness_sentence(step: Step, changes: bool = False) -> str:
    """What the estimate says about a solve that ran out of steps; "" where it says nothing, as it does where
    the last step was implicit: no limit of stability shortened that one.

    changes: whether the solve changes to implicit steps by itself.
    """
    if step.tableau.implicit:
        return ""
    if step.result.paired is not None:
        return (
            "Its steps are those of a pair, which is stable with short ones alone where the flow contracts "
            "(docs/reversible.md): give Reversible a coupling farther from 1, or take "
            "gradient=adamode.Discrete(checkpoints=…)."
        )
    value = float(stiffness(step))  # host read
    if not math.isfinite(value):
        return ""
    limit = real_stability_limit(step.tableau)
    verdict = "no sign of stiffness."
    if value > 0.5 * limit:
        verdict = (
            "the problem is stiff there; stability, not accuracy, limits an explicit method's step. "
            "method='radau5' is implicit, for such problems"
        )
        verdict += (
            ", from the first step on." if changes else ", and method='auto' changes to it where they are."
        )
    return (
        f"Measured in the last step: dt·|λ| ≈ {value:.2g}, where {step.tableau.name} is stable up to "
        f"{limit:.2g}: {verdict}"
    )


class Trace:
    """Rows of a solve, one for each attempt of each clock that was under way; what was measured is read only
    when asked for.

    stats: counts the evaluations of a solve with one clock.
    """

    def __init__(self, stats: Stats):
        self.stats = stats
        self._attempts: list[tuple[str, list[Any], Tensor]] = []  # what the host knows, and what is measured

    @torch.no_grad()
    def attempt(self, step: Step | SampleStep, accepted: Any, dt_next: Any, nfe: Any = None) -> None:
        """One attempt, the |dt| proposed after it, and (a clock a sample) the evaluations so far."""
        n = min(len(step.result.saved), step.tableau.n_stages)
        states = (step.y0, *(step.result.stages.get(i) for i in range(n)))
        measured = [stiffness(step), *(step.clocks.rms(x.double()) for x in states)]
        told = [step.t0, step.length, step.error_ratio, accepted, dt_next, step.unsolved]
        if isinstance(step, Step):
            known = [True, None, *told, self.stats.nfe]
        else:
            known, measured = [], [step.tried, step.index, *told, nfe, *measured]
        numbers = torch.stack([x.double() for x in measured], -1)
        self._attempts.append((step.tableau.name, known, numbers))

    def rows(self) -> list[TraceRow]:
        """All attempts in order."""
        if not self._attempts:
            return []
        found = []
        flat = iter(
            torch.cat([x.reshape(-1) for _, _, x in self._attempts]).tolist()
        )  # host read, one for all
        for method, known, measured in self._attempts:
            width = measured.shape[-1]
            for _ in range(measured.numel() // width):
                numbers = (*known, *itertools.islice(flat, width))
                tried, b, t, dt, ratio, accepted, dt_next, newton, nfe, stiff, y_norm, *norms = numbers
                if tried:
                    told = (t, dt, ratio, bool(accepted), dt_next / abs(dt), int(nfe), y_norm, tuple(norms))
                    found.append(TraceRow(*told, stiff, method, None if b is None else int(b), bool(newton)))
        return found
