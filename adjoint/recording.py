"""What an adjoint keeps of a forward solve, and its way back over what the solve gave."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from torch import Tensor

from ..solvers.march.output import Place, Step
from ..solvers.march.samples import SampleRecorder, SampleStep, Written

Rows = Sequence[Tensor] | Tensor  # one state a row
Result = tuple[Tensor, list[Tensor]]  # dL/dz at the start before the first cotangent, gradients of θ


class Recorder(SampleRecorder):
    """A recorder of either stepping; by itself it keeps nothing."""

    def step(self, step: Step | SampleStep) -> None:
        """An accepted step, or an attempt of all samples."""


@dataclasses.dataclass(frozen=True)
class Seen:
    """Outputs and events of a solve, the start first.

    times: floats; per sample [n, B], NaN where not reached.
    values: the states there, a list; per sample [n, *z].
    places: where they lie; per sample ().
    outputs: per sample, the outputs inside each attempt for a question asked of the dense output later;
        None for those that were recorded.
    """

    times: Sequence[float] | Tensor
    values: Rows
    places: Sequence[Place] = ()
    outputs: Sequence[list[Written]] | None = None


@dataclasses.dataclass(frozen=True)
class Recording:
    """How a gradient choice listens to a forward solve, and how it walks back.

    recorder: sees the forward solve's steps.
    walk: what was seen, its cotangents, whether θ's gradients are wanted → the gradients.
    dense: whether the forward solve must keep its stages.
    saves: whether the walk uses what the forward solve's evaluations saved (their graphs, say).
    """

    recorder: Recorder
    walk: Callable[[Seen, Rows, bool], Result]
    dense: bool = False
    saves: bool = False
