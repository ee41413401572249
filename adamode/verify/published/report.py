"""What ``adamode verify --suite published`` found, as data."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from ...train.text import failing_first


@dataclasses.dataclass(frozen=True)
class PublishedRow:
    """One comparison with published numbers.

    error: the largest |found − published| ÷ max(|published|, 1e-3) of any component; infinite where the solve
        could not go on.
    bound, reason: how large it may be, and why.
    nfe: calls of f; of a gradient, in the backward pass too.
    source: where the numbers stand.
    gradient: the adjoint and stepping mode, or "".
    condition: κ, by how much the problem magnifies errors.
    failure: why the solve could not go on, or "".
    """

    problem: str
    method: str
    rtol: float
    error: float
    bound: float
    nfe: int
    source: str
    reason: str
    gradient: str = ""
    condition: float | None = None
    failure: str = ""

    @property
    def ok(self) -> bool:
        """Whether the error is within its bound; NaN is not."""
        return self.error <= self.bound

    @property
    def share(self) -> float:
        """The error over its bound."""
        return self.error / self.bound

    def as_dict(self) -> dict[str, Any]:
        """For JSON, which has neither NaN nor ∞: such an error is null."""
        row = {**dataclasses.asdict(self), "ok": self.ok}
        if not math.isfinite(self.error):
            row["error"] = None
        return row

    def sentence(self) -> str:
        """What was compared, by how much it is off, and by how much it may be."""
        what = ", ".join(x for x in (self.problem, self.method, f"rtol {self.rtol:g}", self.gradient) if x)
        if self.failure:
            return f"{what}: {self.failure}"
        return f"{what}: off by {self.error:.1e}, bound {self.bound:.1e} = {self.reason} ({self.source})"


@dataclasses.dataclass(frozen=True)
class PublishedReport:
    """The rows of a suite."""

    rows: tuple[PublishedRow, ...]

    @property
    def ok(self) -> bool:
        """Whether every row is within its bound."""
        return all(row.ok for row in self.rows)

    @property
    def failures(self) -> tuple[PublishedRow, ...]:
        """The rows that miss their bounds."""
        return tuple(row for row in self.rows if not row.ok)

    def __repr__(self) -> str:
        return failing_first("PublishedReport", len(self.rows), [row.sentence() for row in self.failures])

    def as_dict(self) -> dict[str, Any]:
        """{"ok", "rows"}."""
        return {"ok": self.ok, "rows": [row.as_dict() for row in self.rows]}

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> PublishedReport:
        """What `as_dict` gave."""
        rows = [{name: value for name, value in row.items() if name != "ok"} for row in found["rows"]]
        infinite = [{**row, "error": math.inf} if row["error"] is None else row for row in rows]
        return cls(tuple(PublishedRow(**row) for row in infinite))
