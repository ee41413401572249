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
from torch import Tensor
from torch.nn.utils import stateless

from ...solvers.device.lease import Lease
from ...solvers.device.native import values_of
from ...solvers.device.natives import Natives, near
from ...solvers.device.programs import Row
from ...solvers.device.whole import (
    DT,
    RATIO,
    T0,
    Form,
    Memory,
    Stand,
    Start,
    room,
    solve_program,
)
from ...solvers.step.runge_kutta import dense_strides, rows_like, with_strides
from ..discrete.compiled import Way
from ..discrete.whole import Trail, walk_program
from ..dynamics.adapt import refuse_unlike
from ..dynamics.traced import Calls
from ..recording import Result
from .plan import Plan
from .problem import Problem, SharedProblem, StrandedError, Told
from .whole_grid import AlongGrid


class Piece(NamedTuple):
    """n attempts, [1], that one call recorded in its memory; and what holds that, where it is lent."""

    n: Tensor
    memory: Memory
    lease: Lease | None = None


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


@dataclasses.dataclass(frozen=True)
class WholeSolve:
    """One solve by whole programs.

    times: [T, lanes], padded to as many places as the program has.
    start: what the first call takes; None: the steps are a grid's.
    theta: what gradients are wanted of.
    values: the owner's, with which the way back goes on though the owner may get others meanwhile.
    """

    problem: Problem
    natives: Natives
    calls: Calls
    plan: Plan
    y: Tensor
    times: Tensor
    start: Start | None
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
        if self.start is None:
            assert isinstance(self.problem, SharedProblem)
            own = (self.natives, self.calls, self.form, self.plan.solve_key, self.y, self.times, self.values)
            found = AlongGrid(self.problem, *own).forward()
            steps = [Piece(*piece) for piece in found.pieces]
            none = self.y.new_empty(0)  # asked for by no walk along a grid
            return Arrived(found.values, found.slopes, found.told, steps, none, versions_of(self.values))
        start, stand = self.start, self.plan.idle._replace(y=self.y)
        form, shape = self.form, self.y.shape
        out = self.y.new_empty((len(self.times) + 1 if form.inside else 0, *shape))
        n_slopes = (len(self.times) + 1 if form.inside else 1) if form.slopes else 0
        slopes = self.y.new_empty((n_slopes, *shape))
        pieces: list[Piece] = []
        n_made, first = 0, None
        while True:
            lease = self._lease()
            memory = lease.memory._replace(out=out, slopes=slopes)
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
                pieces.append(Piece(torch.full_like(start.most, int(n_kept)), memory, lease))
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
            trail = self._trail(piece)
            program = self._walking(trail, g, carry)
            if program is None:
                return None
            begun, off, place, lam, held, *sums = program(self.problem.func, self.values, trail, g, carry)
            closed, totals = sums[: len(sums) // 2], sums[len(sums) // 2 :]
            carry = (place, lam, held, totals)
            n = stages * int(piece.n)
            stats.nfe_backward += n
            stats.nfe_recomputed += n if self.form.recipe is None else 0
        stats.nfe_backward, stats.nfe_recomputed = stats.nfe_backward + 1, stats.nfe_recomputed + 1
        refuse_unlike(float(off), self.y.dtype, self.problem.reverse.complain)  # host read
        return begun, closed

    def ready(self, arrived: Arrived) -> bool:
        """Whether there is a program for the walk back, too."""
        if self.plan.walk_key in self.natives.known:
            return self.natives.known[self.plan.walk_key] is not None
        g, carry = self._cotangents(torch.zeros_like(arrived.values))
        return self._walking(self._trail(arrived.pieces[0]), g, carry) is not None

    def _trail(self, piece: Piece) -> Trail:
        memory = piece.memory
        return Trail(piece.n, *memory[:3], self.times, memory.states, memory.kept)

    # What the programs are called with

    def _lease(self) -> Lease:
        """What is recorded goes into memory that is used again; what the caller gets never lies there."""
        attempts = self._attempts()
        return Lease((self.plan.solve_key, attempts), functools.partial(self._memory, attempts))

    def _attempts(self) -> int:
        """How many a piece of memory holds."""
        form, y = self.form, self.y
        if not form.recorded:
            return 0
        n_dense = form.rules.tableau.n_stages + 1 if form.dense else 0
        n_kept = 0 if form.recipe is None else form.rules.tableau.n_stages - 1
        of_state = y.numel() * y.element_size() * (1 + n_kept + n_dense)
        return room(of_state + n_kept * sum(x.numel() * x.element_size() for x in self.plan.kept))

    def _memory(self, n: int) -> Memory:
        """Of one piece, without the outputs. n: attempts."""
        y, form = self.y, self.form
        n_dense = form.rules.tableau.n_stages if form.dense else 0
        n_kept = 0 if form.recipe is None else form.rules.tableau.n_stages - 1
        shape = (n, len(Row._fields), *self.problem.clocks.shape(y))
        rows = torch.empty(shape, dtype=torch.float64, device=y.device)
        stages, none = y.new_empty((n, n_dense, *y.shape)), y.new_empty(0)
        ys, ks, states = (rows_like(i, y, y.stride()) for i in (n, n, n * n_kept))
        kept = tuple(_rows(n * n_kept, x, y.device) for x in self.plan.kept)
        return Memory(rows, ys, ks, none, none, stages, states, kept)

    def _cotangents(self, g: Tensor) -> tuple[Tensor, tuple[Any, ...]]:
        """g with a row for each place, and (place, λ, held, θ's sums) to begin the walk with."""
        place = torch.full((self.times.shape[1],), len(g) - 1, dtype=torch.int64, device=g.device)
        last, *sums = self.plan.sums
        if not self.form.inside:
            last = with_strides(g[-1], self.y.stride()).clone()
        carry = (place, last, *sums)
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
        along = self.start is None

        def make() -> Any:
            calls = self.calls.split(self.problem.func, clocks.time(trail.rows[0, T0], y), y)
            own = (calls, settings.tableau, numeric, self.form.recipe)
            return walk_program(Way(*own, outputs=self.form.inside, clocks=clocks, spares=along))

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


def _rows(n: int, x: Tensor, device: torch.device) -> Tensor:
    """Uninitialised [n, *x.shape] in x's memory order."""
    strides = (x.numel(), *dense_strides(x))
    return torch.empty_strided((n, *x.shape), strides, dtype=x.dtype, device=device)


def _close(found: Tensor, expected: Tensor, relative: float, absolute: float = 0.0) -> bool:
    """Whether numbers of clocks are equal but for so much; NaN is equal to NaN."""
    same = (found - expected).abs() <= relative * expected.abs() + absolute
    return bool((same | (found.isnan() & expected.isnan())).all())
