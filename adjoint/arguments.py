"""The arguments of `solve`, every one checked before the first evaluation."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeVar, cast, get_args

import torch
from torch import Tensor

from ..solvers.checks import check_choice, check_positive, check_resolution, check_state, check_tolerance
from ..solvers.errors import ArgumentError, ArgumentTypeError, nearest
from ..solvers.march.events import Event
from ..solvers.march.samples import SampleNorm
from ..solvers.methods import get_method
from ..solvers.methods.tableau import Tableau
from ..solvers.step.clocks import Each
from ..solvers.step.controller import PID
from ..solvers.step.layout import Layout, layout_of
from ..solvers.step.memory_order import channels_last
from ..solvers.step.norms import Norm, Tolerance, block_rms, largest, maximum, rms
from ..solvers.transforms import check_readable
from .dynamics.protocol import Dynamics, check_blocks
from .gradient import Backsolve, Direct, Discrete, Gradient, Interpolating

Solve = TypeVar("Solve", bound=Callable[..., Any])
Times = Sequence[float] | Tensor | None
Tolerances = float | Tensor | list[Any] | tuple[Any, ...]  # one number, or one a member
Stepping = Literal["shared", "per_sample"]
Grouping = Stepping | Tensor  # or [B] integers: samples with the same number share their steps
Save = Literal["times", "steps", "end"]
NormName = Literal["rms", "max", "blocks"]
STEPPINGS, SAVES, NORMS = get_args(Stepping), get_args(Save), get_args(NormName)
CHOICES = (Discrete, Interpolating, Backsolve, Direct)


@dataclasses.dataclass(frozen=True)
class Options:
    """The keyword arguments of `solve`; those that can be checked alone are."""

    method: str
    rtol: Tolerances
    atol: Tolerances
    stepping: Grouping
    gradient: Gradient | None
    controller: PID
    dt0: float | Tensor | None
    max_steps: int
    step_at: Times
    jump_at: Times
    events: Sequence[Event]
    dense: bool
    trace: bool
    norm: NormName | Callable[[Any], Tensor]
    params: Iterable[Tensor] | None
    save: Save
    dt: float | None
    compact: bool
    sync_every: int
    compile: bool

    def __post_init__(self) -> None:
        check_choice("save", self.save, SAVES)
        if not isinstance(self.stepping, Tensor):
            check_choice("stepping", self.stepping, STEPPINGS)
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
        if self.compact and not clocks_differ(self.stepping):
            raise ArgumentError(
                "compact=True needs stepping='per_sample', or groups: only there samples leave the batch."
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


def clocks_differ(stepping: Grouping) -> bool:
    """Whether samples have clocks of their own, or of their group."""
    return isinstance(stepping, Tensor) or stepping == "per_sample"


def check_groups(stepping: Tensor, times: Tensor, batch: int) -> tuple[Tensor, int]:
    """Group numbers as [B] int64 below n, and n. A host read.

    Raises ArgumentTypeError for what are no integers, ArgumentError for another shape, or for samples of one
    group that begin or end at different times.
    """
    if stepping.dtype == torch.bool or stepping.is_floating_point() or stepping.is_complex():
        raise ArgumentTypeError(
            f"stepping has dtype {stepping.dtype}; group numbers are integers, one a sample: stepping.long()."
        )
    check_readable(stepping, "stepping")
    if tuple(stepping.shape) != (batch,):
        raise ArgumentError(
            f"stepping has shape {tuple(stepping.shape)}; give one group number for each of the {batch} "
            f"samples, shape ({batch},)."
        )
    numbers, ids = torch.unique(stepping.to(times.device), return_inverse=True)
    ends = times[:, :: times.shape[1] - 1]
    own = torch.zeros_like(ends[: len(numbers)]).index_copy(0, ids, ends)
    apart = (own[ids] != ends).any(1)
    if bool(apart.any()):  # host read
        b = int(apart.to(torch.int8).argmax())
        raise ArgumentError(
            f"t[{b}] runs from {ends[b, 0].item()!r} to {ends[b, 1].item()!r}, but another sample of its "
            f"group (stepping[{b}]={stepping[b].item()}) does not: samples that share steps begin and end "
            "together."
        )
    return ids, len(numbers)


def named_arguments(function: Solve) -> Solve:
    """`solve` with an error of ours for a keyword that is not one of `Options`."""
    known = Options.__dataclass_fields__
    own = {*known, "func", "y0", "t"}

    @functools.wraps(function)
    def call(*args: Any, **given: Any) -> Any:
        for name in given:
            if name not in own:
                raise ArgumentTypeError(f"solve got an unknown argument {name!r}: {nearest(name, known)}")
        return function(*args, **given)

    return cast("Solve", call)


def read_request(func: Any, y0: Any, t: Tensor, options: Options) -> Request:
    """Checks the state, the tolerances and the method together; times are checked by the stepping."""
    tableau = get_method(options.method)
    if options.dt is None and not tableau.adaptive:
        raise ArgumentError(f"method={options.method!r} has no error estimate: give a fixed step, dt=….")
    per_sample, blocks = clocks_differ(options.stepping), isinstance(func, Dynamics)
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


def own_norm(
    norm: Callable[[Any], Any], layout: Layout, shape_of: Callable[[Tensor], tuple[int, ...]]
) -> Norm:
    """A user's norm on the packed state, checked; its modulus, as torchdiffeq takes it.

    shape_of: of the state, the shape that the norm must return; for () one number of any shape will do.
    """

    return lambda z: norm_value(norm(layout.unpack(z)), shape_of(z), z)


def norm_value(value: Any, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """What a user's norm returned, its modulus, in the shape that it must have."""
    wanted = f"one number a sample, shape {shape}" if shape else "one number, a 0-d tensor"
    if not isinstance(value, (Tensor, int, float)):
        raise ArgumentTypeError(f"norm returned a {type(value).__name__}; it must return {wanted}.")
    if isinstance(value, Tensor) and (value.dtype == torch.bool or value.is_complex()):
        raise ArgumentTypeError(f"norm returned a tensor of {value.dtype}; it must return {wanted}.")
    if not isinstance(value, Tensor):
        value = torch.full((), value, dtype=like.dtype, device=like.device)
    if value.shape != shape if shape else value.numel() != 1:
        raise ArgumentError(f"norm returned shape {tuple(value.shape)}; it must return {wanted}.")
    return value.reshape(shape).abs()


