"""Solves along a fixed grid by a native program."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...solvers.checks import all_finite
from ...solvers.device.along import Course, Point, along_program
from ...solvers.device.natives import Natives, near
from ...solvers.device.programs import Row
from ...solvers.device.whole import ACCEPTED, T0, T1, Form, Memory, room
from ...solvers.march.output import as_time
from ...solvers.solve import grid_of
from ...solvers.step.attempt import SUCCESS
from ...solvers.step.clocks import ONE, times_between
from ...solvers.step.controller import PID
from ...solvers.step.runge_kutta import StageList, rk_step, rows_like, with_strides
from ..dynamics.traced import Calls
from .problem import SharedProblem, StrandedError, Told

LENGTH = 128  # steps that one call makes at most where it records none
NOBODY = (ONE.rms, PID())  # who judges steps along a grid, for the rules: that of all solves is one


class Walked(NamedTuple):
    """What came out of a solve along a grid: the values [T, *S], and f there where wanted; what it tells; of
    each piece the number of steps, [1], and its memory, where recorded."""

    values: Tensor
    slopes: Tensor | None
    told: Told
    pieces: list[tuple[Tensor, Memory]]


@dataclasses.dataclass(frozen=True)
class AlongGrid:
    """The forward pass.

    key: of the program.
    times: [T, 1], padded.
    values: the owner's.
    """

    problem: SharedProblem
    natives: Natives
    calls: Calls
    form: Form
    key: tuple[Any, ...]
    y: Tensor
    times: Tensor
    values: list[Tensor]

    def forward(self) -> Walked:
        """StrandedError where there is no program, or a value is not finite: eager steps tell where."""
        problem, y, form = self.problem, self.y, self.form
        grid, _ = grid_of(problem.times, problem.settings)
        n = len(grid) - 1
        # Outputs inside a step need f at its end; the next step needs it in any case.
        n_ended = n if form.slopes or self._inside_the_last(grid) else n - 1
        out, slopes = self._rows(form.inside), self._rows(form.inside and form.slopes)
        point, first, pieces = self._example(), y, []
        for begin in range(0, n, self.length):
            course = self._course(grid[begin : begin + self.length + 1], n_ended - begin)
            memory = self._memory(course, out, slopes)
            program = self._program(course, point, memory)
            if program is None:
                raise StrandedError  # nothing is compiled one step by one
            if self._carries and not begin:
                first = with_strides(problem.plain(problem.start, y).clone(), y.stride())
                point = point._replace(k=first)
            point = Point(*program(problem.func, self.values, course, point, memory))
            pieces.append((course.most, memory))
        places = len(problem.times)
        values = out[:places] if form.inside else torch.stack((y, point.y))
        values[0] = y
        if not all_finite(values):
            raise StrandedError
        derivatives = None
        if form.slopes:
            derivatives = slopes[:places] if form.inside else torch.stack((first, point.k))
            derivatives[0] = first
        return Walked(values, derivatives, self._told(grid, n_ended), pieces if form.recorded else [])

    @property
    def length(self) -> int:
        """Steps that one call makes at most."""
        return room(self.y.numel() * self.y.element_size()) if self.form.recorded else LENGTH

    @property
    def _carries(self) -> bool:
        return self.form.inside or self.form.slopes

    def _told(self, grid: Sequence[float], n_ended: int) -> Told:
        n, stages = len(grid) - 1, self.form.rules.tableau.n_stages - 1
        row = Row(*[0.0] * len(Row._fields))._replace(
            t=grid[-1], dt=abs(grid[-1] - grid[-2]), status=float(SUCCESS), n_accepted=float(n)
        )
        told, first = (
            torch.tensor(x, dtype=torch.float64, device="cpu") for x in (row, abs(grid[1] - grid[0]))
        )
        return Told(told, first, n * stages + (n_ended == n))

    def _inside_the_last(self, grid: Sequence[float]) -> bool:
        """Whether an output lies inside the last step."""
        return self.form.inside and abs(self.problem.times[-2] - grid[-1]) < abs(grid[-2] - grid[-1])

    # What the program is called with

    def _rows(self, there: bool) -> Tensor:
        return self.y.new_empty((len(self.times) + 1 if there else 0, *self.y.shape))

    def _memory(self, course: Course, out: Tensor, slopes: Tensor) -> Memory:
        """Of one piece, with its steps' ends for the way back."""
        n, y = self.length if self.form.recorded else 0, self.y
        rows = torch.zeros((n, len(Row._fields)), dtype=torch.float64, device="cpu")
        if n:
            rows[:, T0], rows[:, T1], rows[:, ACCEPTED] = course.grid[:-1], course.grid[1:], 1.0
        states = (rows_like(n, y, y.stride()), rows_like(n, y, y.stride()))
        return Memory(rows, *states, out, slopes, y.new_empty((0, 0, *y.shape)), y.new_empty(0), ())

    def _example(self) -> Point:
        """The start, its f left open: func is not evaluated before there is a program."""
        k = torch.zeros_like(self.y) if self._carries else self.y.new_empty(0)
        return Point(self.y, k, torch.ones(1, dtype=torch.int64, device="cpu"))

    def _course(self, grid: Sequence[float], n_ended: int) -> Course:
        points = [*grid, *itertools.repeat(float("nan"), self.length + 1 - len(grid))]
        most, ended = (torch.tensor([n], dtype=torch.int64, device="cpu") for n in (len(grid) - 1, n_ended))
        return Course(torch.tensor(points, dtype=torch.float64, device="cpu"), most, ended, self.times)

    # The program, held once against a step of the checked field

    def _program(self, *arguments: Any) -> Any:
        make = functools.partial(along_program, self.form, self.calls)
        return self.natives.find(self.key, make, self.problem.func, arguments, self._alike)

    def _alike(self, program: Any, function: Any, arguments: tuple[Any, ...]) -> bool:
        """Whether half of its first step is that of the checked field: at the whole one's end, which may be
        the solve's, f need not be defined."""
        course, point, memory = arguments
        one, grid = torch.ones_like(course.most), course.grid.clone()
        grid[1] = 0.5 * (grid[0] + grid[1])
        course = course._replace(grid=grid, most=one, ended=one)
        y1, k1, _ = program(self.problem.func, self.values, course, point, memory)
        rules, y, (t0, t1) = self.form.rules, self.y, course.grid[:2].tolist()
        plain = lambda t, z: (self.problem.plain(t, z), None)  # noqa: E731
        times = [as_time(t, y) for t in times_between(t0, t1, rules.numeric.c)]
        first = (point.k, None) if self._carries else plain(times[0], y)
        stages = StageList(rules.numeric, t1 - t0)
        made = rk_step(plain, y, first, times, rules.tableau, stages, evaluate_end=self._carries)
        if not self._carries:
            return near([y1], [made.y1])
        return near([y1, k1], [made.y1, made.stages.get(rules.tableau.n_stages - 1)])
