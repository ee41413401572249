"""Whole solves by native programs: when they can be, and what comes out of them.

The forward pass is one call for as many attempts as a piece of memory holds, the discrete walk back one for
each piece. Where anything stands in the way, or a solve does not arrive, it is made in the other ways, from
its start: so they tell what went wrong.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...solvers.device.natives import Natives, comparable, enabled, near
from ...solvers.device.programs import Bounds, Row, attempt_row
from ...solvers.device.whole import T0, Form, Memory, Stand, Start, form_key, solve_program
from ...solvers.solve import Observers
from ...solvers.step.attempt import Rules
from ...solvers.step.runge_kutta import StageList, regular, rows_like, with_strides
from ..arguments import Backsolve, Discrete, Gradient, Interpolating
from ..discrete.compiled import Way
from ..discrete.whole import Trail, walk_program
from ..dynamics.adapt import refuse_unlike
from ..dynamics.protocol import Dynamics
from ..dynamics.traced import Calls, DynamicsCalls, ModuleCalls
from ..recording import Result
from .problem import Problem, SampleProblem, SharedProblem, Told
from .speed import looked_at, norm_name

PIECE = 2**26  # bytes of states that a piece of memory holds at most; pages not written to cost nothing
LONGEST = 128  # attempts that one holds at most
FEWEST = 8  # places for outputs that a program has at least, so that one serves several numbers of them


class Piece(NamedTuple):
    """n attempts, [1], that one call recorded in its memory."""

    n: Tensor
    memory: Memory


class Arrived(NamedTuple):
    """What a whole solve gave: the values [T, *S], and f there where wanted; what it tells; what it recorded,
    in order; f at the end of the last step."""

    values: Tensor
    slopes: Tensor | None
    told: Told
    pieces: list[Piece]
    last: Tensor


@dataclasses.dataclass(frozen=True)
class WholeSolve:
    """One solve by whole programs.

    known: the owner's fingerprint, and what else tells programs of one form apart.
    times: [T, lanes], padded to as many places as the program has.
    theta: what gradients are wanted of.
    """

    problem: Problem
    natives: Natives
    calls: Calls
    form: Form
    known: tuple[Any, ...]
    y: Tensor
    times: Tensor
    theta: tuple[Tensor, ...]

    @functools.cached_property
    def key(self) -> tuple[Any, ...]:
        """What tells the programs of an owner apart."""
        shape = (tuple(self.y.shape), self.y.stride(), str(self.y.dtype), str(self.y.device))
        return (*self.known, shape, tuple(self.times.shape))

    def forward(self) -> Arrived | None:
        """The forward pass; None where there is no program, or the solve does not arrive."""
        start, stand = self._start()
        form, shape = self.form, self.y.shape
        out = self.y.new_empty((len(self.times) + 1 if form.inside else 0, *shape))
        n_slopes = (len(self.times) + 1 if form.inside else 1) if form.slopes else 0
        slopes = self.y.new_empty((n_slopes, *shape))
        pieces: list[Piece] = []
        n_made, first = 0, None
        while True:
            memory = self._memory(out, slopes)
            program = self._solving(start, stand, memory)
            if program is None:
                return None
            told, row, y, k, place, dt_first = program(self.problem.func, start, stand, memory)
            first = dt_first if first is None else first
            n_kept, made, arrived, goes_on, *_ = told.tolist()  # host read
            n_made += int(made)
            if self.form.recorded:
                pieces.append(Piece(torch.full_like(start.most, int(n_kept)), memory))
            if not goes_on or n_made >= self.problem.settings.max_steps:
                break
            stand = Stand(torch.ones_like(stand.under_way), row, y, k, place)
            start = start._replace(most=start.most - int(made))
        if not arrived or (self.form.recorded and not n_made):
            return None
        return self._arrived(memory, pieces, (y, k, row, first, n_made))

    def _arrived(self, memory: Memory, pieces: list[Piece], end: tuple[Any, ...]) -> Arrived:
        """The values in their places."""
        y, k, row, first, n_made = end
        slopes, first_slope = None, memory.slopes[0] if self.form.slopes else None
        if self.form.inside:
            values = self._in_place(memory.out, self.y)
            slopes = None if first_slope is None else self._in_place(memory.slopes, first_slope)
        else:
            values = torch.stack((self.y, y))
            slopes = None if first_slope is None else torch.stack((first_slope, k))
        return Arrived(values, slopes, Told(row, first, n_made), pieces, k)

    def _in_place(self, rows: Tensor, first: Tensor) -> Tensor:
        """The rows of the outputs, with those at the start: all of a sample that ends where it begins."""
        n, clocks = self.problem.t.shape[-1], self.problem.clocks
        rows = rows[:n]
        rows[0] = first
        if clocks.everyone(first) is None:
            return rows
        return clocks.choose(self.times[:n] == self.times[0], first, rows)

    def walk(self, arrived: Arrived, g: Tensor) -> Result | None:
        """The walk back for the cotangents g, [T, *S]; None where there is no program."""
        stats, stages = self.problem.stats, self.problem.settings.tableau.n_stages - 1
        g, carry = self._cotangents(g)
        for piece in reversed(arrived.pieces):
            trail = Trail(piece.n, *piece.memory[:3], self.times)
            program = self._walking(trail, g, carry)
            if program is None:
                return None
            begun, off, place, lam, held, *sums = program(self.problem.func, trail, g, carry)
            closed, totals = sums[: len(sums) // 2], sums[len(sums) // 2 :]
            carry = (place, lam, held, totals)
            n = stages * int(piece.n)
            stats.nfe_backward, stats.nfe_recomputed = stats.nfe_backward + n, stats.nfe_recomputed + n
        stats.nfe_backward, stats.nfe_recomputed = stats.nfe_backward + 1, stats.nfe_recomputed + 1
        refuse_unlike(float(off), self.y.dtype, self.problem.reverse.complain)  # host read
        return begun, closed

    def ready(self, arrived: Arrived) -> bool:
        """Whether there is a program for the walk back, too."""
        if self._walk_key in self.natives.known:
            return self.natives.known[self._walk_key] is not None
        g, carry = self._cotangents(torch.zeros_like(arrived.values))
        piece = arrived.pieces[0]
        return self._walking(Trail(piece.n, *piece.memory[:3], self.times), g, carry) is not None

    @property
    def _walk_key(self) -> tuple[Any, ...]:
        return (*self.key, "walk", form_key(self.form))

    # What the programs are called with

    def _start(self) -> tuple[Start, Stand]:
        settings, y, times = self.problem.settings, self.y, self.times
        n, clocks = self.problem.t.shape[-1], self.problem.clocks
        ends = torch.stack((times[0], times[n - 1])).reshape(2, *clocks.shape(y))
        dt0 = settings.dt0
        if not isinstance(dt0, Tensor):
            dt0 = torch.full_like(ends[0], torch.nan if dt0 is None else dt0)
        most = torch.tensor([settings.max_steps], dtype=torch.int64)
        rtol, atol = settings.tolerance.tensors(y)
        start = Start(ends, dt0, rtol, atol, most, times)
        place = torch.ones(times.shape[1], dtype=torch.int64)
        row = torch.zeros((len(Row._fields), *ends.shape[1:]), dtype=torch.float64)
        # Each a tensor of its own: an exported program takes two that are one for one ever after.
        return start, Stand(torch.zeros((), dtype=torch.bool), row, y, torch.empty_like(y), place)

    def _memory(self, out: Tensor, slopes: Tensor) -> Memory:
        y, n = self.y, 0
        if self.form.recorded:
            states = 2 + self.form.rules.tableau.n_stages if self.form.dense else 1
            n = min(max(PIECE // max(states * y.numel() * y.element_size(), 1), 4), LONGEST)
        rows = torch.empty((n, len(Row._fields), *self.problem.clocks.shape(y)), dtype=torch.float64)
        stages = y.new_empty((n, self.form.rules.tableau.n_stages if self.form.dense else 0, *y.shape))
        return Memory(rows, rows_like(n, y, y.stride()), rows_like(n, y, y.stride()), out, slopes, stages)

    def _cotangents(self, g: Tensor) -> tuple[Tensor, tuple[Any, ...]]:
        """g with a row for each place, and (place, λ, held, θ's sums) to begin the walk with."""
        place = torch.full((self.times.shape[1],), len(g) - 1, dtype=torch.int64)
        last = torch.zeros_like(self.y) if self.form.inside else with_strides(g[-1], self.y.stride()).clone()
        carry = (place, last, torch.zeros_like(self.y), [torch.zeros_like(p) for p in self.theta])
        if len(g) < len(self.times):
            g = torch.cat((g, g.new_zeros((len(self.times) - len(g), *g.shape[1:]))))
        return g, carry

    # The programs, held once against the plain functions

    def _solving(self, start: Start, stand: Stand, memory: Memory) -> Any:
        key = (*self.key, "solve", form_key(self.form), tuple(start.rtol.shape), tuple(start.atol.shape))
        make = functools.partial(solve_program, self.form, self.calls)
        arguments = (start, stand, memory)
        return self.natives.find(key, make, self.problem.func, arguments, self._solves_alike)

    def _walking(self, trail: Trail, g: Tensor, carry: Any) -> Any:
        settings, clocks, y = self.problem.settings, self.problem.clocks, self.y
        numeric = settings.tableau.numeric(y.dtype, y.device)

        def make() -> Any:
            calls = self.calls.split(self.problem.func, clocks.time(trail.rows[0, T0], y), y)
            return walk_program(
                Way(calls, settings.tableau, numeric, outputs=self.form.inside, clocks=clocks)
            )

        return self.natives.find(
            self._walk_key, make, self.problem.func, (trail, g, carry), self._walks_alike
        )

    def _solves_alike(self, program: Any, function: Any, arguments: tuple[Any, ...]) -> bool:
        """Whether its first attempt is that of the checked field."""
        start, stand, memory = arguments
        _, row, y, k, *_ = program(self.problem.func, start._replace(most=start.most * 0), stand, memory)
        _, _, y1, k1, *_ = program(self.problem.func, start._replace(most=start.most * 0 + 1), stand, memory)
        clocks = self.problem.clocks
        plain = lambda t, z: (self.problem.plain(t, z), None)  # noqa: E731
        first = plain(clocks.time(start.ends[0], y), y)[0]
        direction = torch.sign(start.ends[1] - start.ends[0])
        limits = torch.stack((start.ends[1], direction, torch.zeros_like(direction)))
        made = attempt_row(
            self.form.rules,
            plain,
            Bounds(limits, start.rtol, start.atol),
            (row, y, first),
            functools.partial(StageList, self.form.rules.numeric),
        )
        return near([k, y1, k1], [first, made.y, made.k])

    def _walks_alike(self, program: Any, function: Any, arguments: tuple[Any, ...]) -> bool:
        """Whether its first step back is that of the function it was made of."""
        trail, g, carry = arguments
        trail = trail._replace(n=torch.ones_like(trail.n))
        g = torch.cos(torch.arange(g.numel(), dtype=g.dtype)).view(g.shape)
        carry = (carry[0], with_strides(g[-1], self.y.stride()).clone(), *carry[2:])
        return near(program(self.problem.func, trail, g, carry), function(self.problem.func, trail, g, carry))


def whole_solve(
    problem: Problem, gradient: Gradient | None, theta: tuple[Tensor, ...] = ()
) -> WholeSolve | None:
    """The solve by whole programs, where it can be.

    theta: what gradients are wanted of.
    """
    if not problem.speed.compile or not enabled() or not _eligible(problem, gradient):
        return None
    owner, settings = problem.func, problem.settings
    calls: Calls = DynamicsCalls() if isinstance(owner, Dynamics) else ModuleCalls()
    if gradient is not None and [id(p) for p in calls.theta(owner)] != [id(p) for p in theta]:
        return None
    names = (
        ("forward", "vjp", "parameter_gradients", "theta") if isinstance(owner, Dynamics) else ("forward",)
    )
    found = comparable(owner, names)
    if found is None:
        return None
    y, times = regular(problem.z0.detach()), problem.lanes()
    rules = Rules(
        settings.tableau,
        settings.tableau.numeric(y.dtype, y.device),
        settings.norm,
        settings.controller,
        problem.clocks,
    )
    recorded, dense = isinstance(gradient, (Discrete, Interpolating)), isinstance(gradient, Interpolating)
    inside, slopes = len(times) > 2, gradient is not None and problem.t.requires_grad
    if (inside or dense) and settings.tableau.c_dense:
        return None
    if inside:
        more = max(FEWEST, 1 << (len(times) - 1).bit_length()) - len(times)
        times = torch.cat((times, torch.full((more, times.shape[1]), torch.nan, dtype=torch.float64)))
    form = Form(rules, settings.dt0 is None, recorded, inside, slopes, dense)
    return WholeSolve(problem, Natives.of(owner), calls, form, (found, names), y, times, theta)


def _eligible(problem: Problem, gradient: Gradient | None) -> bool:
    """Whether the host need not look before the end."""
    wish, settings, owner = problem.wish, problem.settings, problem.func
    if not isinstance(owner, nn.Module) or problem.z0.device.type != "cpu" or type(problem.z0) is not Tensor:
        return False
    if not (gradient is None or isinstance(gradient, Discrete) or _solved_back(problem, gradient)):
        return False
    if wish.every_step or wish.dense or wish.events is not None or wish.trace is not None:
        return False
    if norm_name(settings.norm) is None or settings.fixed or problem.autocast.enabled:
        return False
    if problem.named or not problem.z0.numel():
        return False
    if isinstance(problem, SampleProblem):
        own = settings.compact or settings.together is not None or settings.dt0_open
        return not own and not len(settings.stops)
    assert isinstance(problem, SharedProblem)
    single = isinstance(owner, Dynamics) or problem.plain.layout.single  # type: ignore[attr-defined]
    return single and problem.observers == Observers() and not (settings.step_at or settings.jump_at)


def _solved_back(problem: Problem, gradient: Gradient) -> bool:
    """Whether the way back is a reverse solve at which the host need not look."""
    reverse = problem.reverse
    if not isinstance(gradient, (Backsolve, Interpolating)) or isinstance(problem, SampleProblem):
        return False
    own = reverse.settings or problem.settings
    plain = own.norm == problem.settings.norm and not (own.fixed or own.step_at or own.jump_at)
    return plain and not looked_at(reverse) and reverse.trace is None and reverse.watch is None
