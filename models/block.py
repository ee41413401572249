"""A block: start blocks → solve → h(T), as a module."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypedDict

import torch
from torch import Tensor, nn
from typing_extensions import Self

from ..adjoint.arguments import Penalty, Stepping
from ..adjoint.dynamics.protocol import check_after
from ..adjoint.gradients import Discrete, Gradient
from ..adjoint.solve import solve
from ..solvers.checks import check_positive
from ..solvers.errors import AdamodeWarning, ArgumentError, ArgumentTypeError, DynamicsError, nearest
from ..solvers.march.output import as_time
from ..solvers.methods import get_method
from ..solvers.solution import Solution
from ..solvers.stats import Stats
from ..solvers.status import Status
from .checks import check_sizes
from .explain import explain
from .fields.by_autograd import AutogradField
from .fields.driven import Driven, Signal
from .fields.field import Field
from .saving import save

MAX_STEPS = 100_000  # attempts, as in `adamode.solve`
Network = nn.Module | Callable[[Tensor, Tensor], Tensor]


class SolverOptions(TypedDict, total=False):
    """The keywords by which every block is told how to solve; `SolveSettings` holds their defaults.

    t: start and end.
    rtol, atol, method, stepping, gradient, compile, sync_every: as in `adamode.solve`
        (`models.explain` says where compile=True does nothing; a block then warns and goes on without).
    """

    t: Sequence[float]
    rtol: float
    atol: float
    method: str
    stepping: Stepping
    gradient: Gradient | None
    compile: bool
    sync_every: int


@dataclasses.dataclass(frozen=True)
class SolveSettings:
    """How a block solves: `SolverOptions`, and what a training run sets from batch to batch.

    dt0: first |dt|; None estimates it anew in every solve, for one evaluation of f.
    penalties: as in `adamode.solve`, told by `LastSolve.take_penalties`.
    """

    t: Sequence[float] = (0.0, 1.0)
    rtol: float = 1e-4  # as in the code that the AdamNODE authors released for MNIST
    atol: float = 1e-4
    method: str = "dopri5"
    stepping: Stepping = "shared"
    gradient: Gradient | None = Discrete()  # noqa: RUF009  (frozen)
    compile: bool = False
    sync_every: int = 1
    dt0: float | None = None
    penalties: Sequence[Penalty] = ()

    def __post_init__(self) -> None:
        times = self.t.tolist() if isinstance(self.t, Tensor) else self.t
        numbers = isinstance(times, Sequence) and all(isinstance(x, int | float) for x in times)
        if not numbers or len(times) != 2:
            raise ArgumentError(f"t={self.t!r} must be the block's start and end time, such as (0.0, 1.0).")
        start, end = (float(x) for x in times)
        if not (math.isfinite(start) and math.isfinite(end)) or start == end:
            raise ArgumentError(f"t={self.t!r}: start and end must be finite and differ.")
        object.__setattr__(self, "t", (start, end))
        get_method(self.method, implicit=True)
        check_positive(self.sync_every, "sync_every", integer=True)
        if not isinstance(self.compile, bool):
            raise ArgumentTypeError(f"compile={self.compile!r} must be True or False.")

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of `solve`."""
        return {name: value for name, value in vars(self).items() if name != "t"}


SOLVER_KEYWORDS = tuple(SolverOptions.__annotations__)


class LastSolve:
    """The cost of a block's last call: `status`, and every attribute of the solve's `Stats`.

    stats, status: of the solve.
    penalties: by name, what `take_penalties` hands over.

    The counts of the backward pass (nfe_backward, …) are there once it has run.
    """

    def __init__(
        self, stats: Stats, status: Status | Tensor, penalties: Mapping[str, Tensor] = MappingProxyType({})
    ):
        self.stats, self.status = stats, status
        self._penalties = dict(penalties)

    def take_penalties(self) -> dict[str, Tensor]:
        """The penalties that the settings asked for, once: kept, they would keep the solve's memory."""
        taken, self._penalties = self._penalties, {}
        return taken

    def __getattr__(self, name: str) -> Any:
        if name == "stats":  # not there yet while unpickling
            raise AttributeError(name)
        return getattr(self.stats, name)

    def __repr__(self) -> str:
        return f"LastSolve(status={self.status!r}, {self.stats!r})"


