"""Solves along a fixed grid by a native program."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...solvers.checks import all_finite
from ...solvers.device.along import Course, Point, along_program
from ...solvers.device.natives import Natives, near
from ...solvers.device.programs import Row
from ...solvers.device.whole import Form, Memory, form_key
from ...solvers.march.output import as_time
from ...solvers.solve import grid_of
from ...solvers.step.attempt import SUCCESS, Rules
from ...solvers.step.clocks import ONE, times_between
from ...solvers.step.controller import PID
from ...solvers.step.runge_kutta import StageList, rk_step
from ..dynamics.traced import Calls
from .problem import SharedProblem, Told

LENGTH = 256  # steps that one call makes at most: 2 kB of times


def grid_rules(problem: SharedProblem, like: Tensor) -> Rules:
    """What a step depends on; nothing that judges one, which another solve may have otherwise."""
    tableau = problem.settings.tableau
    return Rules(tableau, tableau.numeric(like.dtype, like.device), ONE.rms, PID(), ONE, fixed=True)


@dataclasses.dataclass(frozen=True)
class AlongGrid:
    """The forward pass.

    known: what tells the owner's programs apart.
    times: [T, 1], padded.
    """

    problem: SharedProblem
    natives: Natives
    calls: Calls
    form: Form
    known: tuple[Any, ...]
    y: Tensor
    times: Tensor

    def forward(self) -> tuple[Tensor, Told] | None:
        """(the values [T, *S], what a whole solve tells); None where there is no program, or a value is not
        finite: a step that decides for itself tells where."""
        problem, y = self.problem, self.y
        grid, _ = grid_of(problem.times, problem.settings)
        n, n_ended = len(grid) - 1, len(grid) - 2 + self._inside_the_last(grid)
        memory, point = self._memory(), self._point()
        for begin in range(0, n, LENGTH):
            course = self._course(grid[begin : begin + LENGTH + 1], n_ended - begin)
            program = self._program(course, point, memory)
            if program is None:
                return None
            point = Point(*program(problem.func, course, point, memory))
        values = torch.stack((y, point.y))
        if self.form.inside:
            values = memory.out[: len(problem.times)]
            values[0] = y
        if not all_finite(values):
            return None
        return values, self._told(grid, n_ended)

    def _told(self, grid: Sequence[float], n_ended: int) -> Told:
        n, stages = len(grid) - 1, self.form.rules.tableau.n_stages - 1
        row = Row(*[0.0] * len(Row._fields))._replace(
            t=grid[-1], dt=abs(grid[-1] - grid[-2]), status=float(SUCCESS), n_accepted=float(n)
        )
        first = torch.full((), abs(grid[1] - grid[0]), dtype=torch.float64)
        calls = n * stages + (n_ended == n and self.form.inside)
        return Told(torch.tensor(row, dtype=torch.float64), first, calls)

    def _inside_the_last(self, grid: Sequence[float]) -> bool:
        """Whether an output lies inside the last step, and so needs f at its end."""
        return self.form.inside and abs(self.problem.times[-2] - grid[-1]) < abs(grid[-2] - grid[-1])

    # What the program is called with

    def _memory(self) -> Memory:
        rows = [self.y.new_empty((0, *self.y.shape)) for _ in range(4)]
        out = self.y.new_empty((len(self.times) + 1 if self.form.inside else 0, *self.y.shape))
        return Memory(*rows[:3], out, rows[3])

    def _point(self) -> Point:
        y, place = self.y, torch.ones(1, dtype=torch.int64)
        if not self.form.inside:
            return Point(y, y.new_empty(0), place)
        return Point(y, self.problem.plain(self.problem.start, y).clone(), place)

    def _course(self, grid: Sequence[float], n_ended: int) -> Course:
        points = [*grid, *itertools.repeat(float("nan"), LENGTH + 1 - len(grid))]
        most, ended = (torch.full((1,), n, dtype=torch.int64) for n in (len(grid) - 1, n_ended))
        return Course(torch.tensor(points, dtype=torch.float64), most, ended, self.times)

    # The program, held once against a step of the checked field

    def _program(self, *arguments: Any) -> Any:
        make = functools.partial(along_program, self.form, self.calls)
        key = (*self.known, "along", form_key(self.form))
        return self.natives.find(key, make, self.problem.func, arguments, self._alike)

    def _alike(self, program: Any, function: Any, arguments: tuple[Any, ...]) -> bool:
        """Whether its first step is that of the checked field."""
        course, point, memory = arguments
        one = torch.ones_like(course.most)
        y1, k1, _ = program(self.problem.func, course._replace(most=one, ended=one), point, memory)
        rules, y, (t0, t1) = self.form.rules, self.y, course.grid[:2].tolist()
        plain = lambda t, z: (self.problem.plain(t, z), None)  # noqa: E731
        times = [as_time(t, y) for t in times_between(t0, t1, rules.numeric.c)]
        stages, first = StageList(rules.numeric, t1 - t0), plain(times[0], y)
        inside = self.form.inside
        made = rk_step(plain, y, first, times, rules.tableau, stages, evaluate_end=inside)
        if not inside:
            return near([y1], [made.y1])
        return near([y1, k1], [made.y1, made.stages.get(rules.tableau.n_stages - 1)])
