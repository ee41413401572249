"""torchdiffeq's callbacks: methods of func called with (t0, y0, dt) around each step."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...solvers.checks import check_call
from ...solvers.errors import AdamodeWarning
from ...solvers.march.host import RungeKuttaStepper
from ...solvers.march.output import Step
from ...solvers.solve import Observers, Settings

NAMES = ("callback_step", "callback_accept_step", "callback_reject_step")
Callback = Callable[[Tensor, Any, Tensor], Any]


class ObservedStepper:
    """A stepper that announces each attempt."""

    def __init__(self, inner: RungeKuttaStepper, notify: Callable[[float, Tensor, float], None]):
        self.inner, self.notify = inner, notify
        self.accept, self.restart = inner.accept, inner.restart

    def attempt(self, t0: float, t1: float, **options: bool) -> Step:
        """The inner stepper's attempt, announced."""
        self.notify(t0, self.inner.y, t1 - t0)
        return self.inner.attempt(t0, t1, **options)


def observers(func: Any, suffix: str, unpack: Callable[[Tensor], Any], settings: Settings) -> Observers:
    """Observers that call func's callbacks.

    suffix: "" or "_adjoint".
    unpack: the packed state as the callback wants it.
    settings: of the solve; a callback that its method does not support is a warning.
    """
    found = {name: callback for name in NAMES if (callback := getattr(func, name + suffix, None)) is not None}
    for name, callback in found.items():
        check_call(callback, f"func's {name}{suffix}", f"{name}{suffix}(t0, y0, dt)")
    unsupported, why = [], "its steps are scipy's own"
    if settings.foreign is not None:
        unsupported = list(found)
    elif settings.fixed:
        unsupported = [name for name in found if name != "callback_step"]
        why = "a fixed step is neither accepted nor rejected"
    if unsupported:
        method = settings.tableau.name if settings.foreign is None else f"scipy's {settings.foreign.solver}"
        warnings.warn(
            f"Solver '{method}' does not support callbacks {unsupported}: {why}.",
            AdamodeWarning,
            stacklevel=5,
        )

    def tell(callback: Callback, t0: float, y0: Tensor, dt: float) -> None:
        times = torch.tensor([t0, abs(dt)], dtype=torch.float64, device="cpu")
        callback(times[0], unpack(y0), times[1])

    def hook(name: str) -> Callable[[Step], None] | None:
        if name not in found or name in unsupported:
            return None
        return lambda step: tell(found[name], step.t0, step.y0, step.dt)

    def wrap(stepper: RungeKuttaStepper) -> ObservedStepper:
        return ObservedStepper(stepper, functools.partial(tell, found["callback_step"]))

    accept = hook("callback_accept_step")
    return Observers(
        hooks=() if accept is None else (accept,),
        on_reject=hook("callback_reject_step"),
        wrap=wrap if "callback_step" in found and "callback_step" not in unsupported else None,
    )