class Block(nn.Module):
    """Solves a dynamics from given start blocks over a fixed interval.

    dynamics: an `nn.Module` and `Dynamics` with ``blocks``, the names of its state's parts.
    solver: how it is solved.
    pad: channels of zeros appended to dim 1 of h0.
    ``last_stats`` is None before the first call, then a `LastSolve`.
    An unknown keyword, of the class or of a call, is an ArgumentTypeError with the nearest names.
    """

    dynamics: Any  # an nn.Module and a Dynamics; which one, and so its attributes, the class says
    interval: tuple[float, float] = (0.0, 1.0)  # t where none is given

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """The object, not yet initialised; refuses unknown settings (copying passes none)."""
        _refuse_unknown(cls.__name__, kwargs, _keywords(cls.__init__))
        return super().__new__(cls)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """`forward` with the module's hooks; refuses unknown starts."""
        _refuse_unknown(f"{type(self).__name__} block", kwargs, _keywords(self.forward))
        end: Tensor = super().__call__(*args, **kwargs)
        return end

    def __init__(self, dynamics: nn.Module, solver: SolverOptions, *, pad: int = 0):
        super().__init__()
        _refuse_unknown(type(self).__name__, solver, SOLVER_KEYWORDS)
        whole: SolverOptions = {"t": self.interval, **solver}
        settings = SolveSettings(**whole)
        check_after(dynamics, settings.t)
        self.pad = pad
        self.dynamics = dynamics
        reason = explain(dynamics).not_compiled if settings.compile else ""
        if reason:
            warnings.warn(f"compile=True does nothing here: {reason}.", AdamodeWarning, stacklevel=3)
            settings = dataclasses.replace(settings, compile=False)
        self.settings = settings
        self.last_stats: LastSolve | None = None

    def extra_repr(self) -> str:
        """Of the repr: the interval, the method, the tolerances, and what else is not as it is by default."""
        always, plain = ("t", "method", "rtol", "atol"), SolveSettings()
        return ", ".join(
            f"{name}={value!r}"
            for name, value in vars(self.settings).items()
            if name in always or value != getattr(plain, name)
        )

    @property
    def field(self) -> nn.Module:
        """The network f(t, h)."""
        network: nn.Module = self.dynamics.field
        return network

    def end(self, h0: Tensor, **start: Tensor | None) -> Tensor:
        """h(T) from h(t0) and the other blocks' starts, zeros where None."""
        times = torch.tensor(self.settings.t, dtype=torch.float64, device=check_start(h0).device)
        return self._solve(h0, start, times).y[-1, 0]

    def path(
        self,
        h0: Tensor,
        t: Tensor,
        *,
        step_at: Tensor | None = None,
        max_steps: int = MAX_STEPS,
        **start: Tensor | None,
    ) -> dict[str, Tensor]:
        """Every block at the times t, [T]: {"h": [T, B, C, …], …}. The start is at t[0].

        step_at: times that steps must hit, such as kinks of an input signal.
        max_steps: attempts.
        """
        y = self._solve(h0, start, t, step_at=step_at, max_steps=max_steps).y
        return {name: y[:, k] for k, name in enumerate(self.dynamics.blocks)}

    def driven(self, signal: Signal) -> Block:
        """This block with its `Driven` field under ``signal``; the parameters are shared, not copied."""
        if not isinstance(self.field, Driven):
            raise ArgumentTypeError(
                f"the block's field is a {type(self.field).__name__}; an input signal needs a Driven one."
            )
        dynamics = _with_part(self.dynamics, field=self.field.with_signal(signal))
        other: Block = _with_part(self, dynamics=dynamics)
        return other

    def state(self, h0: Tensor, **start: Tensor | None) -> Tensor:
        """The solver's state at the start, [block, B, C, …]: h0 with its padding, then the other blocks.

        Raises: ArgumentError, ArgumentTypeError where shapes, dtypes or devices do not fit.
        """
        h0 = padded(check_start(h0), self.pad)
        self._check(h0, start)
        return stacked(h0, [start.get(name) for name in self.dynamics.blocks[1:]])

    def _solve(self, h0: Tensor, start: dict[str, Tensor | None], t: Tensor, **more: Any) -> Solution[Tensor]:
        z0, spent = self.state(h0, **start), 0
        if isinstance(self.field, AutogradField) and self.field.open and isinstance(t, Tensor) and t.numel():
            seen = torch.cat(tuple(z0), dim=1) if self.field.joined > 1 else z0[0]
            spent = self.field.discover(as_time(float(t.flatten()[0]), z0[0]), seen)  # host read
        solution = solve(self.dynamics, z0, t, **more, **self.settings.arguments())
        solution.stats.nfe += spent
        told: dict[str, Tensor] = {name: solution.penalty(name) for name in self.settings.penalties}
        self.last_stats = LastSolve(solution.stats, solution.status, told)
        return solution

    def _check(self, h0: Tensor, start: dict[str, Tensor | None]) -> None:
        """Shapes and dtypes, before anything is evaluated."""
        check_start(h0)
        for block, value in start.items():
            if value is None:
                continue
            if not isinstance(value, Tensor):
                raise ArgumentTypeError(f"{block}0 is a {type(value).__name__}; give a tensor like h0.")
            if (value.shape, value.dtype, value.device) != (h0.shape, h0.dtype, h0.device):
                raise ArgumentError(
                    f"{block}0 is {tuple(value.shape)} of {value.dtype} on {value.device}; it must be like "
                    f"h0, {tuple(h0.shape)} of {h0.dtype} on {h0.device}."
                )
        self._check_channels(h0)
        p = next(iter(self.parameters()), None)
        if p is not None and p.device != h0.device:
            raise ArgumentError(f"h0 is on {h0.device}, the block on {p.device}: block.to(h0.device).")
        if p is not None and p.dtype != h0.dtype and h0.is_floating_point():
            raise ArgumentError(
                f"h0 has dtype {h0.dtype} and the block's parameters {p.dtype}: convert one of them, "
                f"say h0.to({p.dtype})."
            )

    def _check_channels(self, h0: Tensor) -> None:
        """A hand-written field says how many channels it takes and returns; others are seen when called."""
        if not isinstance(self.field, Field) or self.field.channels_in is None:
            return
        joined = getattr(self.dynamics, "joined", 1)
        c, found = h0.shape[1], (self.field.channels_in, self.field.channels_out)
        if found != (joined * c, c):
            state = "h" if joined == 1 else "[h, v]"
            raise DynamicsError(
                f"h0 has shape {tuple(h0.shape)}, {c} channels, and the field takes {found[0]} and returns "
                f"{found[1]}; a field f(t, {state}) on this h0 takes {joined * c} and returns {c}."
            )

    def save(self, folder: str | os.PathLike[str], card: Mapping[str, Any] | None = None) -> Path:
        """Writes the block into a folder, for `adamode.load`; see `models.saving.save`."""
        return save(self, folder, card)

    def __getstate__(self) -> dict[str, Any]:
        # A copy has solved nothing yet.
        return {**self.__dict__, "last_stats": None}


