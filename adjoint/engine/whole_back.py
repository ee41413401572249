"""The reverse solve of a continuous adjoint by whole programs: from one output to the one before a call.

What does not arrive, or is too far off, is solved once more the other way, from the start: so it tells what
went wrong, and has the states along the forward pass that help where the state is lost.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import torch
from torch import Tensor

from ...solvers.device.natives import near
from ...solvers.device.whole import T0, T1, Form, form_key
from ...solvers.solve import Settings
from ...solvers.step.attempt import Rules
from ...solvers.step.clocks import ONE, Tolerance
from ...solvers.step.runge_kutta import regular, with_strides
from ..continuous.stepping import looser, reverse_settings
from ..continuous.ways import patience
from ..continuous.whole import Leg, Past, Told, leg_program
from ..dynamics.adapt import refuse_unlike
from ..gradients import Backsolve, Interpolating
from ..recording import Result
from .problem import Problem
from .whole import Arrived, Piece, WholeSolve


@dataclasses.dataclass(frozen=True)
class WholeBack:
    """The reverse solve of one solve that whole programs have made.

    settings: of the reverse solve.
    last: f at the end of the forward solve.
    past: its steps, where the state is looked up, else ().
    pieces: what holds their memory.
    """

    whole: WholeSolve
    gradient: Backsolve | Interpolating
    settings: Settings
    last: Tensor
    past: Past | tuple[()]
    pieces: list[Piece]

    @functools.cached_property
    def rules(self) -> Rules:
        """Of the reverse solve, the norm that of a state."""
        settings, y = self.settings, self.whole.y
        numeric = settings.tableau.numeric(y.dtype, y.device)
        return Rules(settings.tableau, numeric, settings.norm, settings.controller, ONE)

    def ready(self) -> bool:
        """Whether there is a program."""
        y, last = self.whole.y, len(self.whole.problem.times) - 1
        return self._program(self._leg(last, (y, y), torch.ones_like(y), self._first())) is not None

    def walk(self, values: Tensor, g: Tensor) -> Result | None:
        """The gradients, for the outputs' values and cotangents, [T, *S]; None where the host must look."""
        problem, stages = self.whole.problem, self.rules.tableau.n_stages - 1
        limit = self.gradient.reconstruction_limit if isinstance(self.gradient, Backsolve) else math.inf
        a, dt, totals = g[-1], self._first(), None
        accepted, rejected, furthest, nfe = 0, 0, 0.0, int(math.isnan(dt))
        for i in range(len(g) - 1, 0, -1):
            leg = self._leg(i, (values[i], values[i - 1]), a, dt, totals)
            program = self._program(leg)
            if program is None:
                return None
            numbers, pair, *totals = program(problem.func, self.whole.values, leg)
            told = Told(*numbers.tolist())  # host read
            if i == len(g) - 1:  # before another forward solve would hide it
                refuse_unlike(told.unlike, a.dtype, problem.reverse.complain)
            if not told.arrived or not (self.past or told.off <= limit):
                return None
            accepted, rejected = accepted + int(told.n_accepted), rejected + int(told.n_rejected)
            furthest, dt, nfe = max(furthest, told.off), told.dt, nfe + 1
            a = pair[1] if i == 1 else pair[1] + g[i - 1]
        stats = problem.stats
        stats.nfe_backward += nfe + stages * (accepted + rejected)
        stats.n_accepted_backward += accepted
        stats.n_rejected_backward += rejected
        if not self.past:
            stats.reconstruction_error = furthest
        assert totals is not None
        return a, totals

    def _first(self) -> float:
        """|dt| to begin with: the last forward step's where it is known, else NaN for Hairer's estimate."""
        if not self.past:
            return math.nan
        row = self.past.rows[int(self.past.n) - 1]
        return abs(float(row[T1] - row[T0]))

    def _leg(self, i: int, states: tuple[Tensor, Tensor], a: Tensor, dt: float, totals: Any = None) -> Leg:
        """From output i to the one before. states: at both."""
        problem, y, (begin, end) = self.whole.problem, self.whole.y, states
        ours, theirs = self.settings.tolerance, problem.settings.tolerance
        loose = Tolerance(looser(ours.rtol, theirs.rtol), looser(ours.atol, theirs.atol))
        most = self.settings.max_steps
        if isinstance(self.gradient, Backsolve) and self.gradient.anchors:
            most = min(most, patience(problem.stats))
        # Each a tensor of its own: an exported program takes two that are one for one ever after.
        rtol, atol = (x.clone() for x in ours.tensors(y))
        return Leg(
            torch.tensor([problem.times[i], problem.times[i - 1]], dtype=torch.float64, device="cpu"),
            torch.tensor(dt, dtype=torch.float64, device="cpu"),
            rtol,
            atol,
            [x.clone() for x in loose.tensors(y)],
            torch.tensor([most], dtype=torch.int64, device="cpu"),
            regular(torch.stack((begin, a))),
            self.last,
            with_strides(end, y.stride()).clone(),
            [torch.zeros_like(p) for p in self.whole.theta] if totals is None else totals,
            self.past,
        )

    def _program(self, leg: Leg) -> Any:
        """The program, held once against the plain function."""
        whole, pair = self.whole, leg.pair
        owner, tolerances = whole.problem.func, (leg.rtol, leg.atol, *leg.loose)
        shape = (tuple(pair.shape), pair.stride(), str(pair.dtype), str(pair.device))
        shapes = tuple(tuple(x.shape) for x in tolerances)
        kind = ("interpolating", form_key(whole.form), len(self.past.rows)) if self.past else ("backsolve",)
        key = (*whole.plan.solve_key[:2], shape, *kind, form_key(Form(self.rules)), shapes)

        def make() -> Any:
            calls = whole.calls.split(owner, leg.ends[0].to(pair.dtype), pair[0])
            return leg_program(self.rules, calls, whole.form.rules.numeric if self.past else None)

        return whole.natives.find(key, make, owner, (leg,), self._alike)

    def _alike(self, program: Any, function: Any, arguments: tuple[Any, ...]) -> bool:
        """Whether its first attempt is that of the function it was made of."""
        (leg,) = arguments
        owner, leg = self.whole.problem.func, leg._replace(most=torch.ones_like(leg.most))
        # Without what it tells: distances in tolerances, beside which all else is small.
        values = self.whole.values
        return near(program(owner, values, leg)[1:], function(owner, values, leg)[1:])


def _joined(pieces: list[Piece]) -> Past:
    """The steps of all pieces, with room for a power of two times as many as one holds."""
    if len(pieces) == 1:
        memory = pieces[0].memory
        return Past(pieces[0].n, memory.rows, memory.ys, memory.stages)
    room = len(pieces[0].memory.rows) << (len(pieces) - 1).bit_length()
    n = sum(int(piece.n) for piece in pieces)
    found = []
    for column in ("rows", "ys", "stages"):
        parts = [getattr(piece.memory, column)[: int(piece.n)] for piece in pieces]
        parts.append(parts[0].new_empty((room - n, *parts[0].shape[1:])))
        found.append(torch.cat(parts))
    return Past(torch.full_like(pieces[0].n, n), *found)


def whole_back(whole: WholeSolve, gradient: Backsolve | Interpolating, arrived: Arrived) -> WholeBack:
    """The reverse solve of a whole solve."""
    problem: Problem = whole.problem
    settings = problem.reverse.settings or reverse_settings(problem.settings, gradient)
    assert arrived.last is not None
    past = _joined(arrived.pieces) if arrived.pieces else ()
    return WholeBack(whole, gradient, settings, arrived.last, past, arrived.pieces)
