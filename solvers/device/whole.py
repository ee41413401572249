"""A whole solve as one function of tensors, its loop in the graph: exported and compiled once, it is one
native call without a look of the host between its attempts.

What the loop records (attempts, states, outputs) it writes in place into memory that it is given. Where that
is used up it ends; the host gives another piece and calls again from where it stood.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..methods.tableau import polynomial
from ..step.attempt import (
    RUNNING,
    SUCCESS,
    Limits,
    Rules,
    clock_at,
    first_step,
    least_of_span,
    settling,
)
from ..step.clocks import Tolerance
from ..step.runge_kutta import Field, StageList, owned
from .programs import STATUS, Bounds, Made, Row, attempt_row, row_of, stacked_stages
from .saved import Recipe

ACCEPTED, DT, RATIO, T0, T1 = map(Row._fields.index, ("accepted", "dt", "ratio", "t0", "t1"))
TOLD = ("n_kept", "n_made", "all_arrived", "some_go_on")  # before the first clock's row
PIECE = 2**26  # bytes that a piece of memory holds at most; pages not written to cost nothing
LONGEST = 128  # attempts that one holds at most


def room(size: int) -> int:
    """How many attempts of `size` bytes each a piece of memory holds."""
    return min(max(PIECE // max(size, 1), 4), LONGEST)


def loop(goes_on: Callable[..., Tensor], body: Callable[..., Any], state: tuple[Tensor, ...]) -> Any:
    """while goes_on(*state): state = body(*state); in a graph as one operation.

    Nothing that either function captures may be a view made in the graph: the native code frees it twice.
    """
    if torch.compiler.is_compiling():
        from torch._higher_order_ops.while_loop import while_loop

        return while_loop(goes_on, body, tuple(x.clone() for x in state))
    while bool(goes_on(*state)):
        state = body(*state)
    return state


class Start(NamedTuple):
    """Of each clock: ends [2, …] (start and end of the solve, float64) and dt0 […] (NaN: Hairer's estimate).
    rtol, atol: in the state's dtype.  most: [1] attempts at most.
    times: [T, lanes], of the outputs; NaN for one that is none."""

    ends: Tensor
    dt0: Tensor
    rtol: Tensor
    atol: Tensor
    most: Tensor
    times: Tensor


class Stand(NamedTuple):
    """Where a solve stands between two calls.

    under_way: 0-d bool; False: it has not begun, and the rest says nothing.
    row: of the last attempt of each clock.  y: the state.  k: f(t, y).
    place: of each clock, the output that comes next.
    """

    under_way: Tensor
    row: Tensor
    y: Tensor
    k: Tensor
    place: Tensor


class Memory(NamedTuple):
    """What a solve writes into.

    rows [n, width, …], ys [n, *S], ks [n, *S]: each attempt that was accepted, and where it began; empty
        where nothing is recorded.
    out [T + 1, *S]: the states at the times; the last row is for what is none.
    slopes: f there, of the same form, or empty; one row, f at the start, where no outputs lie before the end.
    stages [n, s, *S]: the k_i of each attempt that was accepted, or empty.
    states [n (s − 1), *S]: where its stages after the first were evaluated, or empty.
    kept: of each leaf that a stage keeps, [n (s − 1), …].
    """

    rows: Tensor
    ys: Tensor
    ks: Tensor
    out: Tensor
    slopes: Tensor
    stages: Tensor
    states: Tensor
    kept: tuple[Tensor, ...]


@dataclasses.dataclass(frozen=True)
class Form:
    """What a whole solve depends on besides tensors.

    estimated: the first step is Hairer's estimate.
    recorded: attempts are kept for a way back.
    inside: outputs before the end are wanted.
    slopes: and f at each.
    dense: the stages are kept with the attempts.
    recipe: what the field saves at each stage is kept with them, and how it is made whole; None: it is not.
    """

    rules: Rules
    estimated: bool = True
    recorded: bool = False
    inside: bool = False
    slopes: bool = False
    dense: bool = False
    recipe: Recipe | None = None


@dataclasses.dataclass(frozen=True)
class Outputs:
    """Where the outputs of a whole solve go.

    times: as in `Start`.
    """

    form: Form
    times: Tensor
    memory: Memory

    def written(self, ends: Tensor, states: Sequence[Tensor], place: Tensor) -> Tensor:
        """Outputs in a step, one of each clock a turn; the places that come next.

        ends: [4, …], of each clock t0, t1, the direction of time, 1 where the step was accepted; in memory of
            its own, for of what a loop captures a view of the same form is freed twice.
        states: y0, y1, all stages.
        """
        times, memory, rules = self.times, self.memory, self.form.rules
        clocks, last = rules.clocks, rules.tableau.n_stages - 1
        every = torch.stack(tuple(states))

        def due(place: Tensor) -> tuple[Tensor, ...]:
            t0, t1, direction, fine = ends.reshape(len(ends), -1).unbind()
            t = times.gather(0, place.clamp(max=len(times) - 1)[None])[0]
            now = (fine > 0) & (place < len(times)) & ((t1 - t) * direction >= 0)
            theta = torch.where(now & (t != t1), (t - t0) / (t1 - t0), 1.0)
            return now, theta.reshape(ends[0].shape)

        def goes_on(place: Tensor) -> Tensor:
            return due(place)[0].any()

        def once(place: Tensor) -> tuple[Tensor]:
            (now, theta), (y0, y1, *stages) = due(place), every.unbind()
            there = torch.where(now, place, len(times))
            dt = clocks.spread(ends[1] - ends[0]).to(y0.dtype)

            def store(out: Tensor, rows: Any, end: Tensor, y: Tensor | None) -> None:
                own = [clocks.spread(polynomial(row, theta).to(y0.dtype)) for row in rows]
                first, *others = (w * k for w, k in zip(own, stages, strict=True))
                total = sum(others, first)
                value = total if y is None else y + dt * total
                clocks.store(out, there, clocks.choose(theta == 1.0, end, value))

            store(memory.out, rules.numeric.dense_rows, y1, y0)
            if self.form.slopes:
                store(memory.slopes, rules.numeric.slope_rows, stages[last], None)
            return (torch.where(now, place + 1, place),)

        return loop(goes_on, once, (place,))[0]


class Turn(NamedTuple):
    """Where the loop over attempts stands: as `Stand`; attempts kept and made so far in this call, [1]."""

    row: Tensor
    y: Tensor
    k: Tensor
    place: Tensor
    n: Tensor
    made: Tensor


@dataclasses.dataclass(frozen=True)
class Whole:
    """The loop over all attempts of a solve: what its two functions close over.

    bounds: of each clock.
    """

    form: Form
    field: Field
    bounds: Bounds
    start: Start
    memory: Memory

    def goes_on(self, *state: Tensor) -> Tensor:
        """Whether some clock is under way, and there is room for what one more attempt leaves."""
        turn = Turn(*state)
        goes = (turn.row[STATUS] == RUNNING).any() & (turn.made < self.start.most)
        return (goes & (turn.n < len(self.memory.rows)) if self.form.recorded else goes).all()

    def once(self, *state: Tensor) -> Turn:
        """One attempt of every clock, recorded in place; a rejected one is overwritten by the next."""
        form, memory, (row, y, k, place, n, made) = self.form, self.memory, state
        make = functools.partial(StageList, form.rules.numeric)
        found = attempt_row(form.rules, self.field, self.bounds, (row, y, k), make)
        accepted = found.row[ACCEPTED] > 0
        if form.recorded:
            for kept, value in ((memory.rows, found.row), (memory.ys, y), (memory.ks, k)):
                kept.index_copy_(0, n, value[None])
            if form.dense:
                memory.stages.index_copy_(0, n, stacked_stages(form.rules, found)[None])
            if form.recipe is not None:
                self._keep(form.recipe, n * len(found.states), found)
            n = n + accepted.any()
        if form.inside:
            tried, times = found.tried, self.start.times
            ends = torch.stack((found.row[T0], found.row[T1], self.bounds.limits[1], accepted.double()))
            states = (tried.y0, tried.result.y1, *stacked_stages(form.rules, found).unbind())
            place = Outputs(form, times, memory).written(ends, states, place)
        return Turn(found.row, found.y, found.k, place.clone(), n.clone(), made + 1)

    def _keep(self, recipe: Recipe, begin: Tensor, found: Made) -> None:
        """What a way back wants of each stage after the first."""
        memory = self.memory
        for i, (state, saved) in enumerate(zip(found.states, found.tried.result.saved[1:], strict=True)):
            lean = recipe.lean(saved)
            for kept, value in zip((memory.states, *memory.kept), (state, *lean), strict=True):
                kept.index_copy_(0, begin + i, value[None])


def solve_program(form: Form, calls: Any) -> Any:
    """(owner, start, stand, memory) → [told, row, y, k, place as in `Stand`, |dt| of the first attempt]

    told: float64 [len(TOLD) + width], the numbers of `TOLD` and the first clock's row.
    """
    rules = form.rules

    def solve_whole(owner: Any, start: Start, stand: Stand, memory: Memory) -> list[Tensor]:
        field = functools.partial(calls.evaluate, owner)
        t0, end = (x.clone() for x in start.ends.unbind())
        direction = torch.where(end < t0, -1.0, torch.ones_like(t0))
        least = least_of_span((end - t0).abs())
        bounds = Bounds(torch.stack((end, direction, least)), start.rtol, start.atol)

        def begun(new: Tensor, row: Tensor, k: Tensor, place: Tensor) -> Any:
            k = owned(field)(rules.clocks.time(t0, stand.y), stand.y)[0]
            if form.slopes:
                memory.slopes.index_copy_(0, torch.zeros_like(start.most), k[None])
            dt = start.dt0
            if form.estimated:
                limits = Limits(end, end, direction, least)
                dt = first_step(rules, field, limits, Tolerance(start.rtol, start.atol), (t0, stand.y, k))
            clock = clock_at(t0, dt.clamp(max=rules.controller.dt_max))
            row = row_of(clock.marked(t0 == end, SUCCESS))
            return torch.zeros_like(new), row, k, torch.ones_like(place)

        # A loop of one turn or none: torch.cond takes the copies that it asks for for views.
        given = (~stand.under_way, stand.row, stand.k, stand.place)
        _, row, k, place = loop(lambda new, *_: new.all(), begun, given)
        whole, none = Whole(form, settling(field), bounds, start, memory), torch.zeros_like(start.most)
        done = Turn(*loop(whole.goes_on, whole.once, (row, stand.y, k, place, none, none.clone())))
        status = done.row[STATUS]
        flags = torch.stack(((status == SUCCESS).all(), (status == RUNNING).any())).double()
        own = done.row.reshape(len(done.row), -1)[:, 0]
        told = torch.cat((done.n.double(), done.made.double(), flags, own))
        return [told, done.row, done.y, done.k, done.place, row[DT].clone()]

    return solve_whole


@functools.lru_cache(maxsize=256)
def form_key(form: Form) -> str:
    """What tells forms apart, the same in every process."""
    rules, tableau = form.rules, form.rules.tableau
    numbers = tuple(getattr(tableau, field.name) for field in dataclasses.fields(tableau))
    norm = getattr(rules.norm, "__name__", "")
    own: tuple[Any, ...] = (form.estimated, form.recorded, form.inside, form.slopes, form.dense, rules.fixed)
    own = own if form.recipe is None else (*own, form.recipe.key)
    return repr((numbers, rules.controller, norm, rules.clocks, own))
