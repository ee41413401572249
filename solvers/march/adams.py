"""Steps of Adams methods along a fixed grid, the first ones by `rk4`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import AdamodeWarning
from ..methods.adams import FEWEST, MEAN_SLOPE, Adams, corrector_weights, predictor_weights
from ..methods.tableau import Tableau
from ..step.clocks import Tolerance, sent, times_between
from ..step.runge_kutta import Evaluation, Field, Quadrature, StageList, StepResult, owned, rk_step
from .output import Step, as_times, restart_time


class Past(NamedTuple):
    """An evaluation at a point of the grid."""

    t: float
    evaluation: Evaluation


class AdamsStepper:
    """An Adams method on one state with one clock, out of place: autograd follows it under its grad mode.

    field: counts and checks itself.
    start: the one-step method of the steps that have too little past.
    tolerance: of the corrector, for dt times the mean slope.
    direction: of time.
    """

    def __init__(
        self, field: Field, adams: Adams, start: Tableau, y0: Tensor, tolerance: Tolerance, direction: float
    ):
        self.field, self.adams, self.start, self.y = owned(field), adams, start, y0
        self.tolerance, self.direction = tolerance, direction
        self.mean_slope = MEAN_SLOPE.with_interpolant("cubic" if start.dense_needs_end else "linear")
        self.first: tuple[Tensor, Evaluation] | None = None
        self.past: list[Past] = []
        self.warned = self.beside_jump = False

    def restart(self, t: float, *, after_jump: bool = False) -> None:
        """Evaluates f(t, y) (just after t where f jumps there)."""
        time = restart_time(t, self.y, self.direction if after_jump else 0.0)
        self.first, self.beside_jump = (time, self.field(time, self.y)), after_jump

    def attempt(self, t0: float, t1: float, *, before_jump: bool = False, evaluate_end: bool = True) -> Step:
        """The step from t0 to t1; f(t1, y1) is left to who needs it, the next step first."""
        if self.first is None:
            self.restart(t0)
        assert self.first is not None
        past = [Past(t0, self.first[1]), *self.past][: self.adams.max_order - 1]
        weights: list[float] = []
        if len(past) >= FEWEST:
            nodes, even = self._nodes(past, t0, t1)
            weights = predictor_weights(nodes, even)
        tableau = self.mean_slope if len(weights) >= FEWEST else self.start
        times = as_times(times_between(t0, t1, tableau.numeric(self.y.dtype, self.y.device).c), self.y)
        if before_jump:
            ends, back = times_between(t0, t1, tableau.numeric(self.y.dtype, self.y.device).c), -math.inf
            times = [
                torch.nextafter(time, torch.full_like(time, back * self.direction)) if end == t1 else time
                for time, end in zip(times, ends, strict=True)
            ]
        times[0] = self.first[0]
        if tableau is self.start:
            stages = StageList(tableau.numeric(self.y.dtype, self.y.device), t1 - t0)
            first = self.first[1]
            result = rk_step(self.field, self.y, first, times, tableau, stages, evaluate_end=False)
        else:
            result, past = self._multistep(past, weights, times[-1], (t0, t1))
        self.past = past
        plain = not (before_jump or self.beside_jump)
        return Step(t0, t1, self.y, result, tableau, self.field, False, times, plain=plain)

    def accept(self, step: Step) -> None:
        """Moves on to the step's end."""
        self.y, self.first, self.beside_jump = step.y1, None, False
        if len(step.saved) >= step.tableau.n_stages:
            self.first = step.times[step.tableau.n_stages - 1], step.last

    def _nodes(self, past: Sequence[Past], t0: float, t1: float) -> tuple[list[float], bool]:
        """Where the past lies if the step is from 0 to 1, and whether the grid is even, to the rounding of
        the times that f sees."""
        dt = t1 - t0
        nodes = [(p.t - t0) / dt for p in past]
        room = 4 * torch.finfo(self.y.dtype).eps * max(abs(past[-1].t), abs(t1)) / abs(dt)
        return nodes, all(abs(s + i) <= room for i, s in enumerate(nodes))

    def _multistep(
        self, past: list[Past], weights: list[float], end: Tensor, ends: tuple[float, float]
    ) -> tuple[StepResult, list[Past]]:
        """The step, and the past that is left to later ones."""
        (t0, t1), used = ends, past[: len(weights)]
        dt, k = t1 - t0, [p.evaluation[0] for p in used]
        slope, saved = weighted(k, weights), [p.evaluation[1] for p in used]
        if self.adams.implicit:
            nodes, even = self._nodes(used, t0, t1)
            *weights, last = corrector_weights(nodes, even)
            known, converged = weighted(k, weights), False
            for _ in range(self.adams.max_iters):
                before, (new, kept) = slope, self.field(end, torch.add(self.y, slope, alpha=dt))
                slope = torch.add(known, new, alpha=last)
                converged = self._converged(before, slope, abs(dt))
                if converged:
                    break
            if not converged:
                self._warn(t0, t1)
                past = past[:-1]  # a lower order, as torchdiffeq has it
            weights, saved = [*weights, last], [*saved, kept]
        stages = StageList(self.mean_slope.numeric(self.y.dtype, self.y.device), dt)
        stages.put(0, past[0].evaluation[0])
        stages.put(1, slope)
        quadrature = Quadrature(sent(weights, self.y.device, self.y.dtype), saved)
        y1 = torch.add(self.y, slope, alpha=dt)
        return StepResult(y1, stages, [past[0].evaluation[1], None], quadrature), past

    @torch.no_grad()
    def _converged(self, before: Tensor, after: Tensor, dt: float) -> bool:
        """Whether no entry of dt times the slope changed by more than its tolerance, or y's rounding."""
        room = self.tolerance.scale(before * dt, after * dt)
        change = self.tolerance.size(after - before) * dt
        rounding = torch.finfo(self.y.dtype).eps * self.tolerance.size(self.y)
        return bool((change <= torch.maximum(room, rounding)).all())  # host read

    def _warn(self, t0: float, t1: float) -> None:
        """Once a solve."""
        if not self.warned:
            warnings.warn(
                f"the corrector's functional iteration did not converge within max_iters="
                f"{self.adams.max_iters} in the step from t={t0:.6g} to {t1:.6g}; its last value is taken, "
                "and the order is lowered. Give shorter steps, a higher max_iters or a looser rtol.",
                AdamodeWarning,
                stacklevel=2,
            )
        self.warned = True


def weighted(k: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Σ w_i k_i, out of place."""
    total = k[0] * weights[0]
    for value, w in zip(k[1:], weights[1:], strict=True):
        total = torch.add(total, value, alpha=w)
    return total