def _keywords(function: Callable[..., Any]) -> tuple[str, ...] | None:
    """The names of the arguments that a method takes; None where it takes any that we do not know."""
    code = getattr(getattr(function, "__wrapped__", function), "__code__", None)
    if code is None:
        return None
    n = code.co_argcount + code.co_kwonlyargcount
    names: tuple[str, ...] = code.co_varnames[1:n]
    if code.co_flags & inspect.CO_VARKEYWORDS:
        rest = code.co_varnames[n + bool(code.co_flags & inspect.CO_VARARGS)]
        # A user's class may take more than it says; **solver: Unpack[SolverOptions] says what it takes.
        if SolverOptions.__name__ not in str(function.__annotations__.get(rest)):
            return None
        names += SOLVER_KEYWORDS
    return names


def _refuse_unknown(owner: str, given: Mapping[str, Any], known: tuple[str, ...] | None) -> None:
    for name in given:
        if known is not None and name not in known:
            raise ArgumentTypeError(f"{owner} got an unknown argument {name!r}: {nearest(name, known)}")


def _with_part(module: nn.Module, **parts: nn.Module) -> Any:
    """The module with other parts under these names; everything else is shared."""
    other = copy.copy(module)
    other.__dict__["_modules"] = {**module.__dict__["_modules"], **parts}
    return other


