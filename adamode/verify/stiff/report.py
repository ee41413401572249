"""What ``adamode verify --suite stiff`` found, as data and as text."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from ...train.text import failing_first, within

BOUND = 100.0  # tolerances that the end may be off by
MORE = 1.5  # times scipy's calls of f that the better of ours may take
PEER = "scipy Radau"


@dataclasses.dataclass(frozen=True)
class StiffRow:
    """One solve.

    error: of the end, in tolerances rtol · (floor + |y|); infinite where the solve could not go on.
    calls: of f, counted in f.
    failure: why the solve could not go on, or "".
    """

    problem: str
    method: str
    rtol: float
    error: float
    calls: int
    failure: str = ""

    @property
    def near(self) -> bool:
        """Whether the error is within its bound; NaN is not."""
        return self.error <= BOUND

    def as_dict(self) -> dict[str, Any]:
        """For JSON, which has no ∞: such an error is null."""
        error = self.error if math.isfinite(self.error) else None
        return {**dataclasses.asdict(self), "error": error}


@dataclasses.dataclass(frozen=True)
class Case:
    """One problem at one tolerance: ours by method, and scipy's Radau where it is there."""

    problem: str
    rtol: float
    ours: tuple[StiffRow, ...]
    peer: StiffRow | None

    @property
    def best(self) -> StiffRow | None:
        """Of those near enough, the one with the fewest calls."""
        near = [row for row in self.ours if row.near]
        return min(near, key=lambda row: row.calls) if near else None

    def sentence(self) -> str:
        """What is wrong with it, or what came out."""
        ends = ", ".join(f"{row.method} off by {row.error:.2g} tolerances" for row in self.ours)
        more = "" if math.isnan(self.ratio) else f"; {self.ratio:.2f} times {PEER}'s calls of f"
        return f"{self.problem} at rtol {self.rtol:g}: {ends} (at most {BOUND:g}){more}"

    @property
    def ratio(self) -> float:
        """The best's calls over scipy's; NaN without either."""
        return self.best.calls / self.peer.calls if self.best and self.peer else math.nan

    @property
    def ok(self) -> bool:
        """Whether one method is near enough, with few enough calls."""
        return self.best is not None and not self.ratio > MORE


@dataclasses.dataclass(frozen=True)
class StiffReport:
    """The rows of a suite."""

    rows: tuple[StiffRow, ...]

    def cases(self) -> Iterator[Case]:
        """Problem by problem, tolerance by tolerance."""
        keys = dict.fromkeys((row.problem, row.rtol) for row in self.rows)
        for problem, rtol in keys:
            found = [row for row in self.rows if (row.problem, row.rtol) == (problem, rtol)]
            peers = [row for row in found if row.method == PEER]
            ours = tuple(row for row in found if row.method != PEER)
            yield Case(problem, rtol, ours, peers[0] if peers else None)

    @property
    def mean(self) -> float:
        """The geometric mean of the best's calls over scipy's; NaN without scipy."""
        ratios = [case.ratio for case in self.cases() if not math.isnan(case.ratio)]
        return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else math.nan

    @property
    def ok(self) -> bool:
        """Whether every case is, and the mean is at most 1."""
        return all(case.ok for case in self.cases()) and not self.mean > 1.0

    @property
    def failures(self) -> tuple[str, ...]:
        """What is not as it must be, a sentence each: the cases, then the mean."""
        slow = (f"on average {self.mean:.2f} times {PEER}'s calls of f (at most 1)",)
        cases = (case.sentence() for case in self.cases() if not case.ok)
        return (*cases, *(slow if self.mean > 1.0 else ()))

    def __repr__(self) -> str:
        return failing_first("StiffReport", len(list(self.cases())), self.failures)

    def as_dict(self) -> dict[str, Any]:
        """{"ok", "rows"}."""
        return {"ok": self.ok, "rows": [row.as_dict() for row in self.rows]}


def text_table(report: StiffReport) -> str:
    """A line a case: of each method the calls of f and the error in tolerances."""
    methods = list(dict.fromkeys(row.method for row in report.rows))
    lines = [["problem", "rtol", *methods, "best/scipy"]]
    for case in report.cases():
        found = {row.method: row for row in (*case.ours, *([case.peer] if case.peer else []))}
        cells = [_cell(found.get(method)) for method in methods]
        lines.append([case.problem, f"{case.rtol:.0e}", *cells, f"{case.ratio:.2f}{'' if case.ok else ' !'}"])
    return "\n".join(within(lines))


def _cell(row: StiffRow | None) -> str:
    if row is None:
        return "–"
    return f"{row.calls} ({row.error:.1g}{'' if row.near else ' !'})"


def conclusion(report: StiffReport) -> str:
    """One sentence."""
    cases = list(report.cases())
    wrong = [f"{case.problem} at {case.rtol:g}" for case in cases if not case.ok]
    said = f"{len(cases) - len(wrong)} of {len(cases)} stiff cases end within {BOUND:g} tolerances"
    if not math.isnan(report.mean):
        said += f", the best of ours with {report.mean:.2f} times scipy Radau's calls of f (geometric mean)"
    return said + ("." if not wrong else f"; not so: {', '.join(wrong)}.")
