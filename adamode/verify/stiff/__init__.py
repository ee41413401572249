"""Stiff problems with published solutions, by the implicit methods: `verify_stiff`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch

from ...adjoint.solve import solve
from ...solvers.errors import SolverError, check_choice
from .problems import PROBLEMS, Stiff
from .report import StiffReport, StiffRow
from .values import END, INSIDE

METHODS = ("kvaerno5", "radau5", "rodas5p", "auto")
RTOLS = (1e-4, 1e-6, 1e-8)
BY_NAME = {problem.name: problem for problem in PROBLEMS}
# The tolerances of problems that are not asked all of RTOLS.
ASKED = {
    "brusselator_1d_hw": (1e-4,),  # 1000 numbers: by dense matrices, one tolerance is half a minute
    # At 1e-8 a rounding of y₂ at its largest, 2⁻⁵³ · 1.46e-10, is 162 tolerances, and y₂ = y₃ + y₄ keeps it.
    "e5_hw": (1e-4, 1e-6),
}


def verify_stiff(
    problems: Sequence[str] = tuple(BY_NAME),
    methods: Sequence[str] = METHODS,
    *,
    rtols: Sequence[float] = RTOLS,
    say: Callable[[str], None] = lambda problem: None,
) -> StiffReport:
    """Solves stiff problems in float64, and compares their ends with what is published, and the calls of f
    with those of scipy's Radau, where scipy is installed.

    problems: names of `problems.PROBLEMS`.
    methods: implicit ones, or auto.
    rtols: relative tolerances; atol is rtol times the problem's floor.
    say: called with each problem's name before its turn.
    Raises ArgumentError for an unknown name.
    """
    for name in problems:
        check_choice("problem", name, BY_NAME)
    rows: list[StiffRow] = []
    for name in problems:
        say(name)
        for rtol in [x for x in rtols if x in ASKED.get(name, rtols)]:
            rows += _rows(BY_NAME[name], methods, rtol)
    return StiffReport(tuple(rows))


def _rows(problem: Stiff, methods: Sequence[str], rtol: float) -> Iterator[StiffRow]:
    for method in methods:
        yield _solved(problem, method, rtol)
    theirs = _by_scipy(problem, rtol)
    if theirs is not None:
        yield theirs


def off(problem: Stiff, y: Sequence[float], rtol: float) -> float:
    """The largest error of a published component at the end, in tolerances."""
    step = 7 if problem.name == "brusselator_1d_hw" else 1
    return _furthest(problem, y[::step], END[problem.name], rtol)


def _furthest(problem: Stiff, y: Sequence[float], published: Sequence[float], rtol: float) -> float:
    pairs = zip(y, published, strict=False)
    return max(abs(a - b) / (rtol * (problem.floor + abs(b))) for a, b in pairs)


def _times(problem: Stiff) -> list[float]:
    """The start, the times of published states, the end."""
    return [0.0, *INSIDE.get(problem.name, {}), problem.end]


def _off_anywhere(problem: Stiff, rows: Sequence[Sequence[float]], rtol: float) -> float:
    """The largest error of a published component, in tolerances. rows: the states at `_times`."""
    inside = zip(rows[1:-1], INSIDE.get(problem.name, {}).values(), strict=True)
    return max(off(problem, rows[-1], rtol), *(_furthest(problem, y, b, rtol) for y, b in inside), 0.0)


def _solved(problem: Stiff, method: str, rtol: float) -> StiffRow:
    calls = 0

    def counted(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return problem.f(t, y)

    y0 = torch.tensor(problem.start, dtype=torch.float64)
    times, atol = torch.tensor(_times(problem), dtype=torch.float64), rtol * problem.floor
    try:
        found = solve(counted, y0, times, method=method, rtol=rtol, atol=atol, gradient=None)
    except SolverError as failure:
        return StiffRow(problem.name, method, rtol, math.inf, calls, str(failure))
    return StiffRow(problem.name, method, rtol, _off_anywhere(problem, found.y.tolist(), rtol), calls)


def _by_scipy(problem: Stiff, rtol: float) -> StiffRow | None:
    """The same by scipy's Radau, its calls for differences of f counted too; None without scipy."""
    try:
        from scipy.integrate import solve_ivp
    except ImportError:
        return None
    calls = 0

    def f(t: float, y: object) -> object:
        nonlocal calls
        calls += 1
        return problem.f(torch.tensor(t, dtype=torch.float64), torch.as_tensor(y)).numpy()

    span, atol = (0.0, problem.end), rtol * problem.floor
    times = _times(problem)
    found = solve_ivp(f, span, problem.start, "Radau", times, rtol=rtol, atol=atol)
    error = _off_anywhere(problem, found.y.T.tolist(), rtol) if found.success else math.inf
    return StiffRow(problem.name, "scipy Radau", rtol, error, calls, "" if found.success else found.message)


__all__ = ["BY_NAME", "END", "METHODS", "RTOLS", "StiffReport", "StiffRow", "verify_stiff"]
