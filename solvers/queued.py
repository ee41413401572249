"""The march whose attempts decide for themselves (`resident`): the host looks once for several of them.

Three ways to make them, one result. Eager: n attempts are queued one after another. Compiled, n = 1: an
attempt is one compiled call. Compiled, n > 1: the loop itself is in the compiled graph, and ends when
the stop is reached, so nothing is attempted in vain.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .kept import KeptStages, Recipe, as_strided_like, recipe_of
from .loop import OnAccept, OnAttempt, Outcome, Stats, Stop
from .norms import Tolerance
from .programs import Programs, signature
from .resident import Attempted, Bounds, Clock, March, Rules, attempt
from .status import Status
from .step import StageBuffer, StepResult
from .stepper import RungeKuttaStepper, Step, stage_times


@dataclasses.dataclass(frozen=True)
class Queue:
    """How a solve queues its attempts.

    sync_every: attempts between two looks of the host.  owner: a dynamics to compile (None: eager), and
    calls: how a program evaluates it, evaluate(owner, t, z) → (dz, saved).
    keep: what the field saves at each stage is wanted (compiled, n > 1: it never is).
    with_stages: the k_i are wanted (outputs inside steps, dense output, a trace).
    """

    sync_every: int = 1
    owner: Any = None
    calls: Any = None
    keep: bool = False
    with_stages: bool = False


class QueuedStep(Step):
    """A `Step` made of what the device recorded; its stages' times are made when asked for.

    k0: the first stage, f(t0, y0).
    """

    k0: Tensor

    @property
    def times(self) -> list[Tensor]:  # type: ignore[override]
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


class QueuedMarch:
    """The attempts of one solve.

    stepper: holds the state, its first stage, the tolerance and the field.
    """

    def __init__(self, stepper: RungeKuttaStepper, rules: Rules, queue: Queue, stats: Stats):
        assert stepper.first is not None
        assert stepper.tolerance is not None
        self.stepper, self.rules, self.queue, self.stats = stepper, rules, queue, stats
        self.y, self.first = stepper.y, stepper.first
        self.k = as_strided_like(self.first[0], self.y)
        self.chained, self.before = False, None
        tolerance: Tolerance = stepper.tolerance
        self.rtol, self.atol = (
            torch.as_tensor(x, dtype=self.y.dtype).to(self.y.device, non_blocking=True)
            for x in (tolerance.rtol, tolerance.atol)
        )
        self.owner = queue.owner
        self.recipe: Recipe | None = None
        if self.owner is not None and queue.keep and queue.sync_every == 1:
            assert stepper.first_time is not None
            self.recipe = recipe_of(self.first[1], stepper.first_time, self.y)

    def march(
        self,
        dt0: float,
        t0: float,
        stops: Sequence[Stop],
        max_steps: int,
        on_accept: OnAccept,
        on_attempt: OnAttempt | None,
    ) -> Outcome:
        """Steps from t0 over all stops to the last: as `loop.march`."""
        end = stops[-1].t
        direction = math.copysign(1.0, end - t0)
        span = abs(end - t0) if math.isfinite(end) else 0.0
        dt = self.stats.dt_first = min(dt0, self.rules.controller.dt_max)
        clock = self._on_device([t0, dt, 1.0, 1.0] + [0.0] * (len(Clock) - 4))
        t = t0
        for stop in stops:
            bounds = Bounds(self._on_device([stop.t, direction, span]), self.rtol, self.atol)
            clock = torch.cat((clock[: Clock.STATE], clock.new_zeros(len(Clock) - Clock.STATE)))
            state = March.UNDER_WAY
            while state == March.UNDER_WAY:
                room = min(self.queue.sync_every, max_steps - int(self.stats.n_steps))
                if room <= 0:
                    return Outcome(Status.MAX_STEPS, t, dt)
                clock, rows, records = self._attempts(bounds, clock, room)
                for row, record in zip(rows, records, strict=True):
                    t, dt, state = row[Clock.T], row[Clock.DT], March(int(row[Clock.STATE]))
                    assert row[Clock.TRIED] or state != March.UNDER_WAY, row
                    if row[Clock.TRIED] and self._tell(row, record, on_accept, on_attempt):
                        return Outcome(Status.EVENT, t, dt)
                    if state != March.UNDER_WAY:
                        break
            if state != March.STOP:
                failed = Status.NON_FINITE if row[Clock.BAD] else Status.STEP_UNDERFLOW
                return Outcome(failed, t, dt if state == March.TOO_SHORT else abs(row[Clock.T1] - t))
        return Outcome(Status.SUCCESS, t, dt)

    def _on_device(self, numbers: list[float]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.float64).to(self.y.device, non_blocking=True)

    def _tell(
        self, row: list[float], record: Record, on_accept: OnAccept, on_attempt: OnAttempt | None
    ) -> bool | None:
        """Counts an attempt and hands it to those who listen."""
        accepted = bool(row[Clock.ACCEPTED])
        if accepted:
            self.stats.n_accepted += 1
        else:
            self.stats.n_rejected += 1
        step = self._step(row, record)
        if on_attempt is not None:
            on_attempt(step, accepted, row[Clock.DT])
        if not accepted:
            return None
        if record.saved is not None:
            self.before = record.saved.end()
        over = on_accept(step)
        self.stepper.y, self.stepper.first = record.y1, (record.k1, None)
        self.chained = True
        return over

    def _step(self, row: list[float], record: Record) -> QueuedStep:
        tableau = self.rules.tableau
        stages: Any = _Absent(record.k1, tableau.n_stages)
        if record.stages is not None:
            numeric = self.stepper.numeric
            stages = StageBuffer(numeric, record.y0, row[Clock.T1] - row[Clock.T0], record.stages)
            stages.count = tableau.n_stages
        saved = record.saved
        if saved is None:
            saved = [None if self.chained else self.first[1]] + [None] * (tableau.n_stages - 1)
        else:
            saved.begin(self.before if self.chained else self.first[1])
        result = StepResult(record.y1, stages, saved)
        step = QueuedStep(
            row[Clock.T0],
            row[Clock.T1],
            record.y0,
            result,
            tableau,
            self.stepper.field,
            self.chained,
            [],
            row[Clock.RATIO],
            bool(row[Clock.FINITE]),
            plain=True,
        )
        step.k0 = record.k0
        return step

    # Three ways

    def _attempts(self, bounds: Bounds, clock: Tensor, room: int) -> tuple[Tensor, list[Any], list[Record]]:
        """Up to `room` attempts; one host read. The clock after them, and each one's row and record."""
        if self.owner is not None:
            found = self._looped(bounds, clock, room) if self.queue.sync_every > 1 else None
            if found is None and self.queue.sync_every == 1:
                found = self._single(bounds, clock)
            if found is not None:
                return found
            self.owner, self.recipe = None, None  # it could not be compiled
        return self._queued(bounds, clock, room)

    def _queued(self, bounds: Bounds, clock: Tensor, room: int) -> tuple[Tensor, list[Any], list[Record]]:
        clocks, records = [], []
        with torch.no_grad():
            for _ in range(room):
                made = attempt(self.rules, self.stepper.field, bounds, clock, self.y, self.k, buffered=True)
                records.append(self._record(made, clock))
                clocks.append(made.clock)
                clock, self.y, self.k = made.clock, made.y, made.k
            rows = torch.stack(clocks).tolist()  # host read
        return clock, rows, records

    def _record(self, made: Attempted, clock: Tensor) -> Record:
        saved = None
        if self.queue.keep:
            saved = _Saved([None, *made.saved])
        return Record(self.y, self.k, made.y1, made.k, made.stages, saved)

    def _single(self, bounds: Bounds, clock: Tensor) -> Any:
        """One attempt as one compiled call."""
        recipe = self.recipe
        key = (
            "attempt",
            self.rules,
            None if recipe is None else recipe.key,
            signature(self.y, self.rtol, self.atol),
        )
        make = functools.partial(_single_program, self.rules, self.queue.calls, recipe)
        with torch.no_grad():
            tensors = (clock, self.y, self.k, bounds.limits, self.rtol, self.atol)
            found = Programs.of(self.owner).run(key, make, self.owner, *tensors)
            if found is None:
                return None
            clock, y, k, y1, stages, states, times, lean = found
            row = clock.tolist()  # host read
        self._count(row)
        saved = None if recipe is None else KeptStages(recipe, times, states, lean)
        record = Record(self.y, self.k, y1, k, stages, saved)
        self.y, self.k = y, k
        return clock, [row], [record]

    def _looped(self, bounds: Bounds, clock: Tensor, room: int) -> Any:
        """Up to `room` attempts in one compiled call, the loop in the graph."""
        key = ("loop", self.rules, signature(self.y, self.rtol, self.atol))
        make = functools.partial(_loop_program, self.rules, self.queue.calls)
        with torch.no_grad():
            most = self._on_device([float(room)])
            tensors = (most, clock, self.y, self.k, bounds.limits, self.rtol, self.atol)
            found = Programs.of(self.owner).run(key, make, self.owner, *tensors)
            if found is None:
                return None
            clocks, ys, ks, *stages = found
            rows = clocks.tolist()  # host read
        records, y, k = [], self.y, self.k
        for i, row in enumerate(rows):
            self._count(row)
            records.append(Record(y, k, ys[i], ks[i], stages[0][i] if stages else None))
            y, k = ys[i], ks[i]
        self.y, self.k = y, k
        return clocks[-1], rows, records

    def _count(self, row: list[float]) -> None:
        """nfe, where calls were made inside a compiled program."""
        if row[Clock.TRIED]:
            self.stats.nfe += self.rules.tableau.n_stages - 1


