"""torchdiffeq's callbacks: methods of func called with (t0, y0, dt) around each step."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...solvers.errors import AdamodeWarning
from ...solvers.march.host import RungeKuttaStepper
from ...solvers.march.output import Step
from ...solvers.solve import Observers

NAMES = ("callback_step", "callback_accept_step", "callback_reject_step")
Callback = Callable[[Tensor, Any, Tensor], Any]


class ObservedStepper:
    """A stepper that says what it is about to try."""

    def __init__(self, inner: RungeKuttaStepper, notify: Callable[[float, Tensor, float], None]):
        self.inner, self.notify = inner, notify
        self.accept, self.restart = inner.accept, inner.restart

    def attempt(self, t0: float, t1: float, **options: bool) -> Step:
        """The inner stepper's attempt, announced."""
        self.notify(t0, self.inner.y, t1 - t0)
        return self.inner.attempt(t0, t1, **options)


def observers(
    func: Any, suffix: str, unpack: Callable[[Tensor], Any], adaptive: bool, method: str
) -> Observers:
    """Observers that call func's callbacks.

    suffix: "" or "_adjoint".  unpack: the packed state as the callback wants it.
    A callback that the method does not support is a warning.
    """
    found: dict[str, Callback] = {}
    for name in NAMES:
        callback = getattr(func, name + suffix, None)
        if callback is not None:
            found[name] = callback
    unsupported = [name for name in found if not adaptive and name != "callback_step"]
    if unsupported:
        warnings.warn(
            f"Solver '{method}' does not support callbacks {unsupported}: a fixed step is neither "
            "accepted nor rejected.",
            AdamodeWarning,
            stacklevel=4,
        )

    def caller(name: str) -> Callable[[float, Tensor, float], None]:
        callback = found[name]

        def call(t0: float, y0: Tensor, dt: float) -> None:
            times = torch.tensor([t0, abs(dt)], dtype=torch.float64, device="cpu")
            callback(times[0], unpack(y0), times[1])

        return call

    made = Observers()
    if "callback_step" in found:
        notify = caller("callback_step")
        made = dataclasses.replace(made, wrap=lambda stepper: ObservedStepper(stepper, notify))
    if "callback_accept_step" in found and adaptive:
        accept = caller("callback_accept_step")
        made = dataclasses.replace(made, hooks=(lambda step: accept(step.t0, step.y0, step.dt),))
    if "callback_reject_step" in found and adaptive:
        reject = caller("callback_reject_step")
        made = dataclasses.replace(made, on_reject=lambda step: reject(step.t0, step.y0, step.dt))
    return made
