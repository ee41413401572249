"""One solve for study: values, trace, and, where it failed, what was computed so far."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..adjoint.gradients import Reversible
from ..adjoint.solve import solve
from ..solvers.attempts import TraceRow
from ..solvers.errors import SolverError
from ..solvers.methods import get_method
from ..solvers.methods.stability import real_stability_limit
from ..solvers.methods.tableau import Tableau
from ..solvers.solution import Solution
from .problem import Field, Problem
from .reference import Reference

OUTPUTS = 65  # times at which the error is measured: 64 parts, exact in binary
# Of a method without an error estimate, where no dt is given: rk4's error on van-der-pol is then 2e-3.
FIXED_STEPS = 500


@dataclasses.dataclass(frozen=True)
class Settings:
    """How every method of an inspection solves; see `adamode.solve`."""

    rtol: float = 1e-6
    atol: float = 1e-8
    dt: float | None = None
    max_steps: int = 100_000
    dtype: torch.dtype = torch.float64
    device: str = "cpu"
    coupling: float | None = None  # of the pairs that gradient=Reversible(coupling) steps

    def arguments(self, tableau: Tableau, span: tuple[float, float]) -> dict[str, Any]:
        """Keyword arguments of `solve`, and a pair's coupling. A method without an error estimate gets a
        step if none is given."""
        dt = self.dt
        if dt is None and not tableau.adaptive:
            dt = abs(span[1] - span[0]) / FIXED_STEPS
        return {
            "method": tableau.name,
            "rtol": self.rtol,
            "atol": self.atol,
            "dt": dt,
            "max_steps": self.max_steps,
            **({} if self.coupling is None else {"coupling": self.coupling}),
        }


@dataclasses.dataclass(frozen=True)
class Study:
    """times: [T] asked for; values: [T, n], NaN from where the solve failed.
    solution: dense, up to `end`, or None where not one step was accepted.
    errors: at the times, or [] without a reference.
    """

    problem: Problem
    tableau: Tableau
    arguments: dict[str, Any]
    times: tuple[float, ...]
    values: Tensor
    end: float
    solution: Solution | None
    rows: list[TraceRow]
    stats: Any
    status: str
    failure: SolverError | None = None
    errors: list[float] = dataclasses.field(default_factory=list)

    @property
    def method(self) -> str:
        """The method's name."""
        return self.tableau.name

    @property
    def error(self) -> float:
        """The largest error at the times reached; NaN without a reference."""
        known = [e for e in self.errors if math.isfinite(e)]
        return max(known) if known else math.nan

    @property
    def stability_limit(self) -> float:
        """What dt·|λ| of an explicit step must stay below for λ < 0; infinite for implicit methods."""
        return math.inf if self.tableau.implicit else real_stability_limit(self.tableau)

    @property
    def coupling(self) -> float | None:
        """Of the pair that was stepped; None where the method's own steps were."""
        return self.arguments.get("coupling")

    def measured_against(self, reference: Reference | None) -> Study:
        """The same with errors."""
        return self if reference is None else dataclasses.replace(self, errors=reference.errors(self.values))

    def curve(self, n: int = 600) -> tuple[list[float], Tensor]:
        """Times and values [n, …] of the dense output, for a picture."""
        t0, end = self.times[0], self.end
        if self.solution is None:
            return [t0], self.values[:1].double().cpu()
        t = torch.linspace(0.0, 1.0, n, dtype=torch.float64)
        if self.problem.log_time:  # even on a logarithmic axis
            t = torch.cat((t[:1], torch.logspace(-6, 0, n - 1, dtype=torch.float64)))
            t[-1] = 1.0
        t = (t0 + (end - t0) * t).clamp(min(t0, end), max(t0, end))
        return t.tolist(), self.solution(t.to(self.values.device)).double().cpu()


def output_times(problem: Problem, n: int = OUTPUTS) -> list[float]:
    """n times over the span, even, or (log_time) even on a logarithmic axis after the first."""
    t0, t1 = problem.span
    shares = torch.linspace(0.0, 1.0, n, dtype=torch.float64)
    if problem.log_time:
        shares = torch.cat((shares[:1], torch.logspace(-6, 0, n - 1, dtype=torch.float64)))
    times = (t0 + (t1 - t0) * shares).tolist()
    times[-1] = t1
    return times


def study(problem: Problem, method: str, settings: Settings, f: Field | None = None) -> Study:
    """Solves, with a trace. A solve that cannot go on is returned with its failure, not raised.

    f: the problem's, watched by a progress bar. Raises ArgumentError for bad input and DynamicsError
    for what f returns.
    """
    tableau = get_method(method, implicit=True)
    times = output_times(problem)
    arguments = settings.arguments(tableau, problem.span)
    y0 = problem.state(settings.dtype, settings.device)
    t = torch.tensor(times, dtype=torch.float64, device=settings.device)
    asked = _Asked(problem, tableau, arguments, problem.f if f is None else f, y0, t)
    try:
        sol = asked.solved(t, trace=True)
    except SolverError as failure:
        return _so_far(asked, failure)
    rows = sol.trace or []
    status = sol.status.name
    return Study(problem, tableau, arguments, tuple(times), sol.y, times[-1], sol, rows, sol.stats, status)


class _Asked(NamedTuple):
    """One solve: f is the problem's, watched or not; t: [T]."""

    problem: Problem
    tableau: Tableau
    arguments: dict[str, Any]
    f: Field
    y0: Tensor
    t: Tensor

    def solved(self, t: Tensor, **more: Any) -> Solution:
        """At the times t, with a dense output."""
        arguments = dict(self.arguments)
        coupling = arguments.pop("coupling", None)
        gradient = None if coupling is None else Reversible(coupling)
        return solve(self.f, self.y0, t, **arguments, dense=True, gradient=gradient, **more)


def _so_far(asked: _Asked, failure: SolverError) -> Study:
    """What a failed solve had computed: the same steps again, up to the last that was accepted."""
    problem, tableau, arguments, _, y0, t = asked
    times = t.tolist()
    values = torch.full((len(times), len(y0)), math.nan, dtype=y0.dtype, device=y0.device)
    values[0] = y0
    forward = times[-1] > times[0]
    reached = [x for x in times if (x < failure.t if forward else x > failure.t)]
    solution, end = None, times[0]
    if reached:
        until = torch.tensor([*reached, failure.t], dtype=torch.float64, device=t.device)
        known = arguments["dt"] is None and failure.stats is not None
        first = {"dt0": failure.stats.dt_first} if known else {}  # Hairer's depends on the end
        try:
            solution, end = asked.solved(until, **first), failure.t
            values[: len(reached)] = solution.y[:-1]
        except SolverError:  # a fixed step that met NaN: no step of it is worth a picture
            solution = None
    return Study(
        problem,
        tableau,
        arguments,
        tuple(times),
        values,
        end,
        solution,
        failure.trace or [],
        failure.stats,
        failure.status.name,
        failure,
    )
