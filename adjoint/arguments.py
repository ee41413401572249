"""The arguments of `solve`, every one checked before the first evaluation."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeVar, cast, get_args

import torch
from torch import Tensor

from ..solvers.checks import (
    check_call,
    check_positive,
    check_readable,
    check_resolution,
    check_state,
    check_stops,
    check_tolerance,
)
from ..solvers.errors import ArgumentError, ArgumentTypeError, check_choice, nearest
from ..solvers.march.event import Event, Impulse, resets
from ..solvers.methods import EVERY, IMPLICIT, get_method
from ..solvers.methods.tableau import Tableau
from ..solvers.solution import State
from ..solvers.step.clocks import Tolerance
from ..solvers.step.controller import PID
from ..solvers.step.field import HALF, Layout, layout_of
from .dynamics.jacobian import UserJacobian
from .dynamics.protocol import Dynamics, check_blocks
from .gradients import CHOICES, COUPLING, Backsolve, Direct, Discrete, Gradient, Interpolating, Reversible
from .signals.signal import Signal

LinearSolver = Literal["lu", "gmres"]

Function = TypeVar("Function", bound=Callable[..., Any])
Func = Callable[[Tensor, State], Any] | Callable[[Tensor, State, Tensor], Any] | Dynamics
Times = Sequence[float] | Tensor | None
Tolerances = float | Tensor | list[Any] | tuple[Any, ...]  # one number, or one a member
Stepping = Literal["shared", "per_sample"]
Grouping = Stepping | Tensor  # or [B] integers: samples with the same number share their steps
Save = Literal["times", "steps", "end"]
NormName = Literal["rms", "max", "blocks"]
Penalty = Literal["kinetic", "jacobian", "error", "stiffness"]
STEPPINGS, SAVES, NORMS = get_args(Stepping), get_args(Save), get_args(NormName)
PENALTIES = get_args(Penalty)
WORDS = {"save": SAVES, "stepping": STEPPINGS, "norm": NORMS, "linear_solver": get_args(LinearSolver)}


def _check_kind(argument: str, value: Any, kinds: Any, wanted: str) -> None:
    if not isinstance(value, kinds):
        raise ArgumentTypeError(f"{argument}={value!r} must be {wanted}.")


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
    events: Sequence[Event | Impulse]
    dense: bool
    trace: bool
    norm: NormName | Callable[[Any], Tensor]
    params: Iterable[Tensor] | None
    save: Save
    dt: float | None
    compact: bool
    sync_every: int
    compile: bool
    jac: UserJacobian | None
    linear_solver: LinearSolver
    penalties: Sequence[Penalty] = ()
    signal: Signal | None = None

    def __post_init__(self) -> None:
        _check_kind("signal", self.signal, (Signal, type(None)), "an adamode.Signal(times, values), or None")
        if not isinstance(self.method, str) or self.method not in EVERY:
            get_method(self.method, implicit=True)  # says why
        self._check_implicit()
        steppings = " or ".join(map(repr, STEPPINGS))
        groups = "a tensor of group numbers, one integer a sample: torch.as_tensor(…)"
        _check_kind("stepping", self.stepping, (str, Tensor), f"{steppings}, or {groups}")
        own = {"stepping": isinstance(self.stepping, Tensor), "norm": callable(self.norm)}
        for name, known in WORDS.items():
            if not own.get(name) and getattr(self, name) not in known:  # a right word enters no further file
                check_choice(name, getattr(self, name), known)
        choices = (*CHOICES, type(None))
        wanted = "Discrete, Interpolating, Backsolve, Direct, Reversible or None"
        _check_kind("gradient", self.gradient, choices, wanted)
        self._check_pair()
        _check_kind("controller", self.controller, PID, "an adamode.PID, PI() or I()")
        _check_kind("compile", self.compile, bool, "True or False")
        events = self.events if isinstance(self.events, (tuple, list)) else (self.events,)
        for event in events:
            if not isinstance(event, (Event, Impulse)):
                raise ArgumentTypeError(
                    f"events holds {event!r}; give adamode.Event(fn, …) and adamode.Impulse(times, reset) "
                    "objects."
                )
        if isinstance(self.gradient, Reversible) and any(map(resets, events)):
            raise ArgumentError(
                "gradient=Reversible() with a reset: a change of the state cannot be undone from the state "
                "after it. Use Discrete(), or Discrete(checkpoints=…) where memory is short."
            )
        object.__setattr__(self, "events", tuple(events))
        if self.dt is not None:
            check_positive(self.dt, "dt")
        check_positive(self.max_steps, "max_steps", integer=True)
        check_positive(self.sync_every, "sync_every", integer=True)
        if self.compact and not clocks_differ(self.stepping):
            raise ArgumentError(
                "compact=True needs stepping='per_sample', or groups: only there samples leave the batch."
            )
        if callable(self.norm):
            check_call(self.norm, "norm", "norm(y)")
        if isinstance(self.penalties, str) or not isinstance(self.penalties, Sequence):
            raise ArgumentTypeError(f"penalties={self.penalties!r} must be a tuple of names: ('error',).")
        for name in self.penalties:
            check_choice("penalties", name, PENALTIES)
        object.__setattr__(self, "penalties", tuple(dict.fromkeys(self.penalties)))

    @property
    def own_stops(self) -> bool:
        """Whether samples may have times to hit of their own."""
        given = (self.step_at, self.jump_at)
        return self.signal is not None or any(isinstance(x, Tensor) and x.dim() == 2 for x in given)

    def _jumping(self) -> str:
        """The argument that says that f jumps at known times; "" where none does."""
        if self.jump_at is not None and len(self.jump_at):
            return "jump_at"
        if self.signal is None or not self.signal.jumps:
            return ""
        return f"signal, {'the derivative of one ' * self.signal.order}of kind={self.signal.kind!r},"

    @property
    def watched(self) -> tuple[Event, ...]:
        """The events that are looked for."""
        return tuple(event for event in self.events if isinstance(event, Event))

    def _check_implicit(self) -> None:
        """Raises for an argument that has no place beside an implicit method, or beside an explicit one."""
        tableau, gradient = EVERY[self.method], self.gradient
        back = gradient.method if isinstance(gradient, (Backsolve, Interpolating)) else None
        for part in (tableau, EVERY[back or self.method]):
            if part.between and self.dt is not None:
                raise ArgumentError(
                    f"dt is given with method={part.name!r}, which changes between two methods by the "
                    f"lengths of its steps, and fixed steps do not tell: choose {part.between[1].name!r}, or "
                    "leave dt out."
                )
        if self.jac is not None:
            check_call(self.jac, "jac", "jac(t, y)" if self.signal is None else "jac(t, y, u)")
        if not tableau.wants_jacobian and self.jac is not None:
            raise ArgumentError(
                f"jac is given, but method={self.method!r} is explicit and has no use for it: leave jac out, "
                f"or choose one of {', '.join(IMPLICIT)}, or 'auto'."
            )
        if self.linear_solver == "gmres":
            self._check_gmres(tableau)
        newton = tableau.wants_jacobian or (back is not None and EVERY[back].wants_jacobian)
        if isinstance(gradient, Backsolve) and newton:
            raise ArgumentError(
                f"gradient=Backsolve() with method={back or self.method!r}: the fast modes that an "
                "implicit method is for decay forwards and grow as fast backwards, so the rebuilt state is "
                "lost within a step. Use Discrete() or Interpolating(), which take the state from the "
                "forward pass."
            )
        reverse = back or self.method
        if isinstance(gradient, Interpolating) and EVERY[reverse].gamma:
            raise ArgumentError(
                f"gradient=Interpolating() whose reverse solve has method={reverse!r}: a Rosenbrock step is "
                "no quadrature, and dL/dθ would lose its order. Give Interpolating(method='radau5')."
            )
        jumping = self._jumping()
        if tableau.beyond and jumping:
            raise ArgumentError(
                f"{jumping} with method={self.method!r}: one of its stages lies past the end of the step, "
                "and would see func on the other side of the jump. Choose kvaerno3."
            )

    def _check_pair(self) -> None:
        """Raises for an argument that has no place beside the steps of a pair."""
        tableau, gradient = EVERY[self.method], self.gradient
        coupled = isinstance(gradient, Reversible) or (isinstance(gradient, Direct) and gradient.coupling)
        if coupled and tableau.wants_jacobian:
            raise ArgumentError(
                f"gradient={type(gradient).__name__}(coupling=…) with method={self.method!r}: half of a "
                "pair's step goes backwards, where the fast modes that an implicit method is for grow. Use "
                "Discrete() or Interpolating(), or an explicit method."
            )
        if not tableau.leapfrog:
            return
        if isinstance(gradient, (Reversible, Direct)) and gradient.coupling not in (COUPLING, None):
            raise ArgumentError(
                f"{type(gradient).__name__}: coupling={gradient.coupling!r} has no meaning for "
                f"method={self.method!r}, whose pair is a state and its velocity: leave it out."
            )
        if isinstance(gradient, (Backsolve, Interpolating, Discrete)):
            raise ArgumentError(
                f"gradient={type(gradient).__name__}() with method={self.method!r}: that walk back needs "
                "stages that are slopes of func, but this method's stages are velocities. Use Reversible(), "
                "which is exact and keeps no states, or Direct()."
            )
        jumping = self._jumping()
        if jumping:
            raise ArgumentError(
                f"{jumping} with method={self.method!r}: its velocity is carried from step to step, also "
                "across a jump of func, where it is wrong. Choose a Runge-Kutta method: midpoint or dopri5."
            )

    def _check_gmres(self, tableau: Tableau) -> None:
        """Raises where linear_solver='gmres' has no matrix-free way."""
        gradient, said = self.gradient, ""
        if not tableau.wants_jacobian:
            said = f"method={self.method!r} is explicit and has no systems: choose kvaerno3 or kvaerno5"
        elif tableau.coupled or tableau.between:
            name = tableau.parts[-1].name
            said = f"{name} has coupled stages, split by complex factors: choose kvaerno3 or kvaerno5"
        elif tableau.gamma:
            said = f"method={self.method!r} is a Rosenbrock method, made of a matrix: choose kvaerno5"
        elif self.jac is not None:
            said = "jac gives a matrix, and no matrix is wanted: leave jac out, or choose linear_solver='lu'"
        elif isinstance(gradient, Direct):
            said = "Direct() has the graph of every factored matrix: choose gradient=Discrete()"
        elif isinstance(gradient, Interpolating) and EVERY[gradient.method or self.method].wants_jacobian:
            said = (
                "the reverse solve of Interpolating() has systems of 2n unknowns with a matrix each: choose "
                "gradient=Discrete(), or Interpolating(method=…) with an explicit one"
            )
        if said:
            raise ArgumentError(f"linear_solver='gmres': {said}.")


@dataclasses.dataclass(frozen=True)
class Request:
    """One solve: options, and the state packed."""

    func: Func[Any]
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


def needs_jacobian(options: Options) -> bool:
    """Whether the solve, or its reverse solve, has an implicit method."""
    gradient = options.gradient
    back = gradient.method if isinstance(gradient, Interpolating) else None
    return EVERY[options.method].wants_jacobian or (back is not None and EVERY[back].wants_jacobian)


def coupling_of(options: Options) -> float | None:
    """The coupling of the pair whose steps the gradient asks for; None where the steps are the method's."""
    coupling = options.gradient.coupling if isinstance(options.gradient, (Reversible, Direct)) else None
    return None if coupling is None or EVERY[options.method].leapfrog else float(coupling)


