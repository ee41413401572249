"""Compiled programs: `torch.compile(fullgraph=True)`, one for each purpose, shape and dtype, kept while
their owner (a dynamics) lives.

Everything that differs from step to step, from batch to batch and from solve to solve comes in as a
tensor, so nothing is compiled twice. Each program is a function with code of its own: torch counts
what it compiles by code, and gives up after eight.
"""

from __future__ import annotations

import abc
import collections
import dataclasses
import functools
import itertools
import types
import warnings
from collections.abc import Callable, Hashable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from ..errors import AdamodeWarning, first_line
from ..step.attempt import (
    RUNNING,
    Attempt,
    Clock,
    Here,
    Limits,
    MakeStages,
    Rules,
    attempt,
    clock_at,
    first_step,
    settled,
    settling,
)
from ..step.clocks import Tolerance
from ..step.controller import UNKNOWN
from ..step.runge_kutta import Field, StageBuffer, StageList, owned
from .decompositions import own_decompositions
from .saved import Recipe

Program = Callable[..., Any]
_NUMBER = itertools.count()
PATIENCE = 8  # how often an owner may change what was compiled into a program


def _inductor(graph: Any, inputs: Any) -> Any:
    """torch.compile's default backend with our decompositions."""
    from torch._inductor.compile_fx import compile_fx
    from torch._inductor.decomposition import select_decomp_table

    return compile_fx(graph, inputs, decompositions={**select_decomp_table(), **own_decompositions()})


BACKEND: Any = _inductor  # "aot_eager" traces alike, without generating code


class Programs:
    """The programs of one owner, by key.

    notes: what is known of the owner for a key.
    around: for a key what is put around its program's compiled graph.
    broken: a reason why nothing of it is compiled any more.
    """

    _all: ClassVar[Any] = WeakIdKeyDictionary()

    def __init__(self) -> None:
        self.known: dict[Hashable, Program | None] = {}
        self.notes: dict[Hashable, Any] = {}
        self.around: dict[Hashable, Callable[[Program], Program]] = {}
        self.traces: collections.Counter[Hashable] = collections.Counter()
        self.hooks: tuple[Any, ...] = ()
        self.changes, self.warned, self.broken = 0, False, False

    @classmethod
    def of(cls, owner: Any) -> Programs:
        """The owner's; made at the first call, gone with the owner. To be asked once a solve."""
        if owner not in cls._all:
            cls._all[owner] = cls()
        programs = cls._all[owner]
        programs.hooks = _hooks(owner)
        return programs

    def has(self, key: Hashable) -> bool:
        """Whether this program was compiled."""
        return self.known.get((key, self.hooks)) is not None

    def run(self, key: Hashable, make: Callable[[], Callable[..., Any]], *arguments: Any) -> Any:
        """What the program of this key returns for the arguments; None where the caller must do without.

        make: the function to compile; it must refer to the owner by its arguments alone, or the owner would
            live as long as its programs.
        None: it cannot be compiled (said once, for good); it raised (the uncompiled way raises func's own
        error, or does without); or the owner has changed since, so that notes may be out of date: all is
        forgotten, and the next solve begins anew.
        """
        full = (key, self.hooks)
        first = full not in self.known
        program = None if first else self.known[full]
        if self.broken or (program is None and not first):
            return None
        program = program or self._compiled(make, full)
        before = self.traces[full]
        try:
            found = program(*arguments)
        except Exception as error:  # dynamo, inductor and the C++ compiler raise dozens of unrelated types
            self.say(_refusal(arguments[0], error))
            if first:
                self.known[full] = None
            return None
        if not first and self.traces[full] > before:
            self._forget(arguments[0])
            return None
        self.known[full] = program
        return found

    def _compiled(self, make: Callable[[], Callable[..., Any]], full: Hashable) -> Program:
        backend = torch._dynamo.lookup_backend(BACKEND) if isinstance(BACKEND, str) else BACKEND
        traces, around = self.traces, self.around.get(full)  # torch keeps what a backend refers to

        def counted(graph: Any, inputs: Any) -> Any:
            traces[full] += 1
            found = backend(graph, inputs)
            return found if around is None else around(found)

        return torch.compile(_own_code(make()), fullgraph=True, dynamic=False, backend=counted)

    def _forget(self, owner: Any) -> None:
        """The owner is another than it was: an attribute, a mode, what requires gradients."""
        self.changes += 1
        self.known = {key: program for key, program in self.known.items() if program is None}
        self.notes.clear()
        if self.changes > PATIENCE:
            self.broken = True
            self.say(
                f"compile=True: {type(owner).__name__} has changed itself {self.changes} times, an attribute "
                "that it counts its calls with, say, and would be compiled anew each time; it is solved "
                "without compiling. Keep such numbers in a tensor, or leave compile out."
            )

    def say(self, text: str) -> None:
        """A warning, once."""
        if not self.warned or self.broken:
            warnings.warn(text, AdamodeWarning, stacklevel=4)
        self.warned = True