def check_start(h0: Any) -> Tensor:
    """h0; ArgumentTypeError unless it is a tensor, ArgumentError unless it is [B, C, …]."""
    if not isinstance(h0, Tensor):
        raise ArgumentTypeError(f"h0 is a {type(h0).__name__}; give a tensor [B, C, …].")
    if h0.ndim < 2:
        raise ArgumentError(f"h0 has shape {tuple(h0.shape)}; it must be [B, C, …].")
    return h0


class WithBlock(nn.Module):
    """A model around a ``block``."""

    block: Any  # a `Block`, or what stands in for one: the identity, fixed steps

    @property
    def last_stats(self) -> LastSolve | None:
        """The cost of the block's last solve."""
        spent: LastSolve | None = self.block.last_stats
        return spent

    def save(self, folder: str | os.PathLike[str], card: Mapping[str, Any] | None = None) -> Path:
        """Writes the model into a folder, for `adamode.load`; see `models.saving.save`."""
        return save(self, folder, card)


class IdentityBlock(nn.Module):
    """h(T) = h(t0): a model with this in its block's place shows what the block contributes.

    pad: channels of zeros that the block would append to h0.
    """

    def __init__(self, *, pad: int = 0) -> None:
        super().__init__()
        self.pad = pad
        self.last_stats = LastSolve(Stats(), Status.SUCCESS)

    def forward(self, h0: Tensor, **start: Tensor | None) -> Tensor:
        """h0 itself, padded where the block would pad it."""
        return padded(h0, self.pad)

    def driven(self, signal: Signal) -> IdentityBlock:
        """Itself: nothing is driven."""
        return self

    def path(self, h0: Tensor, t: Tensor, **given: Any) -> dict[str, Tensor]:
        """{"h"}: h0 at every time."""
        h = self(h0)
        return {"h": h.expand(len(t), *h.shape)}


def augment(h0: Tensor, p: int) -> Tensor:
    """h0 with p channels of zeros appended to dim 1.

    Raises ArgumentTypeError where p is no integer, ArgumentError where it is negative or h0 has no
    dim 1.
    """
    check_sizes(augment=p, least=0)
    if h0.ndim < 2:
        raise ArgumentError(f"h0 has shape {tuple(h0.shape)}: extra channels need a dim 1, [B, C, …].")
    zeros = h0.new_zeros((h0.shape[0], p, *h0.shape[2:]))
    return torch.cat((h0, zeros), dim=1)


def padded(h0: Tensor, pad: int) -> Tensor:
    """h0 itself, or with that many channels of zeros appended."""
    return augment(h0, pad) if pad else h0


def stacked(h0: Tensor, others: Sequence[Tensor | None]) -> Tensor:
    """The state [block, B, C, …] from h0 and the other blocks' starts, zeros where None."""
    return torch.stack((h0, *(torch.zeros_like(h0) if other is None else other for other in others)))
