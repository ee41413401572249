"""A record of every attempted step, for study."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from .attempts import ENTRIES, OF_SAMPLE, SAMPLES, Attempts, Look, Looks, TraceRow, kept_entries, looked_at
from .march.output import Step
from .march.samples import SampleStep
from .march.stiffness import stiffness
from .methods.stability import real_stability_limit
from .stats import Stats
from .step.clocks import Each, sent
from .step.field import transformed


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
    request: what is solved, as the engine has it; None: rows alone are kept.
    blocks: of the state, along its first axis.
    """

    def __init__(self, stats: Stats, request: Any = None, blocks: int = 1):
        self.stats, self.request, self.blocks = stats, request, blocks
        self._attempts: list[tuple[str, list[Any], Tensor]] = []  # what the host knows, and what is measured
        self._looks = Looks()
        self._kept: tuple[list[int] | None, Tensor | None] | None = None  # positions, and on the device

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
        if self.request is not None and not transformed():  # what a transform wraps is dead after it
            self._looks.add(looked_at(step, n, self._entries(step)))

    def _entries(self, step: Step | SampleStep) -> Tensor | None:
        """Which entries of a clock's state are kept; None: all."""
        if self._kept is None:
            clocks, y0 = step.clocks, step.y0
            many = isinstance(clocks, Each)
            n = y0.numel() // max(1, y0.shape[clocks.batch]) if isinstance(clocks, Each) else y0.numel()
            kept, index = kept_entries(n, self.blocks, OF_SAMPLE if many else ENTRIES), None
            if kept is not None:
                index = sent(kept, y0.device, torch.int64)
            self._kept = kept, index
        return self._kept[1]

    def rows(self) -> Attempts:
        """All attempts in order."""
        if not self._attempts:
            return Attempts(request=self.request)
        found, seen = [], list[tuple[Look, int] | None]()
        flat = iter(
            torch.cat([x.reshape(-1) for _, _, x in self._attempts]).tolist()
        )  # host read, one for all
        for i, (method, known, measured) in enumerate(self._attempts):
            width, look = measured.shape[-1], self._looks.get(i)
            for at in range(measured.numel() // width):
                numbers = (*known, *itertools.islice(flat, width))
                tried, b, t, dt, ratio, accepted, dt_next, newton, nfe, stiff, y_norm, *norms = numbers
                if tried:
                    told = (t, dt, ratio, bool(accepted), dt_next / abs(dt), int(nfe), y_norm, tuple(norms))
                    found.append(TraceRow(*told, stiff, method, None if b is None else int(b), bool(newton)))
                    seen.append(None if look is None or at >= SAMPLES else (look, at))
        return Attempts(found, seen, self.request, None if self._kept is None else self._kept[0])
