"""Marches whose attempts decide for themselves (`step.attempt`): the host looks once for several of them.

Three ways to make them, one result. Eager: n attempts are queued one after another. Compiled, n = 1: an
attempt is one compiled call. Compiled, n > 1: the loop itself is in the compiled graph. On the CPU it is a
`while_loop` and ends when the stop is reached, so nothing is attempted in vain; elsewhere each turn of that
would be a read of the host, so the n attempts stand one after another: in a CUDA graph of one compiled
attempt (`captured`), or written out in the program.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..march.host import OnAccept, OnAttempt, Outcome, RungeKuttaStepper, Stop
from ..march.output import Step, stage_times
from ..methods.tableau import Tableau
from ..stats import Stats
from ..status import Status
from ..step.attempt import RUNNING, SUCCESS, Rules
from ..step.clocks import sent
from ..step.field import CountedField
from ..step.runge_kutta import Evaluation, Field, StageBuffer, StepResult, regular, rk_step, with_strides
from .captured import several
from .programs import (
    STATUS,
    WIDTH,
    Bounds,
    Programs,
    Row,
    Rows,
    attempt_row,
    begin_program,
    loops_in_graph,
    row_at,
    several_program,
    signature,
    single_program,
    stacked_stages,
)
from .saved import KeptStages, Recipe, recipe_of


@dataclasses.dataclass(frozen=True)
class Queue:
    """How a solve queues its attempts.

    sync_every: attempts between two looks of the host.
    owner: a dynamics to compile (None: eager), and
    calls: how a program evaluates it, evaluate(owner, t, z) → (dz, saved).
    keep: what the field saves at each stage is wanted (compiled, n > 1: it never is).
    keep_first: so is what it saves at the very first.
    with_stages: the k_i are wanted (outputs inside steps, dense output, a trace).
    recorded: a gradient is wanted.
    """

    sync_every: int = 1
    owner: Any = None
    calls: Any = None
    keep: bool = False
    keep_first: bool = False
    with_stages: bool = False
    recorded: bool = False


class QueuedStep(Step):
    """A `Step` made of what the device recorded; its stages' times are made when asked for."""

    @property
    def times(self) -> list[Tensor]:
        """Of the stages, 0-d."""
        return stage_times(self.t0, self.t1, self.tableau, self.y0)

    @times.setter
    def times(self, value: list[Tensor]) -> None:
        """Nothing: they follow from t0 and t1."""


@dataclasses.dataclass
class Record:
    """What one attempt left: before (y, k) and after (y1, k1), the k_i and what was saved, if wanted."""

    y0: Tensor
    k0: Tensor
    y1: Tensor
    k1: Tensor
    stages: Tensor | None = None
    saved: Any = None


Attempts = tuple[Tensor, list[Row], list[Record]]  # the row after them, and each one's row and record


