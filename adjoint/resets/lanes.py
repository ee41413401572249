"""A piece of a solve, from reset to reset, of all samples; with one clock there is one sample.

All tensors of this room have the samples' axis in front: states are [B, …], times [B]. Each sample has a
piece of its own; one that is done stays, with a start that is its end.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...solvers.checks import check_sample_times, check_times
from ...solvers.march.event import Event
from ...solvers.march.events import EventWatch, SampleEvents
from ...solvers.step.clocks import ONE, Clocks, Each, each, sent
from ...solvers.step.field import transformed
from ..arguments import Options, Request, check_groups, clocks_differ
from ..dynamics.protocol import Dynamics
from ..engine.differentiate import Answer, differentiate
from ..engine.problem import Problem
from ..engine.time_move import moved_end, moved_once
from ..gradients import Direct

MakeProblem = Callable[[Request], Problem]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is asked of a piece.

    z: states at the start.
    times: [B, W], float64: the start, the outputs before the end, then the end, repeated.
    live: [B], who goes anywhere.
    signs: [E, B] as `solvers.march.events.Watch` takes them, or None.
    """

    z: Tensor
    times: Tensor
    live: Tensor
    options: Options
    signs: Tensor | None

    @property
    def stop(self) -> Tensor:
        """When it ends if no event ends it, [B]."""
        return self.times[:, -1]


class Solved(NamedTuple):
    """A problem of the engine's and its answer."""

    problem: Problem
    answer: Answer


class Seen(NamedTuple):
    """An event that fired: which; when, [B] float64; to which samples, [B]; the state there, as the engine
    has it (rows of other samples: NaN)."""

    event: int
    t: Tensor
    valid: Tensor
    z: Tensor


@dataclasses.dataclass(frozen=True)
class Piece:
    """A piece that was solved.

    times: [n, B] of the rows (NaN: no row of that sample), detached.
    rows: [n, B, …], the states there.
    seen: in the order in which they were found.
    status: [B] int8.
    """

    plan: Plan
    problem: Problem
    answer: Answer
    times: Tensor
    rows: Tensor
    seen: list[Seen]
    status: Tensor

    def last(self) -> Tensor:
        """The last row of each sample, [B, …]."""
        n = (
            (~self.times.isnan()).sum(0)
            if self.plan.options.save == "steps"
            else torch.full_like(self.times[0], len(self.rows))
        )
        index = (n.long() - 1).clamp(min=0)[None].reshape(1, -1, *[1] * (self.rows.dim() - 2))
        return self.rows.gather(0, index.expand(1, *self.rows.shape[1:]))[0]


