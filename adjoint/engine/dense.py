"""Differentiable questions to a dense output."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...solvers.march.clocked_dense import SampleDense
from ...solvers.march.dense import DenseOutput
from ...solvers.march.output import Place
from ...solvers.transforms import check_readable
from .differentiate import Answer
from .function import Solve, Task
from .problem import Problem
from .sample_engine import SampleAnswer, SampleProblem
from .time_move import Flow, moved_end, moved_once
from .transformed import check_untransformed, moves, transformed


class DenseQuery:
    """y(t) and y'(t) of one solve, [*t.shape, *z].

    Values are differentiable with respect to whatever the solve was, and t: an adjoint walks the
    same steps back with the asked times as its observations.  detached: of a solve without a gradient.
    """

    def __init__(self, problem: Problem, answer: Answer, *, detached: bool):
        self.problem, self.again, self.detached = problem, answer.again, detached
        self.output = DenseOutput(answer.run.steps, problem.times[0], answer.run.end)

    def _times(self, t: Tensor) -> list[float]:
        check_readable(t, "t")
        return t.detach().double().reshape(-1).tolist()  # host read

    def value(self, t: Tensor) -> Tensor:
        """y(t)."""
        times = self._times(t)
        found = self._along(times) if times else self.problem.z0.new_empty((0, *self.problem.z0.shape))
        if times and moves(t) and (torch.is_grad_enabled() or transformed()) and not self.detached:
            move, flow = moved_end if self.again is None else moved_once, Flow(self.problem.plain)
            slopes = [self.output.derivative(time) for time in times]
            rows = zip(found.unbind(), slopes, t.reshape(-1).unbind(), strict=True)
            found = torch.stack([move(flow, y, slope, own) for y, slope, own in rows])
        return found.reshape(*t.shape, *self.problem.z0.shape)

    def derivative(self, t: Tensor) -> Tensor:
        """y'(t)."""
        times = self._times(t)
        found = [self.output.derivative(time) for time in times]
        flat = torch.stack(found) if found else self.problem.z0.new_empty((0, *self.problem.z0.shape))
        return flat.reshape(*t.shape, *self.problem.z0.shape)

    def _along(self, times: list[float]) -> Tensor:
        """[n, *z]; through the adjoint where the solve had one."""
        again = self.again
        if again is None or not torch.is_grad_enabled():
            return torch.stack([self.output.value(time) for time in times])
        check_untransformed()
        asked = [self.problem.times[0], *times]
        places = [Place(-1, 1.0), *(self.output.place(time) for time in times)]

        def forward(z0: Tensor, derivatives: bool) -> tuple[Tensor, Tensor | None, Any]:
            slope = self.output.derivative(asked[0])[None] if derivatives else None
            return torch.stack([z0, *(self.output.value(time) for time in times)]), slope, None

        def backward(record: Any, values: Tensor, g: Tensor, want: bool) -> tuple[Tensor, list[Tensor]]:
            return again.backward(asked, places, list(values.unbind()), list(g.unbind()), want)

        def time_gradient(g: Tensor, slope: Tensor, a: Tensor) -> Tensor:
            """dL/dt_0 = −a · f(t_0, z_0); the other times of the solve do not matter."""
            t_bar = slope.new_zeros(len(self.problem.t))
            t_bar[0] = -(a * slope[0]).sum()
            return t_bar

        task = Task(forward, backward, time_gradient, self.problem.autocast)
        return Solve.apply(task, self.problem.z0, self.problem.t, *again.theta)[1:]


class SampleQuery:
    """The same for a per-sample solve: times [n, B] → [n, *state]."""

    def __init__(self, problem: SampleProblem, answer: SampleAnswer, *, detached: bool):
        z0, times, clocks = problem.z0, problem.times, problem.clocks
        numeric = problem.settings.tableau.numeric(z0.dtype, z0.device)
        self.problem, self.answer, self.detached = problem, answer, detached
        start = z0 if answer.start is None else answer.start
        slope0 = answer.run.slope0
        self.output = SampleDense(answer.steps, start, slope0, times[:, 0], times[:, -1], clocks, numeric)

    def value(self, t: Tensor) -> Tensor:
        """y(t), differentiable as `DenseQuery.value` is."""
        fixed = t.detach().double()
        if self.detached:
            return self.output.evaluate(fixed).detach()
        found = self._along(fixed)
        if len(t) and moves(t) and (torch.is_grad_enabled() or transformed()):
            slopes = self.output.evaluate(fixed, derivative=True)  # with a graph where autograd has the steps
            slopes = torch.where(slopes.isnan(), 0.0, slopes)
            move = moved_end if self.answer.again is None else moved_once
            flow = Flow(self.problem.flow(), self.problem.clocks)
            rows = zip(found.unbind(), slopes.unbind(), t.unbind(), strict=True)
            found = torch.stack([move(flow, y, slope, own) for y, slope, own in rows])
        return found

    def derivative(self, t: Tensor) -> Tensor:
        """y'(t)."""
        return self.output.evaluate(t.detach().double(), derivative=True)

    def _along(self, t: Tensor) -> Tensor:
        again, problem = self.answer.again, self.problem
        if again is None or not torch.is_grad_enabled():
            return self.output.evaluate(t)
        check_untransformed()

        def forward(z0: Tensor, derivatives: bool) -> tuple[Tensor, Tensor | None, Any]:
            slope = self.answer.run.derivatives if derivatives else None
            return torch.cat((z0[None], self.output.evaluate(t).detach())), slope, None

        def backward(record: Any, values: Tensor, g: Tensor, want: bool) -> tuple[Tensor, list[Tensor]]:
            return again.ask(self.output, t, values, g, want)

        def time_gradient(g: Tensor, slope: Tensor, a: Tensor) -> Tensor:
            product = torch.where(a == 0, 0.0, a * slope[0])  # 0 · NaN of a sample that never began
            t_bar = slope.new_zeros(problem.t.shape)
            t_bar[:, 0] = -problem.clocks.per_sample(product).sum(1)
            return t_bar

        task = Task(forward, backward, time_gradient, problem.autocast)
        return Solve.apply(task, problem.z0, problem.t, *again.theta)[1:]
