"""The optimiser's step size over a run: a function of the step's number alone."""

from __future__ import annotations

import math

SCHEDULES = ("cosine", "constant", "decay")
# Those whose first steps do not depend on how many there will be: such a run can be made longer.
OPEN_ENDED = frozenset({"constant", "decay"})
DECAY, DECAY_EVERY = 0.95, 1000  # the released code's, for CIFAR-10


def step_size(schedule: str, lr: float, step: int, steps: int) -> float:
    """Step size of optimiser step number ``step`` (from 0) of ``steps``.

    "constant": lr.  "cosine": from lr down to 0, lr/2 · (1 + cos(π step/steps)).  "decay": lr,
    multiplied by 0.95 after each 1,000 steps.
    Source: I. Loshchilov, F. Hutter, SGDR, ICLR 2017, Eq. (5), without restarts; the decay is the
    one of the AdamNODE authors' released code.
    """
    if schedule == "constant":
        return lr
    if schedule == "decay":
        return lr * DECAY ** (step // DECAY_EVERY)
    return lr / 2 * (1 + math.cos(math.pi * step / steps))
