"""A solve with resets is a chain of solves: each piece ends where a reset is met, and the next begins there.

The time and the state of an event have their gradients by the implicit function theorem
(`engine.event_gradient`), a reset is the user's function under autograd, and a piece gives dL/dt at its
start. By the chain rule these are the saltation rule, for every gradient choice, which is written nowhere.
With g the event function, r the reset, f⁻ and f⁺ the dynamics before and after it,

    dy⁺/dy⁻ = r_y + (f⁺ − r_y f⁻ − r_t) (∂g/∂y) / (∂g/∂t + ∂g/∂y f⁻).

Source: M. A. Aizerman, F. R. Gantmacher, Determination of stability by linear approximation of a periodic
solution of a system of differential equations with discontinuous right-hand sides, Quart. J. Mech. Appl.
Math. 11 (1958) 385–398.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from ...solvers.attempts import Attempts
from ...solvers.checks import moves
from ...solvers.errors import SolverError, solver_error
from ...solvers.march.event import Event, Impulse
from ...solvers.march.events import Fired
from ...solvers.solution import Solution
from ...solvers.status import Status
from ...solvers.step.field import follows
from ..arguments import Options, Request, Save
from ..dynamics.adapt import check_independent_samples
from ..engine.dense import questions
from ..engine.differentiate import Answer
from ..engine.event_gradient import at_event
from ..engine.problem import Problem
from .jump import Happened, Jumps
from .lanes import Lanes, MakeProblem, Piece, Plan, Seen, Solved, lanes_of
from .met import Meeting, Met, Read, impulse_times
from .outputs import AtSteps, AtTimes, ChainQuery, ChainStats, events_of, trace_of
from .threshold import Guard, Standing

Told = Callable[[Request, Problem, Answer], Solution]


def solve_with_resets(request: Request, make_problem: MakeProblem, told: Told) -> Solution:
    """`solve` where an event has a reset, or an impulse is among the events.

    told: what is returned of a solve without.
    """
    lanes = lanes_of(request, make_problem)
    if lanes.many:
        check_independent_samples(request.func)
    first, options = None, of_pieces(request.options)
    if len(options.events) == len(request.options.events):  # no impulses
        plain = dataclasses.replace(request, options=options)
        problem = make_problem(plain)
        first = lanes.answered(problem, options)
        if not any(request.options.events[fired.event].reset for fired in first.answer.run.fired):
            solution = told(plain, *first)
            return dataclasses.replace(solution, y_after=[*solution.y_events])
    with torch.set_grad_enabled(torch.is_grad_enabled() and request.options.gradient is not None):
        chain = Chain(lanes, request)
        chain.run(first)
        return chain.solution()


def of_pieces(options: Options) -> Options:
    """The options of a solve that ends at an event with a reset."""
    events = [
        dataclasses.replace(event, reset=None, terminal=event.terminal or event.reset is not None)
        for event in options.watched
    ]
    params = None if options.params is None else tuple(options.params)
    return dataclasses.replace(options, events=events, params=params)


class Chain:
    """The pieces of one solve, and what was found in them.

    now: [B], float64 with its gradient, where the samples are; z: [B, …], their states.
    live: who goes on; status: how the others ended, [B] int8.
    """

    def __init__(self, lanes: Lanes, request: Request):
        options = request.options
        self.lanes, self.request = lanes, request
        self.entries = tuple(options.events)
        self.numbers = [
            i for i, event in enumerate(self.entries) if isinstance(event, Event)
        ]  # of the watched
        self.wanted = lanes.wanted()
        self.now, self.end = self.wanted[:, 0], self.wanted[:, -1]
        start, end = self.now.detach(), self.end.detach()
        self.direction = torch.where(end < start, -1.0, torch.ones_like(start))
        batch = len(start)
        self.impulses = {
            i: impulse_times(event, lanes, request.t, batch)
            for i, event in enumerate(self.entries)
            if isinstance(event, Impulse)
        }
        self.jumps = Jumps(lanes, self.entries)
        self.guard = Guard(self.jumps, (end - start).abs(), len(self.numbers))
        save: Save = "steps" if options.save == "steps" else "times"
        self.options = dataclasses.replace(of_pieces(options), save=save)
        watched = [self.entries[i] for i in self.numbers]
        self.meeting = Meeting(
            *(lanes, self.options.watched, [event.reset is not None for event in watched], self.impulses),
            *(end, options.max_steps, self.guard),
        )
        self.z = lanes.front(request.z0)
        self.live = torch.ones_like(start, dtype=torch.bool)
        self.status = torch.full_like(start, int(Status.SUCCESS), dtype=torch.int8)
        self.used = torch.zeros_like(start, dtype=torch.int64)
        self.signs: Tensor | None = None
        self.pieces: list[tuple[Piece, Tensor]] = []
        self.happened: list[Happened] = []
        # Whom a reset met at the very end, when, and the states after it
        self.closing = self.live & False, self.end, self.z
        self.outputs: AtTimes | AtSteps | None = None

    # The loop

    def run(self, first: Solved | None) -> None:
        """Piece after piece until no sample goes on. first: the first piece, where it was solved before."""
        shown = self._at_the_start()
        kind = AtSteps if self.request.options.save == "steps" else AtTimes
        self.outputs = kind(self.lanes, self.wanted, self.direction, shown)
        left = self.request.options.max_steps
        going = True
        while going:
            piece, first = self._piece(left, first), None
            going, left = self._after(piece)

    def _at_the_start(self) -> Tensor:
        """Impulses at the very start, before all else; the states to be shown there, [B, …]."""
        start = self.now.detach()
        masks = {i: times == start[:, None] for i, times in self.impulses.items()}
        flags = [mask.any(1) for mask in masks.values()]
        told = torch.stack(flags).tolist() if flags else []  # host read
        own = self.now
        for (i, mask), which in zip(reversed(masks.items()), reversed(flags), strict=True):
            picked = self.impulses[i].gather(1, mask.to(torch.int8).argmax(1, keepdim=True))[:, 0]
            own = torch.where(which, picked, own)
        moving = any(map(any, told)) and follows() and (moves(own) or moves(self.now))
        if not moving:
            self._reset_all(flags, told, own)
            return self.z
        problem = self.lanes.make_problem(dataclasses.replace(self.request, options=self.options))
        start = self.now
        self.z = self.lanes.moved(problem, self.z, start, own)
        self._reset_all(flags, told, own)
        return self.lanes.moved(problem, self.z, own, start)

    def _reset_all(self, flags: list[Tensor], told: list[list[bool]], own: Tensor) -> None:
        self.now = own
        for i, which, mask in zip(self.impulses, flags, told, strict=True):
            if any(mask):
                self._reset(i, which, mask, own)

    def _reset(self, entry: int, which: Tensor, mask: list[bool], t: Tensor) -> Happened:
        """Applies a reset to the states as they are."""
        after = self.jumps.after(entry, t, self.z, which)
        one = Happened(entry, which, mask, t, self.z, after)
        self.happened.append(one)
        self.z = after
        return one

    def _piece(self, left: int, solved: Solved | None) -> Piece:
        """The next piece of every sample."""
        plan = Plan(
            self.z, self._times(), self.live, dataclasses.replace(self.options, max_steps=left), self.signs
        )
        try:
            piece = self.lanes.solve(plan) if solved is None else self.lanes.solved(plan, solved)
        except SolverError as error:
            raise self._told(error) from None
        self.options = dataclasses.replace(self.options, dt0=None)  # the next begins elsewhere
        return piece

    def _times(self) -> Tensor:
        """[B, T + 1]: now, the outputs ahead, and where the piece ends at the latest, repeated."""
        now, wanted, direction = self.now.detach(), self.wanted, self.direction
        stop = self._stop()
        past = ((wanted.detach() - now[:, None]) * direction[:, None] <= 0).sum(1, keepdim=True)
        ahead = past + torch.arange(wanted.shape[1] - 1, dtype=torch.int64, device=past.device)
        own = wanted.gather(1, ahead.clamp(max=wanted.shape[1] - 1))
        before = (ahead < wanted.shape[1]) & ((own - stop[:, None]).detach() * direction[:, None] < 0)
        inner = torch.where(before, own, stop[:, None])
        return torch.cat((self.now[:, None], inner, stop[:, None]), 1)

    def _stop(self) -> Tensor:
        """[B]: the next impulse, or the end; where a sample is, if it is done."""
        stop = self.end
        if self.impulses:
            times = torch.cat((*self.impulses.values(), self.end[:, None]), 1)
            ahead = (times.detach() - self.now.detach()[:, None]) * self.direction[:, None]
            first = torch.where(ahead > 0, ahead, torch.inf).argmin(1, keepdim=True)
            stop = times.gather(1, first)[:, 0]
        return torch.where(self.live, stop, self.now)

    def _told(self, error: SolverError) -> SolverError:
        """An error of the next piece as one of the whole solve."""
        before = [piece.problem.stats for piece, _ in self.pieces]
        error.stats = ChainStats([*before, error.stats], [None] * (len(before) + 1))
        error.trace = None if error.trace is None else self._trace().then(error.trace)
        return self._with_resets(error)

    def _with_resets(self, error: SolverError) -> SolverError:
        """Says how many resets there were, where the steps did not suffice."""
        if self.happened and error.status == Status.MAX_STEPS:
            n, t = len(self.happened), self.happened[-1].t[0].item()
            error.detail += f" {n} resets and events came before, the last at t={t:.9g}."
        return error

    # After a piece

    def _after(self, piece: Piece) -> tuple[bool, int]:
        """Applies what is met at the end of a piece; whether any sample goes on, and with how many attempts
        at most."""
        met = self.meeting.at(piece, self.used)
        read = met.read()
        self.pieces.append((piece, met.ended))
        if read.suspicious:
            self.guard.refuse(met.suspicious, met.resets, self.numbers, self._stats())
        assert self.outputs is not None
        self.outputs.piece(piece, piece.plan.live & ~met.over, met.ended)
        ended = self._arrive(piece, met, read)
        done = self._resets(met, read, ended)
        changed = self._changed(done)
        if changed is not None:
            self._show(piece.problem, met, changed, ended)
        self.signs = None
        if done and read.going:
            standing = Standing(self.jumps, piece.problem, self.direction)
            resets = [(self.numbers.index(one.entry), one) for one in done if one.entry in self.numbers]
            self.signs = standing.signs(resets, len(self.numbers), self.z)
        self.guard.reset(met.resets)
        self._end(piece, met)
        if not self.lanes.many and not read.going and self.status[0] == int(Status.MAX_STEPS):  # host read
            stats = self._stats()
            error = solver_error(met.ended[0].item(), stats.dt_last, Status.MAX_STEPS, stats)
            error.trace = self._trace() if self.options.trace else None
            raise self._with_resets(error)
        self.now = torch.where(met.reached, ended, self.now)
        self.now = torch.where(self.live, self.now, self.now.detach())
        self.z = self.lanes.choose(self.live, self.z, self.z.detach())
        return read.going, read.left

    def _arrive(self, piece: Piece, met: Met, read: Read) -> Tensor:
        """The states where the piece ended, with their gradients, and when, [B]; notes events that are not
        reset."""
        lanes, problem = self.lanes, piece.problem
        z, ended = lanes.choose(met.reached, piece.last(), piece.plan.z.detach()), piece.plan.stop
        located = [
            (one, mask, *self._located(problem, one))
            for one, mask in zip((*met.watched, *met.enders), (*read.watched, *read.enders), strict=True)
            if any(mask)
        ]
        for one, mask, t, state in located:
            if not self.meeting.reset[one.event]:
                entry = self.numbers[one.event]
                self.happened.append(Happened(entry, one.valid, mask, t, state, state))
        for one, _, t, state in reversed(located):  # of several at one time the first is followed
            if self.options.watched[one.event].terminal:
                ended, z = torch.where(one.valid, t, ended), lanes.choose(one.valid, state, z)
        self.z = z
        return ended

    def _located(self, problem: Problem, one: Seen) -> tuple[Tensor, Tensor]:
        """An event's time [B] and state [B, …], with their gradients."""
        lanes, detached = self.lanes, self.options.gradient is None
        event = None if detached else self.options.watched[one.event]
        fired = Fired(one.event, lanes.clock(one.t), one.z, valid=one.valid if lanes.many else None)
        t, z = at_event(event, lanes.layout, problem, fired, one.z)
        return (t if lanes.many else t[None]), lanes.front(z)

    def _resets(self, met: Met, read: Read, ended: Tensor) -> list[Happened]:
        """Applies all that is due, in the order of `events`."""
        due = {
            self.numbers[one.event]: (one.valid, mask)
            for one, mask in zip(met.enders, read.enders, strict=True)
            if self.meeting.reset[one.event]
        }
        due |= {i: (which, mask) for (i, which), mask in zip(met.due.items(), read.due, strict=True)}
        return [self._reset(i, *due[i], ended) for i in sorted(due) if any(due[i][1])]

    def _changed(self, done: list[Happened]) -> Tensor | None:
        """[B]: whose states were changed."""
        return torch.stack([one.which for one in done]).any(0) if done else None

    def _show(self, problem: Problem, met: Met, changed: Tensor, ended: Tensor) -> None:
        """An output at the time of a reset is the state after it."""
        assert self.outputs is not None
        last = changed & (met.ended == self.end.detach())
        closed, t, z = self.closing
        self.closing = closed | last, torch.where(last, ended, t), self.lanes.choose(last, self.z, z)
        where, moving = self.outputs, follows() and (moves(self.wanted) or moves(ended))
        if isinstance(where, AtTimes):
            here = where.at(met.ended, changed, self.z)
            own = self.wanted.gather(1, here.t().to(torch.int8).argmax(1, keepdim=True))[:, 0]
            own = torch.where(here.any(0), own, ended)
            if moving and bool(here.any()):  # host read
                where.put(here, self.lanes.moved(problem, self.z, ended, own))
            return
        shown = self.z
        if moving and bool(last.any()):  # host read: the end is a time that was given
            shown = self.lanes.moved(problem, self.z, ended, torch.where(last, self.end, ended))
        where.at(met.ended, changed, shown)

    def _end(self, piece: Piece, met: Met) -> None:
        """How samples ended that do not go on."""
        arrived = met.reached & (met.ended == self.end.detach())
        status = torch.where(met.over | (met.reached & ~arrived), int(Status.MAX_STEPS), piece.status)
        status = torch.where(arrived, int(Status.SUCCESS), status)
        status = torch.where(met.stopped, int(Status.EVENT), status)
        self.status = torch.where(piece.plan.live & ~met.going, status, self.status).to(torch.int8)
        self.live, self.used = met.going, met.used

    # What is returned

    def _stats(self) -> ChainStats:
        live = [piece.plan.live if self.lanes.many else None for piece, _ in self.pieces]
        return ChainStats([piece.problem.stats for piece, _ in self.pieces], live)

    def _trace(self) -> Attempts:
        return trace_of([piece for piece, _ in self.pieces], many=self.lanes.many)

    def solution(self) -> Solution:
        """What `solve` returns."""
        request, options, lanes, layout = self.request, self.request.options, self.lanes, self.lanes.layout
        assert self.outputs is not None
        times, rows = self.outputs.result()
        y, t = lanes.states(rows), request.t if request.t.dim() == 1 else request.t.t()
        if times is not None:
            t = (times if lanes.many else times[:, 0]).to(request.t)
        elif options.save == "end":
            y, t = y[-1:], t[-1:]
        value, derivative = None, None
        if options.dense:
            end = self.end.detach() if lanes.many else self.pieces[-1][1]
            ends, detached = (self.wanted[:, 0].detach(), end), options.gradient is None
            query = ChainQuery(lanes, self.pieces, ends, self.closing, detached=detached)
            value, derivative = questions(query, layout, lanes.clocks, request.z0.shape)
        t_events, y_events, y_after = events_of(self.happened, len(self.entries), lanes, request.t, self.z)
        status = self.status if lanes.many else Status(int(self.status[0]))  # host read
        return Solution(
            *(t, layout.unpack(y), status, self._stats(), t_events, y_events),
            *(self._trace() if options.trace else None, value, derivative),
            y_after=y_after,
        )