class QueuedMarch:
    """The attempts of one solve with one clock.

    stepper: holds the state, its first stage, the tolerance and the field.
    """

    def __init__(self, stepper: RungeKuttaStepper, rules: Rules, queue: Queue, stats: Stats):
        assert stepper.judge is not None
        self.stepper, self.rules, self.queue, self.stats = stepper, rules, queue, stats
        self.y = regular(stepper.y)
        self.first: Evaluation | None = None
        self.chained = False
        self.before: Any = None
        self.rtol, self.atol = stepper.judge.tolerance.tensors(self.y)
        self.owner = queue.owner
        self.programs = None if self.owner is None else Programs.of(self.owner)
        self.recipe: Recipe | None = None

    def _begin(self, t0: float, end: float, dt0: float | None) -> Tensor:
        """The first evaluation and the first step; the row to begin with.

        The first time it is not compiled: what func returns is checked, and told apart (`recipe_of`).
        """
        stepper, found = self.stepper, None
        # In the first solve with a gradient func's parameters are looked for, uncompiled.
        key = ("begin", self.rules, self.queue.recorded, signature(self.y, self.rtol, self.atol))
        programs = self.programs
        compiled = dt0 is None and not self.queue.keep_first
        if programs is not None and compiled:
            arguments = (self.owner, sent([t0, end], self.y.device), self.y, self.rtol, self.atol)
            make = functools.partial(begin_program, self.rules, self.queue.calls)
            if programs.has(key) and key in programs.notes:
                self.recipe = programs.notes[key]
                with torch.no_grad():
                    found = programs.run(key, make, *arguments)
        if found is not None:
            row, self.k = found
            self.stats.nfe += 2
        else:
            stepper.restart(t0)
            assert stepper.first is not None
            self.first = stepper.first
            dt0 = stepper.initial_step(t0, end) if dt0 is None else dt0
            self.k = with_strides(self.first[0], self.y.stride())
            dt0 = min(dt0, self.rules.controller.dt_max)
            row = sent(row_at(t0, dt0), self.y.device)
            if programs is not None:
                assert stepper.first_time is not None
                self.recipe = programs.notes[key] = recipe_of(self.first[1], stepper.first_time, self.y)
                if compiled and not programs.has(key):
                    with torch.no_grad():
                        programs.run(key, make, *arguments)  # for the next time
        if self.queue.keep_first and self.recipe is None:
            self.programs = None  # what is wanted cannot leave a program
        if not (self.queue.keep and self.queue.sync_every == 1):
            self.recipe = None
        return row

    def march(
        self,
        dt0: float | None,
        t0: float,
        stops: Sequence[Stop],
        max_steps: int,
        on_accept: OnAccept,
        on_attempt: OnAttempt,
    ) -> Outcome:
        """Steps from t0 over all stops to the last: as `host.march`. dt0: None for Hairer's."""
        end = stops[-1].t
        direction = math.copysign(1.0, end - t0)
        span = abs(end - t0) if math.isfinite(end) else 0.0
        least = 1e-20 * min(span, 1.0)  # as `least_of_span`
        state = self._begin(t0, end, dt0)
        t, dt = t0, math.nan
        for stop in stops:
            bounds = Bounds(sent([stop.t, direction, least], self.y.device), self.rtol, self.atol)
            if stop is not stops[0]:  # under way again, and nothing tried yet
                under_way = sent([float(RUNNING)] + [0.0] * (WIDTH + 2), self.y.device)
                state = torch.cat((state[:STATUS], under_way))
            status = RUNNING
            while status == RUNNING:
                room = min(self.queue.sync_every, max_steps - self.stats.n_accepted - self.stats.n_rejected)
                if room <= 0:
                    return Outcome(Status.MAX_STEPS, t, dt)
                state, rows, records = self._attempts(bounds, state, room)
                if math.isnan(dt):
                    self.stats.dt_first = rows[0].asked
                for row, record in zip(rows, records, strict=True):
                    t, dt, status = row.t, row.dt, int(row.status)
                    assert row.tried or status != RUNNING, row
                    if row.tried and self._tell(row, record, on_accept, on_attempt):
                        return Outcome(Status.EVENT, t, dt)
                    if status != RUNNING:
                        break
            if status != SUCCESS:  # too short a step to try, or stuck after one that was
                return Outcome(Status(status), t, abs(row.t1 - t) if row.tried else dt)
        return Outcome(Status.SUCCESS, t, dt)

    def _tell(self, row: Row, record: Record, on_accept: OnAccept, on_attempt: OnAttempt) -> bool | None:
        """Counts an attempt and hands it to those who listen."""
        if row.accepted:
            self.stats.n_accepted += 1
        else:
            self.stats.n_rejected += 1
        step = self._step(row, record)
        on_attempt(step, bool(row.accepted), row.dt)
        if not row.accepted:
            return None
        if record.saved is not None:
            self.before = record.saved.end()
        over = on_accept(step)
        self.stepper.y, self.stepper.first = record.y1, (record.k1, None)
        self.chained = True
        return over

    def _step(self, row: Row, record: Record) -> QueuedStep:
        tableau, field = self.rules.tableau, self.stepper.field
        bare = field.field if isinstance(field, CountedField) else field
        stages: Any = _LateStages(bare, tableau, record, row.t0, row.t1)
        if record.stages is not None:
            numeric = self.stepper.numeric
            stages = StageBuffer(numeric, record.y0, row.t1 - row.t0, record.stages)
            stages.count = tableau.n_stages
        own = None if self.first is None else self.first[1]
        saved = _Saved([None] * tableau.n_stages) if record.saved is None else record.saved
        saved.begin(self.before if self.chained else own)
        return QueuedStep(
            *(row.t0, row.t1, record.y0, StepResult(record.y1, stages, saved), tableau, field),
            *(self.chained, [], row.ratio, bool(row.finite)),
            plain=True,
            k0=record.k0,
            has_saved=record.saved is not None,
        )

    # Three ways

    def _attempts(self, bounds: Bounds, row: Tensor, room: int) -> Attempts:
        """Up to `room` attempts; one host read. The row after them, and each one's row and record."""
        if self.programs is not None:
            way = self._looped if self.queue.sync_every > 1 else self._single
            found = way(self.programs, bounds, row, room)
            if found is not None:
                return found
            self.programs, self.recipe = None, None  # it could not be compiled
        return self._queued(bounds, row, room)

    def _queued(self, bounds: Bounds, row: Tensor, room: int) -> Attempts:
        rows, records, numeric = [], [], self.rules.numeric
        with torch.no_grad():
            for _ in range(room):
                before = (row, self.y, self.k)
                buffered = functools.partial(StageBuffer, numeric, self.y)
                made = attempt_row(self.rules, self.stepper.field, bounds, before, buffered)
                every = stacked_stages(self.rules, made) if self.queue.with_stages else None
                saved = _Saved([None, *made.tried.result.saved[1:]]) if self.queue.keep else None
                records.append(Record(self.y, self.k, made.tried.result.y1, made.k, every, saved))
                rows.append(made.row)
                row, self.y, self.k = made.row, made.y, made.k
            told = torch.stack(rows).tolist()  # host read
        return row, [Row(*one) for one in told], records

    def _single(self, programs: Programs, bounds: Bounds, row: Tensor, room: int) -> Attempts | None:
        """One attempt as one compiled call."""
        recipe, stages = self.recipe, self.queue.with_stages
        kind = None if recipe is None else recipe.key
        key = ("attempt", self.rules, stages, kind, signature(self.y, self.rtol, self.atol))
        make = functools.partial(single_program, self.rules, self.queue.calls, recipe, stages)
        with torch.no_grad():
            found = programs.run(key, make, self.owner, bounds, (row, self.y, self.k))
            if found is None:
                return None
            row, y, k, y1, every, states, times, lean = found
            told = Row(*row.tolist())  # host read
        self._count()
        saved = None if recipe is None else KeptStages(recipe, times, states, lean)
        record = Record(self.y, self.k, y1, k, every, saved)
        self.y, self.k = y, k
        return row, [told], [record]

    def _looped(self, programs: Programs, bounds: Bounds, row: Tensor, room: int) -> Attempts | None:
        """Up to `room` attempts in one compiled call, the loop in the graph."""
        form, in_graph = Rows(self.rules, self.queue.with_stages), loops_in_graph(self.y)
        if not in_graph and room < self.queue.sync_every:
            return None  # the last few before max_steps
        key = ("loop", form, signature(self.y, self.rtol, self.atol), self.queue.sync_every)
        with torch.no_grad():
            state: tuple[Tensor, ...] = (row, self.y, self.k)
            if form.with_stages and in_graph:  # a loop's first state has the form of the others
                state = (*state, self.y.new_zeros((form.n_stages, *self.y.shape)))
            arguments = (self.owner, sent([float(room)], self.y.device), bounds, state)
            if in_graph:
                make = functools.partial(several_program, form, self.queue.calls, None)
                found = programs.run(key, make, *arguments)
            else:
                found = several(programs, key, form, self.queue.calls, room, arguments)
            if found is None:
                return None
            rows, ys, ks, *stages = found
            told = [Row(*one) for one in rows.tolist()]  # host read
        records, y, k = [], self.y, self.k
        for i in range(len(told)):
            self._count()
            records.append(Record(y, k, ys[i], ks[i], stages[0][i] if stages else None))
            y, k = ys[i], ks[i]
        self.y, self.k = y, k
        return rows[-1], told, records

    def _count(self) -> None:
        """nfe of an attempt, where calls were made inside a compiled program."""
        self.stats.nfe += self.rules.tableau.n_stages - 1


class _Saved(list[Any]):
    """A step's saved list; its first entry comes from the step before, as that of `KeptStages`."""

    def begin(self, first: Any) -> None:
        """Takes the first stage's."""
        self[0] = first

    def end(self) -> Any:
        """The last stage's."""
        return self[-1]


class _LateStages:
    """Stages that were not handed out: evaluated anew where one is asked for (an error's explanation);
    the last, f(t1, y1), is there."""

    def __init__(self, field: Field, tableau: Tableau, record: Record, t0: float, t1: float):
        self.field, self.tableau, self.record, self.ends = field, tableau, record, (t0, t1)
        self.buffer: StageBuffer | None = None

    def get(self, i: int) -> Tensor:
        """Stage k_i, here or evaluated now."""
        return self.record.k1 if i == self.tableau.n_stages - 1 else self._all().get(i)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._all(), name)

    def _all(self) -> StageBuffer:
        if self.buffer is None:
            (t0, t1), y, first = self.ends, self.record.y0, (self.record.k0, None)
            times = stage_times(t0, t1, self.tableau, y)
            self.buffer = StageBuffer(self.tableau.numeric(y.dtype, y.device), y, t1 - t0)
            rk_step(self.field, y, first, times, self.tableau, self.buffer)
        return self.buffer
