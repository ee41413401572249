"""Whole solves by native programs: when they can be, and what comes out of them.

The forward pass is one call for as many attempts as a piece of memory holds, the discrete walk back one for
each piece. Where anything stands in the way, or a solve does not arrive, it is made in the other ways, from
its start: so they tell what went wrong.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import stateless

from ...solvers.checks import transformed
from ...solvers.device.native import Values, values_of
from ...solvers.device.natives import Natives, comparable, near
from ...solvers.device.programs import Row
from ...solvers.device.whole import DT, RATIO, T0, Form, Memory, Stand, Start, form_key, solve_program
from ...solvers.solve import Observers
from ...solvers.step.attempt import Rules
from ...solvers.step.runge_kutta import regular, rows_like, with_strides
from ..arguments import Backsolve, Discrete, Gradient, Interpolating
from ..discrete.compiled import Way
from ..discrete.whole import Trail, walk_program
from ..dynamics.adapt import refuse_unlike
from ..dynamics.protocol import Dynamics
from ..dynamics.traced import Calls, DynamicsCalls, ModuleCalls
from ..recording import Result
from .problem import Problem, SampleProblem, SharedProblem, StrandedError, Told
from .speed import looked_at, norm_name
from .whole_grid import NOBODY, AlongGrid, room

ENTRIES = ("forward", "vjp", "parameter_gradients", "theta")  # of an owner, those of a module first
FEWEST = 8  # places for outputs that a program has at least, so that one serves several numbers of them


class Piece(NamedTuple):
    """n attempts, [1], that one call recorded in its memory."""

    n: Tensor
    memory: Memory


class Arrived(NamedTuple):
    """What a whole solve gave: the values [T, *S], and f there where wanted; what it tells; what it recorded,
    in order; f at the end of the last step; how often its owner's values had been changed."""

    values: Tensor
    slopes: Tensor | None
    told: Told
    pieces: list[Piece]
    last: Tensor
    versions: list[int]


def versions_of(values: list[Tensor]) -> list[int]:
    """How often each was changed in place; torch counts that for no tensor of its inference mode."""
    return [0 if x.is_inference() else x._version for x in values]


class Plan(NamedTuple):
    """What all solves of one form of an owner share: the keys of its programs, where its values stand, and
    what a solve that has not begun hands in: (under way, row, k, place), which no program writes to."""

    form: Form
    solve_key: tuple[Any, ...]
    walk_key: tuple[Any, ...]
    values: Values
    idle: tuple[Tensor, Tensor, Tensor, Tensor]


def make_plan(owner: nn.Module, form: Form, known: tuple[Any, ...], y: Tensor, places: torch.Size) -> Plan:
    """known: the owner's fingerprint and its entries.  places: of the outputs, (T, lanes)."""
    key = (*known, (tuple(y.shape), y.stride(), str(y.dtype), str(y.device)), tuple(places), form_key(form))
    clocks = form.rules.clocks.shape(y)
    row = torch.zeros((len(Row._fields), *clocks), dtype=torch.float64, device=y.device)
    under_way = torch.zeros((), dtype=torch.bool, device=y.device)
    place = torch.ones(places[1], dtype=torch.int64, device=y.device)
    # Each a tensor of its own: an exported program takes two that are one for one ever after.
    idle = (under_way, row, torch.zeros_like(y), place)
    return Plan(form, (*key, "solve"), (*key, "walk"), Values(owner), idle)


