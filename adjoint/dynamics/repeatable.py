"""Whether func gives the same value when it is evaluated again.

An adjoint that evaluates stages anew needs that. Dropout and BatchNorm in training mode do not: the
backward pass would differentiate another function than the forward pass solved.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...solvers.errors import NotRepeatableError
from ...solvers.march.host import Stats
from ...solvers.march.samples import SampleStep
from ...solvers.march.stepper import Step
from .protocol import Dynamics


class LastEvaluation:
    """An on_accept hook that keeps one evaluation of func, the last of the solve."""

    def __init__(self) -> None:
        self.kept: tuple[Tensor, Tensor, Tensor] | None = None

    def __call__(self, step: Step | SampleStep) -> None:
        """The hook."""
        self.see(step)

    def see(self, step: Step | SampleStep) -> None:
        """Of an accepted step, or of an attempt: what a sample did not accept is evaluated at its rest."""
        stages = step.result.stages
        if isinstance(step, SampleStep):
            n = step.n_stages - 1
            mask = step.clocks.spread(step.accepted)
            time = torch.where(step.accepted.view(step.times[0].shape), step.times[n], step.times[0])
            z = torch.where(mask, step.result.y1, step.y0)
            self.kept = (time, z, torch.where(mask, stages.get(n), step.first))
        elif len(step.saved) >= step.tableau.n_stages:
            self.kept = (step.times[step.tableau.n_stages - 1], step.y1, step.last[0].clone())
        else:  # a fixed grid's last step does not evaluate its end
            self.kept = (step.times[0], step.y0, stages.get(0).clone())

    def check(self, dynamics: Dynamics, stats: Stats, complain: Callable[[NotRepeatableError], None]) -> None:
        """Evaluates func there once more; one host read. Rounding of another order of sums is allowed."""
        if self.kept is None:
            return
        time, z, k = self.kept
        stats.nfe_recomputed += 1
        again, _ = dynamics.forward(time, z)
        refuse_unlike(float(distance(again, k)), k.dtype, complain)  # host read


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