def check_groups(stepping: Tensor, times: Tensor, batch: int) -> tuple[Tensor, int]:
    """Group numbers as [B] int64 below n, and n. A host read.

    Raises ArgumentTypeError for what are no integers, ArgumentError for another shape, or for samples of one
    group that begin or end at different times.
    """
    if stepping.dtype == torch.bool or stepping.is_floating_point() or stepping.is_complex():
        raise ArgumentTypeError(
            f"stepping has dtype {stepping.dtype}; group numbers are integers, one a sample: stepping.long()."
        )
    if stepping.layout != torch.strided or stepping.is_quantized:
        raise ArgumentTypeError(f"stepping is a {stepping.layout} tensor; group numbers are a dense one.")
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


def check_names(given: Iterable[str]) -> None:
    """Raises ArgumentTypeError for a name that is no argument of `solve`."""
    known = Options.__dataclass_fields__
    for name in given:
        if name not in (*known, "func", "y0", "t"):
            raise ArgumentTypeError(f"solve got an unknown argument {name!r}: {nearest(name, known)}")


def named_arguments(function: Function) -> Function:
    """`solve` with an error of ours for a keyword that is not one of `Options`."""

    @functools.wraps(function)
    def call(*args: Any, **given: Any) -> Any:
        check_names(given)
        return function(*args, **given)

    return cast("Function", call)


