"""Who watches a march with a clock a sample."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from torch import Tensor

from .events import SampleEvents
from .samples import SampleRecorder, SampleStep


@dataclasses.dataclass(frozen=True)
class Watching:
    """Who watches a solve: an adjoint's recorder, events (made when the start is known to be healthy).

    on_attempt: sees each attempt, whose it is accepted, the |dt| proposed after it, and the evaluations of
        each sample so far.
    keep: keep every attempt, with stages of its own.
    """

    recorder: SampleRecorder | None = None
    events: Callable[[Tensor, Tensor], SampleEvents] | None = None
    on_attempt: Callable[[SampleStep, Tensor, Tensor, Tensor], None] | None = None
    keep: bool = False
