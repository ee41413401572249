"""The arguments of `solve`, every one checked before the first evaluation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..solvers.checks import check_choice, check_positive, check_resolution, check_state, check_tolerance
from ..solvers.controller import PID
from ..solvers.errors import ArgumentError, ArgumentTypeError
from ..solvers.events import Event
from ..solvers.methods import get_method
from ..solvers.norms import Norm, Tolerance, block_rms, largest, maximum, rms
from ..solvers.order import channels_last
from ..solvers.state import Layout, layout_of
from ..solvers.tableau import Tableau
from ..solvers.transforms import check_readable
from .dynamics import Dynamics, check_blocks
from .gradient import Backsolve, Direct, Discrete, Gradient, Interpolating

STEPPINGS = ("shared", "per_sample")
CHOICES = (Discrete, Interpolating, Backsolve, Direct)
NORMS = ("rms", "max", "blocks")
SAVES = ("times", "steps", "end")


@dataclasses.dataclass(frozen=True)
class Options:
    """The keyword arguments of `solve`; those that can be checked alone are."""

    method: str
    rtol: Any
    atol: Any
    stepping: str
    gradient: Gradient | None
    controller: PID
    dt0: float | Tensor | None
    max_steps: int
    step_at: Sequence[float] | Tensor | None
    jump_at: Sequence[float] | Tensor | None
    events: Sequence[Event] | Event
    dense: bool
    trace: bool
    norm: str | Callable[[Any], Tensor]
    params: Iterable[Tensor] | None
    save: str
    dt: float | None
    compact: bool
    sync_every: int
    compile: bool

    def __post_init__(self) -> None:
        for name, known in (("stepping", STEPPINGS), ("save", SAVES)):
            check_choice(name, getattr(self, name), known)
        if self.gradient is not None and not isinstance(self.gradient, CHOICES):
            raise ArgumentTypeError(
                f"gradient={self.gradient!r} must be Discrete, Interpolating, Backsolve, Direct or None."
            )
        if not isinstance(self.controller, PID):
            raise ArgumentTypeError(f"controller={self.controller!r} must be an adamode.PID, PI() or I().")
        events = self.events if isinstance(self.events, (tuple, list)) else (self.events,)
        for event in events:
            if not isinstance(event, Event):
                raise ArgumentTypeError(f"events holds {event!r}; give adamode.Event(fn, …) objects.")
        object.__setattr__(self, "events", tuple(events))
        if self.dt is not None:
            check_positive(self.dt, "dt")
        check_positive(self.max_steps, "max_steps", integer=True)
        check_positive(self.sync_every, "sync_every", integer=True)
        if not isinstance(self.compile, bool):
            raise ArgumentTypeError(f"compile={self.compile!r} must be True or False.")
        if self.compact and self.stepping != "per_sample":
            raise ArgumentError(
                "compact=True needs stepping='per_sample': only there samples leave the batch."
            )
        if not callable(self.norm):
            check_choice("norm", self.norm, NORMS)


@dataclasses.dataclass(frozen=True)
class Request:
    """One solve: options, and the state packed."""

    func: Callable[[Tensor, Any], Any] | Dynamics
    layout: Layout
    z0: Tensor
    t: Tensor
    options: Options
    tableau: Tableau
    tolerance: Tolerance
    stops: tuple[float, ...]
    jumps: tuple[float, ...]


def read_request(func: Any, y0: Any, t: Tensor, options: Options) -> Request:
    """Checks the state, the tolerances and the method together; times are checked by the stepping."""
    tableau = get_method(options.method)
    if options.dt is None and not tableau.adaptive:
        raise ArgumentError(f"method={options.method!r} has no error estimate: give a fixed step, dt=….")
    per_sample, blocks = options.stepping == "per_sample", isinstance(func, Dynamics)
    layout = layout_of(y0, batched=per_sample and not blocks)
    z0 = layout.pack(y0)
    check_state(z0, allow_non_finite=per_sample)
    if blocks and (not layout.single or z0.dim() < 2):
        raise ArgumentTypeError("y0 of a Dynamics must be one tensor [K, B, *S].")
    if blocks:
        check_blocks(func, z0, "y0")
        if z0.dim() == 5 and getattr(func, "channels_last", False):
            z0 = channels_last(z0)
    tolerance = Tolerance(
        check_tolerance(options.rtol, "rtol", z0, layout), check_tolerance(options.atol, "atol", z0, layout)
    )
    check_resolution(tolerance.rtol, "rtol", z0.dtype)
    stops, jumps = check_stops(options.step_at, "step_at"), check_stops(options.jump_at, "jump_at")
    return Request(func, layout, z0, t, options, tableau, tolerance, stops, jumps)


def norm_of(norm: str | Callable[[Any], Tensor], layout: Layout) -> Norm:
    """The error norm on the packed state. For a pytree "rms" is the largest of its leaves' RMS, and
    "blocks" the same; for one tensor [K, …] the largest of the RMS of its K blocks."""
    if callable(norm):

        def own(z: Tensor) -> Tensor:
            value = norm(layout.unpack(z))
            if not isinstance(value, (Tensor, int, float)):
                raise ArgumentTypeError(
                    f"norm returned a {type(value).__name__}; it must return one number, a 0-d tensor."
                )
            if not isinstance(value, Tensor):
                return torch.full((), abs(value), dtype=z.dtype, device=z.device)
            if value.numel() != 1:
                raise ArgumentError(
                    f"norm returned shape {tuple(value.shape)}; it must return one number, a 0-d tensor."
                )
            return value.reshape(()).abs()  # a signed mean, say: torchdiffeq takes the modulus as well

        return own
    if norm == "max":
        return maximum
    if layout.single:
        return block_rms if norm == "blocks" and layout.shapes[0] else rms
    return lambda z: largest([rms(leaf) for leaf in layout.leaves(z) if leaf.numel()])


def check_stops(times: Sequence[float] | Tensor | None, name: str) -> tuple[float, ...]:
    """Times to hit, as floats."""
    if times is None:
        return ()
    if isinstance(times, Tensor):
        check_readable(times, name)
    values = torch.as_tensor(times, dtype=torch.float64, device="cpu").reshape(-1).tolist()
    for i, value in enumerate(values):
        if not math.isfinite(value):
            raise ArgumentError(f"{name}[{i}] is {value}: times must be finite.")
    return tuple(values)
