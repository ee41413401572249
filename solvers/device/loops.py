"""What `queue` compiles: the beginning of a solve, one attempt, or several in one call.

Each maker returns a function of an owner and tensors; `calls.evaluate(owner, t, z)` is its field.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..step.attempt import (
    RUNNING,
    Clock,
    Here,
    Limits,
    MakeStages,
    Rules,
    attempt,
    clock_at,
    first_step,
    least_of_span,
    settled,
    settling,
)
from ..step.clocks import Tolerance
from ..step.runge_kutta import Field, StageBuffer, StageList, owned
from .saved import Recipe

State = tuple[Tensor, ...]  # what a loop carries


class Bounds(NamedTuple):
    """limits: of one clock a float64 vector [stop, direction, span], of a clock a sample the three
    tensors (end, direction, least step).  rtol, atol: in the state's dtype."""

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
    status: float
    n_accepted: float
    n_rejected: float
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
    t, dt, e1, e2, after, bad, status, n_accepted, n_rejected = row[: len(Clock._fields)].unbind()
    return Clock(t, dt, e1, e2, after > 0, bad > 0, status, n_accepted, n_rejected)


def row_of(clock: Clock, *attempted: Tensor) -> Tensor:
    """A clock and what is told of its last attempt (nothing at the start), as a row."""
    told = attempted or [torch.zeros_like(clock.t)] * WIDTH
    return torch.stack([x.double() for x in (*clock, *told)])


class Made(NamedTuple):
    """After one attempt of one clock: the row, y and f(t, y); and of the attempt itself y1, its stages, the
    states that they were evaluated at, and what the field saved there (the first stage left out)."""

    row: Tensor
    y: Tensor
    k: Tensor
    y1: Tensor
    stages: StageBuffer | StageList
    times: list[Tensor]
    states: list[Tensor]
    saved: list[Any]


def attempt_row(rules: Rules, field: Field, bounds: Bounds, state: State, make_stages: MakeStages) -> Made:
    """One attempt of one clock, from (row, y, k)."""
    row, y, k = state
    stop, direction, span = bounds.limits.unbind()
    limits = Limits(stop, stop, direction, least_of_span(span))
    states: list[Tensor] = []

    def watched(time: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        states.append(z)
        return field(time, z)

    tolerance, here = Tolerance(bounds.rtol, bounds.atol), Here(clock_of(row), y, k)
    made, (clock, y, k) = attempt(rules, watched, limits, tolerance, here, make_stages)
    told = (made.t0, made.t1, made.error_ratio, made.tried, made.accepted, made.finite, made.asked)
    result = made.result
    after = row_of(clock, *told)
    return Made(after, y, k, result.y1, result.stages, made.times[1:], states, result.saved[1:])


def stacked_stages(rules: Rules, stages: StageBuffer | StageList) -> Tensor:
    """The stages in one tensor, with room for those that only a dense output needs."""
    if isinstance(stages, StageBuffer):
        return stages.k
    n, more = rules.tableau.n_stages, len(rules.tableau.c_dense)
    return torch.stack([stages.get(i) for i in range(n)] + [torch.zeros_like(stages.get(0))] * more)


def begin(rules: Rules, field: Field, ends: Tensor, y: Tensor, tolerance: Tolerance) -> State:
    """(row, f(t0, y0)) to begin with, the step by Hairer's estimate. ends: float64 [t0, end]."""
    t0, end = ends.unbind()
    k = settled(owned(field)(t0.to(y.dtype), y)[0])
    clock = clock_at(t0, torch.zeros_like(t0))
    limits = Limits(end, end, torch.sign(end - t0), torch.zeros_like(t0))
    dt = first_step(rules, field, limits, tolerance, Here(clock, y, k))
    return row_of(clock._replace(dt=dt.clamp(max=rules.controller.dt_max))), k


def loops_in_graph(y: Tensor) -> bool:
    """Whether a loop's condition costs nothing to read."""
    return y.device.type == "cpu"


def begin_program(rules: Rules, calls: Any) -> Any:
    """(owner, [t0, end], y, rtol, atol) → `begin`'s."""

    def begin_once(owner: Any, ends: Tensor, y: Tensor, rtol: Tensor, atol: Tensor) -> Any:
        return begin(rules, functools.partial(calls.evaluate, owner), ends, y, Tolerance(rtol, atol))

    return begin_once


def single_program(rules: Rules, calls: Any, recipe: Recipe | None, with_stages: bool) -> Any:
    """(owner, bounds, state) → one attempt; with a recipe what its stages saved, too."""

    def attempt_once(owner: Any, bounds: Bounds, state: State) -> Any:
        field = settling(functools.partial(calls.evaluate, owner))
        made = attempt_row(rules, field, bounds, state, functools.partial(StageList, rules.numeric))
        states, times, lean = [], [], []
        if recipe is not None:
            states, lean, times = made.states, [recipe.lean(saved) for saved in made.saved], made.times
        every = stacked_stages(rules, made.stages) if with_stages else None
        return made.row, made.y, made.k, made.y1, every, states, times, lean

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
        every = (stacked_stages(self.rules, made.stages),) if self.with_stages else ()
        return made.row, made.y, made.k, *every

    def goes_on(self, state: State) -> Tensor:
        """Of the one clock."""
        return state[0][STATUS] == RUNNING


@dataclasses.dataclass(frozen=True)
class Samples(Form):
    """A clock a sample: (attempts made, the clock's tensors, y, k); the last state is handed out."""

    def once(self, field: Field, bounds: Bounds, state: State) -> State:
        """As `attempt`."""
        made, *clock, y, k = state
        end, direction, least = bounds.limits
        limits, tolerance = Limits(end, end, direction, least), Tolerance(bounds.rtol, bounds.atol)
        here, make = Here(Clock(*clock), y, k), functools.partial(StageList, self.rules.numeric)
        _, (after, y, k) = attempt(self.rules, field, limits, tolerance, here, make)
        return made + 1, *after, y, k

    def goes_on(self, state: State) -> Tensor:
        """Of any sample."""
        return (state[1 + Clock._fields.index("status")] == RUNNING).any()


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