class _Saved(list):
    """A step's saved list; its first entry comes from the step before, as that of `KeptStages`."""

    def begin(self, first: Any) -> None:
        """Takes the first stage's."""
        self[0] = first

    def end(self) -> Any:
        """The last stage's."""
        return self[-1]


class _Absent:
    """Stages that were not handed out: the last, f(t1, y1), is there, the others are not."""

    def __init__(self, last: Tensor, n: int):
        self.last, self.n = last, n

    def get(self, i: int) -> Tensor:
        """The last one."""
        assert i in (self.n - 1, -1), "this step's stages were not asked for"
        return self.last


def _single_program(rules: Rules, calls: Any, recipe: Recipe | None) -> Any:
    nodes = [float(c) for c in rules.tableau.nodes()[1 : rules.tableau.n_stages]]

    def attempt_once(
        owner: Any, clock: Tensor, y: Tensor, k: Tensor, limits: Tensor, rtol: Tensor, atol: Tensor
    ) -> Any:
        field = functools.partial(calls.evaluate, owner)
        made = attempt(rules, field, Bounds(limits, rtol, atol), clock, y, k, buffered=False)
        states, times, lean = [], [], []
        if recipe is not None:
            t0, t1 = made.clock[Clock.T0], made.clock[Clock.T1]
            states, lean = made.states, [recipe.lean(saved) for saved in made.saved]
            times = [(t1 if c == 1 else t0 + c * (t1 - t0)).to(y.dtype) for c in nodes]
        return made.clock, made.y, made.k, made.y1, made.stages, states, times, lean

    return attempt_once


