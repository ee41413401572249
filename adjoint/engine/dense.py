"""Differentiable questions to a dense output."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import torch
from torch import Tensor

from ...solvers.checks import check_readable, has_tangent, moves
from ...solvers.errors import ArgumentError
from ...solvers.solution import Query
from ...solvers.step.clocks import Clocks, Each
from ...solvers.step.field import Layout, follows
from .differentiate import Answer, Solve, Task
from .problem import Problem
from .time_move import moved_end, moved_once
from .transformed import check_untransformed


class Asked(Protocol):
    """What answers: times [n] (a clock a sample: [n, B]) → [n, *z]. device: of the state."""

    device: torch.device

    def value(self, t: Tensor) -> Tensor:
        """y at the times."""

    def derivative(self, t: Tensor) -> Tensor:
        """y' at the times."""


@dataclasses.dataclass(frozen=True)
class Question:
    """What answers sol(t), or sol.derivative(t), of times of any shape.

    slope: the derivative is asked for.
    shape: of the state, packed.
    """

    query: Asked
    slope: bool
    layout: Layout
    clocks: Clocks
    shape: torch.Size

    def __call__(self, t: Tensor, per_sample: bool) -> Any:
        """[*t.shape, *y0.shape], in y0's structure."""
        check_readable(t, "t")
        query, clocks, shape = self.query, self.clocks, self.shape
        front, rows = t.shape, t.reshape(-1)
        if isinstance(clocks, Each):
            batch, t = shape[clocks.batch], t.to(query.device, non_blocking=True)
            if per_sample and (t.dim() == 0 or t.shape[-1] != batch):
                raise ArgumentError(
                    f"t has shape {tuple(t.shape)}; per_sample=True needs t.shape[-1] == {batch}."
                )
            front = t.shape[:-1] if per_sample else t.shape
            rows = t.reshape(-1, batch) if per_sample else t.reshape(-1, 1).expand(-1, batch)
        elif per_sample:
            raise ArgumentError("per_sample=True needs a solve with stepping='per_sample'.")
        found = query.derivative(rows) if self.slope else query.value(rows)
        return self.layout.unpack(found.reshape(*front, *shape))


def questions(query: Asked, layout: Layout, clocks: Clocks, shape: torch.Size) -> tuple[Query, Query]:
    """What answers sol(t) and sol.derivative(t). shape: of the state, packed."""
    return Question(query, False, layout, clocks, shape), Question(query, True, layout, clocks, shape)


class KeptQuery:
    """y(t) and y'(t) of a solve that was copied or came from a file: numbers alone, without a gradient."""

    def __init__(self, output: Any, device: torch.device):
        self.output, self.device = output, device

    def value(self, t: Tensor) -> Tensor:
        """y at the times."""
        found: Tensor = self.output.evaluate(self.output.read(t))
        return found

    def derivative(self, t: Tensor) -> Tensor:
        """y' at the times."""
        found: Tensor = self.output.evaluate(self.output.read(t), derivative=True)
        return found


class DenseQuery:
    """y(t) and y'(t) of one solve: times [n] (a clock a sample: [n, B]) → [n, *z].

    Values are differentiable with respect to whatever the solve was, and t: an adjoint walks the
    same steps back with the asked times as its observations.
    detached: of a solve without a gradient.
    """

    def __init__(self, problem: Problem, answer: Answer, *, detached: bool):
        self.problem, self.answer, self.detached = problem, answer, detached
        self.output, self.device = problem.dense(answer.run, answer.start), problem.z0.device

    def __reduce__(self) -> tuple[Any, ...]:
        """The steps' numbers: neither func nor what an adjoint keeps goes into a file."""
        return KeptQuery, (self.output, self.device)

    def value(self, t: Tensor) -> Tensor:
        """y at the times."""
        fixed = self.output.read(t)
        if self.detached:
            return self.output.evaluate(fixed).detach()
        found = self._along(fixed, t)
        if len(t) and moves(t) and follows():
            slopes = self.output.evaluate(fixed, derivative=True)  # with a graph where autograd has the steps
            slopes = torch.where(slopes.isnan(), 0.0, slopes)
            move, flow = moved_end if self.answer.again is None else moved_once, self.problem.flow()
            rows = zip(found.unbind(), slopes.unbind(), t.unbind(), strict=True)
            found = torch.stack([move(flow, y, slope, own) for y, slope, own in rows])
        return found

    def derivative(self, t: Tensor) -> Tensor:
        """y' at the times."""
        if not self.detached and has_tangent(t):
            raise ArgumentError(
                "t of sol.derivative(t) carries a tangent, and y'' is not derived: take the derivative of "
                "func(t, sol(t)), or give t.detach()."
            )
        found: Tensor = self.output.evaluate(self.output.read(t), derivative=True)
        return found.detach() if self.detached else found

    def _along(self, t: Any, asked: Tensor) -> Tensor:
        """Through the adjoint where the solve had one. asked: the times t as they were given."""
        again, problem, output = self.answer.again, self.problem, self.output
        if again is None or not len(t) or not torch.is_grad_enabled():
            found: Tensor = output.evaluate(t)
            return found
        check_untransformed(asked)

        def forward(z0: Tensor, derivatives: bool) -> tuple[Tensor, Tensor | None]:
            return torch.cat((z0[None], output.evaluate(t).detach())), again.slopes

        def backward(values: Tensor, g: Tensor, want: bool) -> tuple[Tensor, list[Tensor]]:
            return again.recording.walk(problem.asked(output, t, values), g, want)

        def start_gradient(g: Tensor, slope: Tensor, a: Tensor) -> Tensor:
            """dL/dt_0 = −a · f(t_0, z_0); the other times of the solve do not matter."""
            t_bar = slope.new_zeros(problem.t.shape)
            along = torch.where(a == 0, 0.0, a * slope[0])  # 0 · NaN of a sample that never began
            t_bar[..., 0] = -problem.clocks.total(along)
            return t_bar

        task = Task(forward, backward, start_gradient, problem.autocast)
        return Solve.apply(task, problem.z0, problem.t, *again.theta)[1:]