class Lanes(abc.ABC):
    """How the samples of a solve lie in its state, and how a piece of it is solved."""

    clocks: Clocks
    many: bool  # whether there may be several

    def __init__(self, request: Request, make_problem: MakeProblem):
        self.request, self.make_problem = request, make_problem
        self.layout, self.every_step = request.layout, request.options.save == "steps"

    def __getstate__(self) -> dict[str, Any]:
        """How samples lie: what solves pieces does not go into a file."""
        return {name: x for name, x in vars(self).items() if name not in ("request", "make_problem")}

    @abc.abstractmethod
    def wanted(self) -> Tensor:
        """The times that were asked for, [B, T] in float64 on the state's device, checked."""

    @abc.abstractmethod
    def front(self, z: Tensor) -> Tensor:
        """A state with the samples in front."""

    @abc.abstractmethod
    def rows(self, values: Tensor) -> Tensor:
        """States [n, *z] as [n, B, …]."""

    @abc.abstractmethod
    def back(self, z: Tensor) -> Tensor:
        """[B, …] as the engine has a state."""

    @abc.abstractmethod
    def states(self, rows: Tensor) -> Tensor:
        """[n, B, …] as the engine has states, [n, *z]."""

    @abc.abstractmethod
    def clock(self, number: Tensor) -> Tensor:
        """One number a sample, [B], as one a clock."""

    @abc.abstractmethod
    def solve(self, plan: Plan) -> Piece:
        """Solves one piece."""

    @abc.abstractmethod
    def solved(self, plan: Plan, solved: Solved) -> Piece:
        """The piece of a plan whose outputs are those of the whole solve."""

    def spread(self, v: Tensor, like: Tensor) -> Tensor:
        """[B] or [n, B] as it broadcasts against [B, …] or [n, B, …]."""
        return v.reshape(*v.shape, *[1] * (like.dim() - v.dim()))

    def choose(self, flag: Tensor, yes: Tensor, no: Tensor) -> Tensor:
        """States of the samples in `flag` from the first, of the others from the second."""
        return torch.where(self.spread(flag, yes), yes, no)

    def told(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """(t, y) as the user's functions want them; t: [B], z: [B, …]."""
        state = self.back(z)
        return self.layout.time(self.clocks.time(self.clock(t), state)), self.layout.unpack(state)

    @staticmethod
    def answered(problem: Problem, options: Options) -> Solved:
        """By the engine."""
        with problem.traced():
            return Solved(problem, differentiate(problem, options.gradient))

    def moved(self, problem: Problem, z: Tensor, start: Tensor, t: Tensor) -> Tensor:
        """States at `start` as those at t, [B] each and equal in value, which move along the flow."""
        flow, state = problem.flow(start=True), self.back(z)
        time = self.clock(start.detach() + (t - start))
        slope = flow.f(self.clocks.time(time.detach(), state), state)
        if transformed() or isinstance(self.request.options.gradient, Direct):
            return self.front(moved_end(flow, state, slope, time))
        return self.front(moved_once(flow, state, slope.detach(), time))

    @abc.abstractmethod
    def watch(self, events: Sequence[Event], problem: Problem, signs: Tensor) -> Any:
        """Who watches events with signs at the start, as a `Wish` takes it."""

    def problem(self, plan: Plan, t: Tensor) -> Problem:
        """The engine's problem of a piece."""
        request = dataclasses.replace(self.request, z0=self.back(plan.z), t=t, options=plan.options)
        problem = self.make_problem(request)
        if plan.signs is None or not plan.options.watched:
            return problem
        watch = self.watch(plan.options.watched, problem, plan.signs)
        wish = dataclasses.replace(problem.wish, events=watch)
        return dataclasses.replace(problem, wish=wish)


class OneLane(Lanes):
    """One clock, one sample: the whole state."""

    clocks, many = ONE, False

    def wanted(self) -> Tensor:
        """The times, [1, T]."""
        check_times(self.request.t)
        t = self.request.t.to(self.request.z0.device, torch.float64, non_blocking=True)
        return t[None] if self.request.options.save == "times" else t[None, :: len(t) - 1]

    def front(self, z: Tensor) -> Tensor:
        """[1, …], of one sample."""
        return z[None]

    def rows(self, values: Tensor) -> Tensor:
        """[n, 1, …], of one sample."""
        return values[:, None]

    def back(self, z: Tensor) -> Tensor:
        """The only one."""
        return z[0]

    def states(self, rows: Tensor) -> Tensor:
        """Of the only one."""
        return rows[:, 0]

    def clock(self, number: Tensor) -> Tensor:
        """The only one's, 0-d."""
        return number[0]

    def solve(self, plan: Plan) -> Piece:
        """With each time once."""
        times: list[float] = plan.times[0].detach().tolist()  # host read
        place = [0]
        for before, after in itertools.pairwise(times):
            place.append(place[-1] + (after != before))
        first = [place.index(k) for k in range(place[-1] + 1)]
        index = [first[0], first[-1]] if self.every_step else first
        problem = self.problem(plan, self._at(plan.times[0], index))
        piece = self.solved(plan, self.answered(problem, plan.options))
        if self.every_step:
            return piece
        rows, own = self._at(piece.rows, place), self._at(piece.times, place)
        return dataclasses.replace(piece, rows=rows, times=own)

    def solved(self, plan: Plan, solved: Solved) -> Piece:
        """With a row for each output."""
        run, device = solved.answer.run, plan.z.device
        n, one = len(run.times), torch.ones(1, dtype=torch.bool, device=device)
        values, events = solved.answer.values[:n], zip(run.fired, solved.answer.values[n:], strict=True)
        seen = [Seen(fired.event, sent([fired.t], device), one, z) for fired, z in events]
        status = torch.full_like(one, int(run.status), dtype=torch.int8)
        times = sent(run.times, device)[:, None]
        return Piece(plan, *solved, times, self.rows(values), seen, status)

    def _at(self, rows: Tensor, index: list[int]) -> Tensor:
        return rows.index_select(0, sent(index, rows.device, torch.int64))

    def watch(self, events: Sequence[Event], problem: Problem, signs: Tensor) -> EventWatch:
        """Made where the piece begins."""
        return EventWatch(events, self.layout.unpack, problem.times[0], problem.z0.detach(), signs[:, 0])


class ManyLanes(Lanes):
    """A clock a sample."""

    clocks: Each
    many = True

    def __init__(self, request: Request, make_problem: MakeProblem):
        super().__init__(request, make_problem)
        self.clocks = each(1 if isinstance(request.func, Dynamics) else 0, request.z0.dim())
        self.groups = request.options.stepping

    def wanted(self) -> Tensor:
        """The times of each sample, [B, T]."""
        z0, t = self.request.z0, self.request.t
        batch = self.clocks.batch_size(z0)
        times = check_sample_times(t, z0, batch)
        if isinstance(self.groups, Tensor):
            check_groups(self.groups, times, batch)
        t = t.to(z0.device, torch.float64, non_blocking=True)
        t = t if t.dim() == 2 else t.expand(batch, -1)
        return t if self.request.options.save == "times" else t[:, :: t.shape[1] - 1]

    def front(self, z: Tensor) -> Tensor:
        """[B, …], whatever its batch axis was."""
        return z.movedim(self.clocks.batch, 0)

    def rows(self, values: Tensor) -> Tensor:
        """[n, B, …], whatever the batch axis was."""
        return values.movedim(self.clocks.batch + 1, 1)

    def back(self, z: Tensor) -> Tensor:
        """With the batch where it was."""
        return z.movedim(0, self.clocks.batch).contiguous()

    def states(self, rows: Tensor) -> Tensor:
        """With the batch where it was."""
        return rows.movedim(1, self.clocks.batch + 1)

    def clock(self, number: Tensor) -> Tensor:
        """A clock is a sample."""
        return number

    def solve(self, plan: Plan) -> Piece:
        """Over each sample's own times."""
        if isinstance(self.groups, Tensor):
            plan = dataclasses.replace(plan, options=self._regrouped(plan, self.groups))
        problem = self.problem(plan, plan.times)
        return self.solved(plan, self.answered(problem, plan.options))

    def solved(self, plan: Plan, solved: Solved) -> Piece:
        """With a row for each output."""
        run, values = solved.answer.run, solved.answer.values
        n = len(run.times)
        found = zip(run.fired, values[n:], strict=True)
        seen = [Seen(fired.event, fired.t, fired.valid, z) for fired, z in found]
        seen.reverse()  # the first event's row is the last
        return Piece(plan, *solved, run.times, self.rows(values[:n]), seen, run.status)

    def _regrouped(self, plan: Plan, groups: Tensor) -> Options:
        """Samples of a group that begin and end a piece together share its steps."""
        ends = plan.times.detach()
        ids = groups.to(ends.device).double()
        rows = torch.stack((ids, ends[:, 0], ends[:, -1]), 1)
        _, own = torch.unique(rows, dim=0, return_inverse=True)  # host read
        return dataclasses.replace(plan.options, stepping=own)

    def watch(self, events: Sequence[Event], problem: Problem, signs: Tensor) -> Any:
        """Made by the march, when it knows who is healthy."""
        return functools.partial(SampleEvents, events, self.layout, self.clocks, signs=signs)


def lanes_of(request: Request, make_problem: MakeProblem) -> Lanes:
    """Those of the stepping that was asked for."""
    kind = ManyLanes if clocks_differ(request.options.stepping) else OneLane
    return kind(request, make_problem)