def _loop_program(rules: Rules, calls: Any) -> Any:
    from torch._higher_order_ops.while_loop import while_loop_stack_output_op as while_loop

    def attempt_many(
        owner: Any,
        most: Tensor,
        clock: Tensor,
        y: Tensor,
        k: Tensor,
        limits: Tensor,
        rtol: Tensor,
        atol: Tensor,
    ) -> Any:
        bounds = Bounds(limits, rtol, atol)

        def goes_on(i: Tensor, clock: Tensor, y: Tensor, k: Tensor, *stages: Tensor) -> Tensor:
            return ((i < most) & (clock[Clock.STATE] == float(March.UNDER_WAY))).all()

        def body(i: Tensor, clock: Tensor, y: Tensor, k: Tensor, *stages: Tensor) -> Any:
            field = functools.partial(calls.evaluate, owner)
            made = attempt(rules, field, bounds, clock, y, k, buffered=False)
            every = () if made.stages is None else (made.stages,)
            return (i + 1, made.clock, made.y, made.k, *every)

        n = rules.tableau.n_stages
        every = (y.new_zeros((n, *y.shape)),) if rules.with_stages else ()
        start = (torch.zeros((), dtype=torch.int64, device=y.device), clock.clone(), y.clone(), k.clone())
        _, *found = while_loop(goes_on, body, (*start, *every), ())
        return found

    return attempt_many