def _hooks(owner: Any) -> tuple[Any, ...]:
    """The forward hooks of a module and its parts: torch.compile does not look whether they have changed."""
    if not isinstance(owner, nn.Module):
        return ()
    parts = [m for m in owner.modules() if m._forward_hooks or m._forward_pre_hooks]
    return tuple((id(m), tuple(m._forward_pre_hooks), tuple(m._forward_hooks)) for m in parts)


def _own_code(function: Callable[..., Any]) -> Callable[..., Any]:
    code = function.__code__.replace(co_name=f"{function.__name__}_{next(_NUMBER)}")
    return types.FunctionType(
        code, function.__globals__, code.co_name, function.__defaults__, function.__closure__
    )


def _refusal(owner: Any, error: Exception) -> str:
    return (
        f"compile=True: {type(owner).__name__} cannot be compiled ({type(error).__name__}: "
        f"{first_line(error)}); it is solved without compiling. Use tensor operations only in func, without "
        ".item() and branches on values, or leave compile out."
    )


def signature(*tensors: Tensor | None) -> tuple[Hashable, ...]:
    """What a program is compiled for: shape, strides, dtype and device of each tensor."""
    return tuple(None if x is None else (tuple(x.shape), x.stride(), x.dtype, x.device) for x in tensors)


State = tuple[Tensor, ...]  # what a loop carries


class Bounds(NamedTuple):
    """limits: of one clock a float64 vector [stop, direction, least step], of a clock a sample the three
    tensors (end, direction, least step).
    rtol, atol: in the state's dtype."""

    limits: Any
    rtol: Tensor
    atol: Tensor


class Row(NamedTuple):
    """One attempt of one clock as a float64 vector, so that one read tells the host everything.

    The first are those of `Clock`, as the attempt left them; t0, t1: it went from t0 to t1; ratio: its
    error ratio; tried, accepted, finite: 0 or 1; asked: |dt| before it.
    """

    t: float
    dt: float
    e1: float
    e2: float
    after_rejection: float
    non_finite: float
    unsolved: float
    status: float
    n_accepted: float
    n_rejected: float
    n_unsolved: float
    t0: float
    t1: float
    ratio: float
    tried: float
    accepted: float
    finite: float
    asked: float


STATUS = Row._fields.index("status")
WIDTH = len(Row._fields) - len(Clock._fields)


def clock_of(row: Tensor) -> Clock:
    """The clock in a row."""
    t, dt, e1, e2, after, bad, unsolved, *numbers = row[: len(Clock._fields)].unbind()
    return Clock(t, dt, e1, e2, after > 0, bad > 0, unsolved > 0, *numbers)


def row_at(t: float, dt: float) -> list[float]:
    """The row of a clock at its start, of numbers that the host has."""
    start = {"t": t, "dt": dt, "e1": UNKNOWN, "e2": UNKNOWN, "status": float(RUNNING)}
    return [start.get(name, 0.0) for name in Row._fields]


def row_of(clock: Clock, *attempted: Tensor) -> Tensor:
    """A clock and what is told of its last attempt (nothing at the start), as a row."""
    told = attempted or [torch.zeros_like(clock.t)] * WIDTH
    return torch.stack([x if x.dtype == torch.float64 else x.double() for x in (*clock, *told)])


class Made(NamedTuple):
    """After one attempt of one clock: the row, y and f(t, y); the attempt itself; and the states that its
    stages were evaluated at (the first left out)."""

    row: Tensor
    y: Tensor
    k: Tensor
    tried: Attempt
    states: list[Tensor]