@dataclasses.dataclass(frozen=True)
class WholeSolve:
    """One solve by whole programs.

    times: [T, lanes], padded to as many places as the program has.
    theta: what gradients are wanted of.
    values: the owner's, with which the way back goes on though the owner may get others meanwhile.
    """

    problem: Problem
    natives: Natives
    calls: Calls
    plan: Plan
    y: Tensor
    times: Tensor
    theta: tuple[Tensor, ...]
    values: list[Tensor]

    @property
    def form(self) -> Form:
        """What the programs depend on besides tensors."""
        return self.plan.form

    @property
    def wanted(self) -> bool:
        """Whether there is something to differentiate by."""
        return any(x.requires_grad for x in (self.problem.z0, self.problem.t, *self.theta))

    def as_it_was(self) -> contextlib.AbstractContextManager[None]:
        """The owner with the values that it had in the forward pass."""
        owner = self.problem.func
        values = dict(zip(values_of(owner), self.values, strict=True))
        return stateless._reparametrize_module(owner, values, tie_weights=True)

    def forward(self) -> Arrived | None:
        """The forward pass; None where there is no program. StrandedError where the solve does not arrive."""
        if isinstance(self.problem, SharedProblem) and self.form.rules.fixed:
            own = (self.natives, self.calls, self.form, self.plan.solve_key, self.y, self.times, self.values)
            found = AlongGrid(self.problem, *own).forward()
            steps = [Piece(*piece) for piece in found.pieces]
            none = self.y.new_empty(0)  # asked for by no walk along a grid
            return Arrived(found.values, found.slopes, found.told, steps, none, versions_of(self.values))
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
                if form.rules.fixed:
                    raise StrandedError  # as along a grid
                return None
            told, row, y, k, place, dt_first = program(self.problem.func, self.values, start, stand, memory)
            first = dt_first if first is None else first
            n_kept, made, arrived, goes_on, *_ = told.tolist()  # host read
            n_made += int(made)
            if self.form.recorded:
                pieces.append(Piece(torch.full_like(start.most, int(n_kept)), memory))
            if not goes_on or n_made >= self.problem.settings.max_steps:
                break
            stand = Stand(torch.ones_like(stand.under_way), row, y, k, place)
            start = start._replace(most=start.most - int(made))
        if not arrived or not n_made:  # where nothing moves there is no first step to tell
            raise StrandedError
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
        n_calls = 1 + self.form.estimated + n_made * (self.form.rules.tableau.n_stages - 1)
        told = Told(row, first, n_calls)
        return Arrived(values, slopes, told, pieces, k, versions_of(self.values))

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
        if arrived.versions != versions_of(self.values):
            raise RuntimeError(
                f"a parameter or buffer of {type(self.problem.func).__name__} has been modified by an "
                "inplace operation after the solve, and the backward pass needs its value: go backward first."
            )
        stats, stages = self.problem.stats, self.problem.settings.tableau.n_stages - 1
        g, carry = self._cotangents(g)
        for piece in reversed(arrived.pieces):
            trail = Trail(piece.n, *piece.memory[:3], self.times)
            program = self._walking(trail, g, carry)
            if program is None:
                return None
            begun, off, place, lam, held, *sums = program(self.problem.func, self.values, trail, g, carry)
            closed, totals = sums[: len(sums) // 2], sums[len(sums) // 2 :]
            carry = (place, lam, held, totals)
            n = stages * int(piece.n)
            stats.nfe_backward, stats.nfe_recomputed = stats.nfe_backward + n, stats.nfe_recomputed + n
        stats.nfe_backward, stats.nfe_recomputed = stats.nfe_backward + 1, stats.nfe_recomputed + 1
        refuse_unlike(float(off), self.y.dtype, self.problem.reverse.complain)  # host read
        return begun, closed

    def ready(self, arrived: Arrived) -> bool:
        """Whether there is a program for the walk back, too."""
        if self.plan.walk_key in self.natives.known:
            return self.natives.known[self.plan.walk_key] is not None
        g, carry = self._cotangents(torch.zeros_like(arrived.values))
        piece = arrived.pieces[0]
        return self._walking(Trail(piece.n, *piece.memory[:3], self.times), g, carry) is not None

    # What the programs are called with

    def _start(self) -> tuple[Start, Stand]:
        settings, y, clocks = self.problem.settings, self.y, self.problem.clocks
        ends = self.times[:: self.problem.t.shape[-1] - 1][:2].reshape(2, *clocks.shape(y)).clone()
        dt0 = settings.dt if self.form.rules.fixed else settings.dt0
        if not isinstance(dt0, Tensor):
            dt0 = torch.full_like(ends[0], torch.nan if dt0 is None else dt0)
        most = torch.full((1,), settings.max_steps, dtype=torch.int64, device=y.device)
        # Tensors of a user's may be one, lie in one another or be expanded, and a program is for one layout.
        given = (dt0, *settings.tolerance.tensors(y))
        dt0, rtol, atol = (x.detach().clone(memory_format=torch.contiguous_format) for x in given)
        under_way, row, k, place = self.plan.idle
        return Start(ends, dt0, rtol, atol, most, self.times), Stand(under_way, row, y, k, place)

    def _memory(self, out: Tensor, slopes: Tensor) -> Memory:
        y, n = self.y, 0
        if self.form.recorded:
            n = room(y, 2 + self.form.rules.tableau.n_stages if self.form.dense else 1)
        shape = (n, len(Row._fields), *self.problem.clocks.shape(y))
        rows = torch.empty(shape, dtype=torch.float64, device=y.device)
        stages = y.new_empty((n, self.form.rules.tableau.n_stages if self.form.dense else 0, *y.shape))
        return Memory(rows, rows_like(n, y, y.stride()), rows_like(n, y, y.stride()), out, slopes, stages)

    def _cotangents(self, g: Tensor) -> tuple[Tensor, tuple[Any, ...]]:
        """g with a row for each place, and (place, λ, held, θ's sums) to begin the walk with."""
        place = torch.full((self.times.shape[1],), len(g) - 1, dtype=torch.int64, device=g.device)
        last = torch.zeros_like(self.y) if self.form.inside else with_strides(g[-1], self.y.stride()).clone()
        carry = (place, last, torch.zeros_like(self.y), [torch.zeros_like(p) for p in self.theta])
        if len(g) < len(self.times):
            g = torch.cat((g, g.new_zeros((len(self.times) - len(g), *g.shape[1:]))))
        return g, carry

    # The programs, held once against the plain functions

    def _solving(self, start: Start, stand: Stand, memory: Memory) -> Any:
        key = (*self.plan.solve_key, tuple(start.rtol.shape), tuple(start.atol.shape))
        make = functools.partial(solve_program, self.form, self.calls)
        arguments = (start, stand, memory)
        return self.natives.find(key, make, self.problem.func, arguments, self._solves_alike)

    def _walking(self, trail: Trail, g: Tensor, carry: Any) -> Any:
        settings, clocks, y = self.problem.settings, self.problem.clocks, self.y
        numeric = settings.tableau.numeric(y.dtype, y.device)
        along = self.form.rules.fixed and isinstance(self.problem, SharedProblem)

        def make() -> Any:
            calls = self.calls.split(self.problem.func, clocks.time(trail.rows[0, T0], y), y)
            return walk_program(
                Way(calls, settings.tableau, numeric, outputs=self.form.inside, clocks=clocks, spares=along)
            )

        return self.natives.find(
            self.plan.walk_key, make, self.problem.func, (trail, g, carry), self._walks_alike
        )

    def _solves_alike(self, program: Any, function: Any, arguments: tuple[Any, ...]) -> bool:
        """Whether it begins, and makes one attempt, as the function it was made of and the checked field.

        The attempt is eight times as long as the first would be: of one so short the error is rounding.
        """
        start, stand, memory = arguments
        func, values, clocks, eps = (
            self.problem.func,
            self.values,
            self.problem.clocks,
            torch.finfo(self.y.dtype).eps,
        )
        none, one = (start._replace(most=start.most * 0 + n) for n in (0, 1))
        _, row, y, k, place, dt = program(func, values, none, stand, memory)
        first = self.problem.plain(clocks.time(start.ends[0], y), y)
        if not near([k], [first]) or not _close(dt, function(func, values, none, stand, memory)[-1], 0.05):
            return False
        row[DT] = torch.minimum(8.0 * dt, 0.5 * (start.ends[1] - start.ends[0]).abs())
        begun = Stand(torch.ones_like(stand.under_way), row, y, k, place)
        _, row, *found = program(func, values, one, begun, memory)
        _, expected, *state = function(func, values, one, begun, memory)
        z, end = (x.nan_to_num(0.0, 0.0, 0.0).abs() for x in (y, state[0]))  # a sample may have no numbers
        size = (z.amax() + end.amax()) / (start.atol + start.rtol * z).amin()
        noise = 30.0 * eps * float(size)
        return near(found[:2], state[:2]) and _close(row[RATIO], expected[RATIO], 0.05, noise)

    def _walks_alike(self, program: Any, function: Any, arguments: tuple[Any, ...]) -> bool:
        """Whether its first step back is that of the function it was made of."""
        trail, g, carry = arguments
        trail = trail._replace(n=torch.ones_like(trail.n))
        g = torch.cos(torch.arange(g.numel(), dtype=g.dtype, device=g.device)).view(g.shape)
        carry = (carry[0], with_strides(g[-1], self.y.stride()).clone(), *carry[2:])
        func, values = self.problem.func, self.values
        return near(program(func, values, trail, g, carry), function(func, values, trail, g, carry))


def _close(found: Tensor, expected: Tensor, relative: float, absolute: float = 0.0) -> bool:
    """Whether numbers of clocks are equal but for so much; NaN is equal to NaN."""
    same = (found - expected).abs() <= relative * expected.abs() + absolute
    return bool((same | (found.isnan() & expected.isnan())).all())


def whole_solve(problem: Problem, gradient: Gradient | None) -> WholeSolve | None:
    """The solve by whole programs, where it can be."""
    if not _eligible(problem, gradient):
        return None
    owner, settings = problem.func, problem.settings
    entries = ENTRIES if isinstance(owner, Dynamics) else ENTRIES[:1]
    known = comparable(owner, entries)
    if known is None:
        return None
    calls: Calls = DynamicsCalls() if isinstance(owner, Dynamics) else ModuleCalls()
    theta = tuple(calls.theta(owner)) if gradient is not None else ()
    wanted = gradient is not None and any(x.requires_grad for x in (problem.z0, problem.t, *theta))
    dense = wanted and isinstance(gradient, Interpolating)
    recorded = wanted and not isinstance(gradient, Backsolve)
    y, times = regular(problem.z0.detach()), problem.lanes()
    inside, slopes = len(times) > 2, wanted and problem.t.requires_grad
    if (inside or dense) and settings.tableau.c_dense:
        return None
    if inside:
        more = max(FEWEST, 1 << (len(times) - 1).bit_length()) - len(times)
        times = torch.cat((times, times.new_full((more, times.shape[1]), torch.nan)))
    fixed, judges = settings.fixed, (settings.norm, settings.controller)
    if fixed and isinstance(problem, SharedProblem):
        judges = NOBODY
    own = (settings.tableau, *judges, problem.clocks)
    flags = (settings.dt0 is None and not fixed, recorded, inside, slopes, dense)
    shape = (y.shape, y.stride(), y.dtype, times.shape)
    natives, key = Natives.of(owner), (known, own, fixed, flags, shape)
    plan = natives.notes.get(key)
    if plan is None:
        tableau, norm, controller, clocks = own
        numeric = tableau.numeric(y.dtype, y.device)
        rules = Rules(tableau, numeric, norm, controller, clocks, fixed=fixed)
        plan = natives.notes[key] = make_plan(owner, Form(rules, *flags), (known, entries), y, times.shape)
    return WholeSolve(problem, natives, calls, plan, y, times, theta, plan.values.now())


def _eligible(problem: Problem, gradient: Gradient | None) -> bool:
    """Whether the host need not look before the end."""
    wish, settings, owner = problem.wish, problem.settings, problem.func
    if not isinstance(owner, nn.Module) or problem.z0.device.type != "cpu" or type(problem.z0) is not Tensor:
        return False
    if transformed():  # native code sees neither a transform's wrappers nor tangents
        return False
    if isinstance(gradient, Discrete):
        if gradient.checkpoints is not None:  # every step's state is kept here
            return False
    elif gradient is not None and not _solved_back(problem, gradient):
        return False
    if wish.every_step or wish.dense or wish.events is not None or wish.trace is not None:
        return False
    if problem.autocast.enabled or problem.named or not problem.z0.numel():
        return False
    layout = getattr(problem.plain, "layout", None)  # a Dynamics has none
    if layout is not None and not layout.direct:
        return False
    shared = isinstance(problem, SharedProblem)
    if norm_name(settings.norm) is None and not (shared and settings.fixed):  # along a grid nothing is judged
        return False
    if isinstance(problem, SampleProblem):
        own = settings.compact or settings.together is not None or settings.dt0_open
        return not own and not len(settings.stops)
    assert isinstance(problem, SharedProblem)
    stops = settings.jump_at or settings.perturb or (settings.step_at and not settings.fixed)
    return problem.observers == Observers() and not stops


def _solved_back(problem: Problem, gradient: Gradient) -> bool:
    """Whether the way back is a reverse solve at which the host need not look."""
    reverse = problem.reverse
    if not isinstance(gradient, (Backsolve, Interpolating)) or isinstance(problem, SampleProblem):
        return False
    if problem.settings.fixed:
        return False
    own = reverse.settings or problem.settings
    plain = own.norm == problem.settings.norm and not (own.fixed or own.step_at or own.jump_at)
    return plain and not looked_at(reverse) and reverse.trace is None and reverse.watch is None
