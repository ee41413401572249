"""What ``adamode verify`` found, as data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from ..train.text import failing_first
from .statements import Statement


@dataclasses.dataclass(frozen=True)
class ModelRow:
    """One comparison: what it was made for, and its result.

    model, field, method, gradient, stepping: by name.
    denominator, activation, damping: None for models that have none.
    form: of AdamODE's VJP.
    quantity: "a_h", … or a parameter's name.
    reference: what it was compared with.
    relative_error: the largest difference over the reference's largest entry.
    bound: of the relative error; None where it is not judged.
    ok: whether it is within the bound; None where it is not judged.
    index, found, expected: where the error is largest, and both numbers; index () along a random direction.
    """

    model: str
    denominator: str | None
    activation: str | None
    damping: str | None
    field: str
    method: str
    gradient: str
    stepping: str
    form: str
    quantity: str
    reference: str
    relative_error: float
    bound: float | None
    ok: bool | None
    index: tuple[int, ...] = ()
    found: float = math.nan
    expected: float = math.nan

    def as_dict(self) -> dict[str, Any]:
        """For JSON, which has no NaN: a number that is not finite is null."""
        row = dataclasses.asdict(self)
        for name in ("relative_error", "found", "expected"):
            if not math.isfinite(row[name]):
                row[name] = None
        return {**row, "index": list(self.index)}

    @property
    def case(self) -> tuple[str, ...]:
        """What rows of one table have in common."""
        choices = self.model, self.denominator, self.activation, self.damping
        variant = ", ".join(x for x in choices if x)
        return variant, self.field, self.method, self.gradient, self.stepping

    def failure(self) -> str:
        """In words: which block or parameter, which entry, and both numbers."""
        place = f"{self.quantity}{list(self.index)}" if self.index else f"{self.quantity} (along a direction)"
        return (
            f"{', '.join(self.case)}: {place}: hand-derived {self.found:.12g}, {self.reference} "
            f"{self.expected:.12g}: off by {self.relative_error:.1e}, bound {self.bound:.0e}"
        )


@dataclasses.dataclass(frozen=True)
class PrintedError:
    """‖g − g_exact‖/‖g_exact‖ of dL/dz(t0) under a printed form.

    form: "paper" or "paper-rates".
    whole, h_block: of the whole state, and of its block h; one number a seed.
    """

    form: str
    whole: tuple[float, ...]
    h_block: tuple[float, ...]

    def sentence(self) -> str:
        """Both medians and ranges, in per cent."""
        what = {
            "paper": "Eq. 15 as printed (form paper)",
            "paper-rates": "Eq. 15 with the rates 1−α, 1−β put in (form paper-rates)",
        }[self.form]
        return (
            f"{what}: dL/dz(t0) is off by {_spread(self.whole)} per cent, its h block by "
            f"{_spread(self.h_block)} (median [least, most] of {len(self.whole)} seeds)."
        )


def _spread(errors: Sequence[float]) -> str:
    ordered = [100 * x for x in sorted(errors)]
    middle = len(ordered) // 2
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    return f"{median:.0f} [{ordered[0]:.0f}, {ordered[-1]:.0f}]"


@dataclasses.dataclass(frozen=True)
class ModelReport:
    """What ``adamode verify`` found.

    rows: the comparisons.
    printed: how far the printed Eq. 15 is off, over several seeds.
    statements: the paper's other statements about the adjoint, each with a verdict.
    """

    rows: tuple[ModelRow, ...]
    printed: tuple[PrintedError, ...] = ()
    statements: tuple[Statement, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every judged row is within its bound."""
        return all(row.ok is not False for row in self.rows)

    @property
    def failures(self) -> tuple[ModelRow, ...]:
        """The rows that miss their bounds."""
        return tuple(row for row in self.rows if row.ok is False)

    def __repr__(self) -> str:
        judged = sum(row.ok is not None for row in self.rows)
        return failing_first("ModelReport", judged, [row.failure() for row in self.failures])

    def as_dict(self) -> dict[str, Any]:
        """{"ok", "rows", "printed", "statements"}."""
        return {
            "ok": self.ok,
            "rows": [row.as_dict() for row in self.rows],
            "printed": [dataclasses.asdict(error) for error in self.printed],
            "statements": [dataclasses.asdict(statement) for statement in self.statements],
        }
