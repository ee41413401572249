"""How a solve ended, and what to do about it."""

from __future__ import annotations

import enum


class Status(enum.IntEnum):
    """Outcome of a solve; in per-sample stepping one for each sample, as an int8 tensor."""

    RUNNING = -1
    SUCCESS = 0
    MAX_STEPS = 1
    STEP_UNDERFLOW = 2
    NON_FINITE = 3
    EVENT = 4
    NEWTON = 5

    def __str__(self) -> str:
        return self.name  # an IntEnum's is its number

    def __format__(self, spec: str) -> str:
        return format(self.name, spec)


REMEDY: dict[Status, str] = {
    Status.RUNNING: "The solve has not ended.",
    Status.SUCCESS: "The end time was reached.",
    Status.MAX_STEPS: (
        "The step limit was reached before the end time: raise max_steps, loosen rtol/atol, shorten "
        "the interval, or look for stiffness (an explicit method then takes steps far smaller than "
        "accuracy needs)."
    ),
    Status.STEP_UNDERFLOW: (
        "The step needed is below the spacing of floating-point times (or below dt_min). The "
        "dynamics may be stiff or discontinuous there, or the tolerance below what the dtype "
        "resolves: look at the state's norm near t, loosen rtol/atol, or shorten the interval."
    ),
    Status.NON_FINITE: (
        "The dynamics gave NaN or infinity there, for every step size tried. Look for a division by "
        "zero, a root or logarithm that leaves its domain, or a solution that blows up before the "
        "end time; shorten the interval or regularise the dynamics."
    ),
    Status.EVENT: "A terminal event stopped the solve.",
    Status.NEWTON: (
        "The equations of an implicit step could not be solved there, whatever its length: Newton's "
        "iteration diverged, or its matrix is singular or not finite. Check jac (or leave it out, so that "
        "func is differentiated), choose linear_solver='lu' where it is 'gmres', look for a jump of func "
        "there (jump_at), loosen rtol/atol, or shorten the interval."
    ),
}