def channels_last(z: Tensor) -> Tensor:
    """[K, B, C, H, W] with each block's memory in the order [B, H, W, C], as convolutions like it best."""
    return z.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)


def read_request(func: Any, y0: Any, t: Tensor, options: Options) -> Request:
    """Checks the state, the tolerances and the method together; times are checked by the stepping."""
    tableau = EVERY[options.method]
    if options.dt is None and not tableau.adaptive:
        raise ArgumentError(f"method={options.method!r} has no error estimate: give a fixed step, dt=….")
    per_sample, blocks = clocks_differ(options.stepping), isinstance(func, Dynamics)
    layout = layout_of(y0, batched=per_sample and not blocks)
    z0 = layout.pack(y0)
    check_state(z0, allow_non_finite=per_sample)
    if blocks and layout.kind is not None:
        raise ArgumentTypeError(
            f"y0 of a Dynamics has dtype {layout.kind}; a VJP by hand is one of real numbers: give y0 in "
            "torch.float32 or float64 (a complex block as two), or func as a Module, which autograd "
            "differentiates."
        )
    if blocks and options.signal is not None:
        raise ArgumentTypeError(
            f"signal with func a {type(func).__name__}, a Dynamics: its VJP has no place for an input. Give "
            "func(t, y, u) as a function or an nn.Module; a block takes its input by block.driven(signal), "
            "over a Driven field."
        )
    if blocks and (not layout.single or z0.dim() < 2):
        raise ArgumentTypeError("y0 of a Dynamics must be one tensor [K, B, *S].")
    if blocks:
        check_blocks(func, z0, "y0")
        if z0.dim() == 5 and getattr(func, "channels_last", False):
            z0 = channels_last(z0)
    rtol = check_tolerance(options.rtol, "rtol", z0, layout)
    atol = check_tolerance(options.atol, "atol", z0, layout)
    tolerance = Tolerance(rtol, atol, layout.paired)
    check_resolution(tolerance.rtol, "rtol", z0.dtype)
    if layout.kind in HALF and options.dt is None:
        check_resolution(tolerance.rtol, "rtol", layout.kind)
    stops, jumps = check_stops(options.step_at, "step_at"), check_stops(options.jump_at, "jump_at")
    return Request(func, layout, z0, t, options, tableau, tolerance, stops, jumps)


_found: dict[str, Callable[..., Any]] = {}


def uncompiled(function: Function) -> Function:
    """The same function, run outside the graph where a caller is being compiled."""
    name = f"{function.__name__}_{len(_found)}"
    _found[name] = function
    here = sys.modules[__name__]

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return getattr(here, name)(*args, **kwargs)
        return function(*args, **kwargs)

    return cast("Function", call)  # wraps' own type forgets the argument names


def __getattr__(name: str) -> Callable[..., Any]:
    """The function of that name with compilation disabled; dynamo asks for it while it traces."""
    if name not in _found:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import torch._dynamo

    disabled = torch._dynamo.disable(_found[name])
    globals()[name] = disabled
    return disabled
