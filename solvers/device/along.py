"""A solve along a fixed grid as one function of tensors: as `whole`, where nothing is to be decided.

The host knows the grid. It gives a piece of it at a time, of one length for all solves, so that one program
serves every number of steps.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..step.attempt import settled, settling
from ..step.clocks import times_between
from ..step.runge_kutta import Field, StageList, StepResult, rk_step
from .whole import Form, Memory, Outputs, loop


class Course(NamedTuple):
    """grid [n + 1], float64: where the steps of a piece end, and where the first begins; NaN beyond the last.
    most: [1] steps.
    ended: [1] first steps at whose end f is evaluated, where outputs lie inside steps; the other steps' end
        no output needs.
    times: [T, 1], of the outputs; NaN for one that is none."""

    grid: Tensor
    most: Tensor
    ended: Tensor
    times: Tensor


class Point(NamedTuple):
    """Where a solve stands between two calls: the state; where outputs lie inside steps, or f is wanted at
    them, f there, and the output that comes next, [1]; else empty."""

    y: Tensor
    k: Tensor
    place: Tensor


@dataclasses.dataclass(frozen=True)
class Along:
    """The loop over the steps of a piece: what its functions close over."""

    form: Form
    field: Field
    course: Course
    memory: Memory

    def goes_on(self, i: Tensor, *rest: Tensor) -> Tensor:
        """Whether a step is left."""
        return (i < self.course.most).all()

    def to_end(self, i: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Step i where only its end is wanted: f(t1, y1) is the next step's first stage, or nobody's."""
        ends, times = self._times(i, y)
        k = self.field(times[0], y)[0]
        self._record(i, y, k)
        return i + 1, self._stepped(ends, times, y, k).y1

    def with_outputs(self, i: Tensor, y: Tensor, k: Tensor, place: Tensor) -> tuple[Tensor, ...]:
        """Step i with the outputs in it, which may need f(t1, y1)."""
        self._record(i, y, k)
        ends, times = self._times(i, y)
        result = self._stepped(ends, times, y, k)
        y1, last = result.y1, self.form.rules.tableau.n_stages - 1

        def at_end(new: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
            time = ends[1].to(y1.dtype)
            return torch.zeros_like(new), self.field(time, y1)[0].clone()

        # A loop of one turn or none, as in `whole`.
        _, k1 = loop(lambda new, _: new.all(), at_end, (i < self.course.ended, k))
        if self.form.inside:
            about = torch.stack((ends[0], ends[1], torch.sign(ends[1] - ends[0]), torch.ones_like(ends[0])))
            states = (y, y1, *(result.stages.get(j) for j in range(last)), k1)
            place = Outputs(self.form, self.course.times, self.memory).written(about, states, place)
        return i + 1, y1.clone(), k1.clone(), place.clone()

    def _record(self, i: Tensor, *states: Tensor) -> None:
        """Where step i begins, and f there, for a way back."""
        if self.form.recorded:
            for kept, value in zip((self.memory.ys, self.memory.ks), states, strict=True):
                kept.index_copy_(0, i, value[None])

    def _times(self, i: Tensor, like: Tensor) -> tuple[Tensor, list[Tensor]]:
        """[t0, t1] of step i, and the times of its stages as f wants them."""
        ends = torch.cat((self.course.grid.index_select(0, i), self.course.grid.index_select(0, i + 1)))
        t0, t1 = ends.unbind()
        return ends, [t.to(like.dtype) for t in times_between(t0, t1, self.form.rules.numeric.c)]

    def _stepped(self, ends: Tensor, times: list[Tensor], y: Tensor, k: Tensor) -> StepResult:
        """The step up to y1, without f there."""
        rules = self.form.rules
        dt = settled((ends[1] - ends[0]).to(y.dtype))
        stages = StageList(rules.numeric, dt)
        return rk_step(self.field, y, (k, None), times, rules.tableau, stages, evaluate_end=False)


def along_program(form: Form, calls: Any) -> Any:
    """(owner, course, point, memory) → the point after the piece, as a list.

    form: with the rules of one clock.  The outputs go into the memory.
    """

    def solve_along(owner: Any, course: Course, point: Point, memory: Memory) -> list[Tensor]:
        along = Along(form, settling(functools.partial(calls.evaluate, owner)), course, memory)
        none = torch.zeros_like(course.most)
        if form.inside or form.slopes:
            return list(loop(along.goes_on, along.with_outputs, (none, *point))[1:])
        y = loop(along.goes_on, along.to_end, (none, point.y))[1]
        return [y, point.k.clone(), point.place.clone()]

    return solve_along
