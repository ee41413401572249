"""The optimiser's step size over a run: a function of the step's number alone."""

from __future__ import annotations

import math

SCHEDULES = ("cosine", "constant")


def step_size(schedule: str, lr: float, step: int, steps: int) -> float:
    """Step size of optimiser step number ``step`` (from 0) of ``steps``.

    "constant": lr.  "cosine": from lr down to 0, lr/2 · (1 + cos(π step/steps)).
    Source: I. Loshchilov, F. Hutter, SGDR, ICLR 2017, Eq. (5), without restarts.
    """
    if schedule == "constant":
        return lr
    return lr / 2 * (1 + math.cos(math.pi * step / steps))
