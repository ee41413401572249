"""Each problem by each method that has an error estimate, at the tolerances of its order."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence

import torch

from ...adjoint.solve import solve
from ...solvers.errors import SolverError, check_choice
from ...solvers.methods import METHODS
from .bounds import bound_of
from .condition import condition_number
from .end_values import END
from .report import PublishedRow
from .value import FLOOR, EndValue, error_of

# Methods without an estimate have no tolerance.
ADAPTIVE = tuple(name for name, tableau in METHODS.items() if tableau.b_hat is not None)
PROBLEMS = {value.name: value for value in END}
MAX_STEPS = 1_000_000  # the most needed: some 70,000, by adaptive_heun at 1e-6


def tolerances(method: str) -> tuple[float, ...]:
    """The rtols at which a method of its order is judged."""
    order = METHODS[method].order
    if order <= 3:
        return 1e-4, 1e-6
    return (1e-6, 1e-9) if order <= 6 else (1e-6, 1e-9, 1e-12)


def end_rows(
    problems: Sequence[str], methods: Sequence[str], device: str, say: Callable[[str], None]
) -> Iterator[PublishedRow]:
    """The rows of the problems and methods named."""
    for method in methods:
        check_choice("method", method, ADAPTIVE)
    for name in problems:
        say(name)
        yield from rows_of(PROBLEMS[name], methods, device)


def rows_of(value: EndValue, methods: Sequence[str], device: str = "cpu") -> Iterator[PublishedRow]:
    """One row a method and tolerance."""
    condition = condition_number(value.problem, len(value.values))
    for method in methods:
        for rtol in tolerances(method):
            yield _row(value, method, rtol, condition, device)


def _row(value: EndValue, method: str, rtol: float, condition: float, device: str) -> PublishedRow:
    bound, reason = bound_of(value, METHODS[method], rtol, condition)
    row = functools.partial(
        PublishedRow,
        value.name,
        method,
        rtol,
        bound=bound,
        source=value.source,
        reason=reason,
        condition=condition,
    )
    problem = value.problem
    try:
        found = solve(
            problem.f,
            problem.state(torch.float64, device),
            torch.tensor(problem.span, dtype=torch.float64),
            method=method,
            rtol=rtol,
            atol=FLOOR * rtol,  # as the error is measured: a component below 1e-3 by its absolute error
            gradient=None,
            max_steps=MAX_STEPS,
        )
    except SolverError as failure:
        return row(error=math.inf, nfe=0, failure=str(failure))
    error = error_of(found.y[-1][: len(value.values)], value.values)
    return row(error=error, nfe=int(found.stats.nfe))
