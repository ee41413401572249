"""Numbers that others have published, found again: `verify_published`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...solvers.errors import check_choice
from .gradients import GRADIENT_PROBLEMS, gradient_rows
from .report import PublishedReport, PublishedRow
from .solves import ADAPTIVE, PROBLEMS, end_rows

ALL_PROBLEMS = (*PROBLEMS, *GRADIENT_PROBLEMS)


def verify_published(
    problems: Sequence[str] = ALL_PROBLEMS,
    methods: Sequence[str] = ADAPTIVE,
    *,
    device: str = "cpu",
    say: Callable[[str], None] = lambda problem: None,
) -> PublishedReport:
    """Solves problems whose results are published, in float64, and compares.

    problems: "detest-a1" … "detest-e5", "arenstorf", "arenstorf-short", "pleiades": the state at the end;
    "lotka-volterra-gradient", and "robertson-gradient" by implicit methods: by every adjoint in both
    stepping modes; "cvodes-hessian".
    methods: for the states at an end, adaptive ones; each at the tolerances of its order: 1e-4 and 1e-6 (2
    and 3), 1e-6 and 1e-9 (4 to 6), 1e-6, 1e-9 and 1e-12 (7 and 8), with atol = rtol/1000.
    say: called with each problem's name before its turn.
    Raises ArgumentError for an unknown name.
    """
    for name in problems:
        check_choice("problem", name, ALL_PROBLEMS)
    ends = tuple(name for name in problems if name in PROBLEMS)
    rows = [*end_rows(ends, methods, device, say), *gradient_rows(problems, device, say)]
    return PublishedReport(tuple(rows))


__all__ = ["ADAPTIVE", "ALL_PROBLEMS", "PROBLEMS", "PublishedReport", "PublishedRow", "verify_published"]