def norm_of(norm: str | Callable[[Any], Tensor], layout: Layout) -> Norm:
    """The error norm on the packed state. For a pytree "rms" is the largest of its leaves' RMS, and
    "blocks" the same; for one tensor [K, …] the largest of the RMS of its K blocks."""
    if callable(norm):
        return own_norm(norm, layout, lambda z: ())
    if norm == "max":
        return maximum
    if layout.single:
        return block_rms if norm == "blocks" and layout.shapes[0] else rms
    return lambda z: largest([rms(leaf) for leaf in layout.leaves(z) if leaf.numel()])


def sample_norm(norm: str | Callable[[Any], Tensor], layout: Layout, clocks: Each) -> SampleNorm:
    """The error norm of each sample, [b], or of its group, where clocks are in groups. For a pytree "rms" is
    the largest of its leaves' RMS; of a norm of the caller's the group's largest counts."""
    if callable(norm):
        own, groups = own_norm(norm, layout, lambda z: (clocks.batch_size(z),)), clocks.groups
        return own if groups is None else lambda z: groups.largest(own(z)).to(z.dtype)
    if norm == "max":
        return clocks.maximum
    if layout.single and norm == "blocks" and clocks.batch == 1:  # a Dynamics' blocks [K, B, …]
        return clocks.block_rms
    if layout.single:
        return clocks.rms
    return lambda z: torch.stack([clocks.of(leaf).rms(leaf) for leaf in layout.leaves(z)]).amax(0)


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