def attempt_row(rules: Rules, field: Field, bounds: Bounds, state: State, make_stages: MakeStages) -> Made:
    """One attempt of one clock, from (row, y, k)."""
    row, y, k = state
    stop, direction, least = bounds.limits.unbind()
    limits = Limits(stop, stop, direction, least)
    states: list[Tensor] = []

    def watched(time: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        states.append(z)
        return field(time, z)

    tolerance, here = Tolerance(bounds.rtol, bounds.atol), Here(clock_of(row), y, k)
    made, (clock, y, k) = attempt(rules, watched, limits, tolerance, here, make_stages)
    told = (made.t0, made.t1, made.error_ratio, made.tried, made.accepted, made.finite, made.asked)
    return Made(row_of(clock, *told), y, k, made, states)


def stacked_stages(rules: Rules, made: Made) -> Tensor:
    """The stages in one tensor, with room for those that only a dense output needs."""
    stages = made.tried.result.stages
    if isinstance(stages, StageBuffer):
        return stages.k
    n, more = rules.tableau.n_stages, len(rules.tableau.c_dense)
    return torch.stack([stages.get(i) for i in range(n)] + [torch.zeros_like(stages.get(0))] * more)


def loops_in_graph(y: Tensor) -> bool:
    """Whether a loop's condition costs nothing to read."""
    return y.device.type == "cpu"


def begin_program(rules: Rules, calls: Any) -> Any:
    """(owner, [t0, end], y, rtol, atol) → (row, f(t0, y0)) to begin with, the step by Hairer's estimate."""

    def begin_once(owner: Any, ends: Tensor, y: Tensor, rtol: Tensor, atol: Tensor) -> Any:
        field = functools.partial(calls.evaluate, owner)
        t0, end = ends.unbind()
        k = settled(owned(field)(t0.to(y.dtype), y)[0])
        clock = clock_at(t0, torch.zeros_like(t0))
        limits = Limits(end, end, torch.sign(end - t0), torch.zeros_like(t0))
        dt = first_step(rules, field, limits, Tolerance(rtol, atol), (t0, y, k))
        return row_of(clock._replace(dt=dt.clamp(max=rules.controller.dt_max))), k

    return begin_once


def single_program(rules: Rules, calls: Any, recipe: Recipe | None, with_stages: bool) -> Any:
    """(owner, bounds, state) → one attempt; with a recipe what its stages saved, too."""

    def attempt_once(owner: Any, bounds: Bounds, state: State) -> Any:
        field = settling(functools.partial(calls.evaluate, owner))
        made = attempt_row(rules, field, bounds, state, functools.partial(StageList, rules.numeric))
        states, times, lean = [], [], []
        if recipe is not None:
            states, times = made.states, made.tried.times[1:]
            lean = [recipe.lean(saved) for saved in made.tried.result.saved[1:]]
        every = stacked_stages(rules, made) if with_stages else None
        return made.row, made.y, made.k, made.tried.result.y1, every, states, times, lean

    return attempt_once


@dataclasses.dataclass(frozen=True)
class Form(abc.ABC):
    """What a loop over attempts carries, and what it hands out."""

    rules: Rules

    @abc.abstractmethod
    def once(self, field: Field, bounds: Bounds, state: State) -> State:
        """The state after one attempt."""

    @abc.abstractmethod
    def goes_on(self, state: State) -> Tensor:
        """Whether some clock is under way."""


@dataclasses.dataclass(frozen=True)
class Rows(Form):
    """One clock: (row, y, k), and with_stages all k_i; every state on the way is handed out."""

    with_stages: bool

    def once(self, field: Field, bounds: Bounds, state: State) -> State:
        """As `attempt_row`."""
        make = functools.partial(StageList, self.rules.numeric)
        made = attempt_row(self.rules, field, bounds, state[:3], make)
        every = (stacked_stages(self.rules, made),) if self.with_stages else ()
        return made.row, made.y, made.k, *every

    @property
    def n_stages(self) -> int:
        """Of those handed out with_stages, with room for those of a dense output."""
        return len(self.rules.tableau.rows())

    def goes_on(self, state: State) -> Tensor:
        """Of the one clock."""
        return state[0][STATUS] == RUNNING


def several_program(form: Form, calls: Any, n: int | None) -> Any:
    """(owner, most, bounds, state) → the states after each attempt, stacked, or the last, as the form says.

    n: attempts, one written out after another; None: up to `most` of them as a loop in the graph, which ends
        when no clock is under way.
    """
    stacked = isinstance(form, Rows)
    from torch._higher_order_ops.while_loop import while_loop, while_loop_stack_output_op

    def attempt_many(owner: Any, most: Tensor, bounds: Bounds, state: State) -> Any:
        field = settling(functools.partial(calls.evaluate, owner))

        def body(i: Tensor, *state: Tensor) -> Any:
            return (i + 1, *(x.clone() for x in form.once(field, bounds, state)))

        def goes_on(i: Tensor, *state: Tensor) -> Tensor:
            return ((i < most) & form.goes_on(state)).all()

        if n is None:
            start = (torch.zeros((), dtype=torch.int64, device=most.device), *(x.clone() for x in state))
            if stacked:
                stack: Any = while_loop_stack_output_op  # typed for one tensor
                return stack(goes_on, body, start, ())[1:]
            return while_loop(goes_on, body, start)[1:]
        made = []
        for _ in range(n):
            state = tuple(settled(x) for x in form.once(field, bounds, state))
            made.append(state)
        return [torch.stack(column) for column in zip(*made, strict=True)] if stacked else list(state)

    return attempt_many
