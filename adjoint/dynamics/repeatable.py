"""Whether func gives the same value when it is evaluated again.

An adjoint that evaluates stages anew needs that. Dropout and BatchNorm in training mode do not: the
backward pass would differentiate another function than the forward pass solved.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from ...solvers.errors import NotRepeatableError
from ...solvers.march.output import Step
from ...solvers.march.samples import SampleStep
from ...solvers.stats import Stats
from .protocol import Dynamics

Complain = Callable[[NotRepeatableError], None]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One evaluation of func: its value k at (time, z)."""

    time: Tensor
    z: Tensor
    k: Tensor

    def check(self, dynamics: Dynamics, stats: Stats, complain: Complain) -> None:
        """Evaluates func there once more; one host read. Rounding of another order of sums is allowed."""
        stats.nfe_recomputed += 1
        again, _ = dynamics.forward(self.time, self.z)
        refuse_unlike(float(distance(again, self.k)), self.k.dtype, complain)  # host read


def last_evaluation(step: Step | SampleStep) -> Evaluation:
    """The last of an accepted step, in memory of its own; what a sample did not accept is its first stage."""
    stages = step.result.stages
    if isinstance(step, SampleStep):
        n, clocks, accepted = step.n_stages, step.clocks, step.accepted
        time = torch.where(accepted.view(step.times[0].shape), step.times[n - 1], step.times[0])
        z = clocks.choose(accepted, step.result.y1, step.y0)
        return Evaluation(time, z, clocks.choose(accepted, stages.get(n - 1), step.first))
    n = step.tableau.n_stages
    if len(step.saved) < n:  # a fixed grid's last step does not evaluate its end
        return Evaluation(step.times[0], step.y0, stages.get(0).clone())
    return Evaluation(step.times[n - 1], step.y1, step.last[0].clone())


class LastEvaluation:
    """One evaluation of func, the last of a solve; made where stages will be evaluated anew."""

    def __init__(self) -> None:
        self.kept: Evaluation | None = None

    def see(self, step: Step | SampleStep) -> None:
        """An accepted step, or an attempt of all samples."""
        self.kept = last_evaluation(step)

    def check(self, dynamics: Dynamics, stats: Stats, complain: Complain) -> None:
        """`Evaluation.check`, where a step was taken."""
        if self.kept is not None:
            self.kept.check(dynamics, stats, complain)


def distance(again: Tensor, k: Tensor) -> Tensor:
    """The largest difference, relative to the largest entry of k (absolute where k is 0), 0-d."""
    scale = k.abs().amax()
    return torch.where(scale == 0, again.abs().amax(), (again - k).abs().amax() / scale)


def refuse_unlike(off: float, dtype: torch.dtype, complain: Callable[[NotRepeatableError], None]) -> None:
    """Complains where two evaluations at one place differ, relatively, by more than rounding.

    Rounding measured: up to 23 eps, of two 4096-wide layers whose rows are multiplied alone and in a batch of
    64. The limit is 40 times that; randomness is far above (what dropout drops is a whole entry).
    """
    if not off <= 1e3 * torch.finfo(dtype).eps:
        complain(NotRepeatableError(off))
