"""What a check of a user's own gradient returns."""

from __future__ import annotations

import dataclasses

from ..adjoint.proof.comparisons import Check
from ..adjoint.proof.slopes import Taylor
from ..adjoint.proof.solves import Gap
from ..train.text import aligned, failing_first


@dataclasses.dataclass(frozen=True)
class Report:
    """rows: one `Check` for each block or parameter and reference (quantity, reference,
    relative_error, bound, ok; index, found, expected where the error is largest).

    taylor: how fast |L(x + hu) − L(x) − h⟨g, u⟩| falls with h.
    gaps: how far `Interpolating` and `Backsolve` are from `Discrete`, at several tolerances; reported, not
        judged (check_gradient only).
    Prints as a table below what fails, which is named with its index and both numbers. Its repr is short, so
    that ``assert report.ok, report`` shows in pytest what fails.
    """

    rows: tuple[Check, ...]
    taylor: Taylor | None = None
    gaps: tuple[Gap, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every row is within its bound, and the Taylor remainder falls as it must."""
        slope = self.taylor is None or self.taylor.ok is not False
        return slope and all(row.ok is not False for row in self.rows)

    @property
    def failures(self) -> tuple[str, ...]:
        """What fails, a sentence each: the rows, then the Taylor remainder."""
        slope = () if self.taylor is None or self.taylor.ok is not False else (self.taylor.sentence(),)
        return (*(failure_text(row) for row in self.rows if row.ok is False), *slope)

    def __repr__(self) -> str:
        judged = sum(row.ok is not None for row in self.rows)
        return failing_first("Report", judged + (self.taylor is not None), self.failures)

    def __str__(self) -> str:
        table = [("quantity", "reference", "relative error", "bound", "")]
        table += [
            (r.quantity, r.reference, f"{r.relative_error:.1e}", bound_text(r.bound), VERDICT[r.ok])
            for r in self.rows
        ]
        lines = aligned(table)
        if self.taylor is not None:
            lines += ["", self.taylor.sentence()]
        if self.gaps:
            lines += ["", "Largest difference to the discrete gradient, as rtol = atol falls:"]
            rows: list[tuple[str, ...]] = [("tolerance", "interpolating", "backsolve")]
            rows += [(f"{g.tolerance:.0e}", *map(_gap, (g.interpolating, g.backsolve))) for g in self.gaps]
            lines += aligned(rows)
        return "\n".join([*(f"FAILS: {failure}" for failure in self.failures), *lines])


VERDICT = {True: "ok", False: "FAILS", None: "not judged"}


def failure_text(row: Check) -> str:
    """Which entry is wrong, and both numbers."""
    along = row.reference == "dot-product"
    place = f"{row.quantity} along a random direction" if along else f"{row.quantity}{list(row.index)}"
    return f"{place}: hand-derived {row.found:.12g}, {row.reference} {row.expected:.12g}"


def bound_text(bound: float | None) -> str:
    """The bound, or nothing where there is none."""
    return "" if bound is None else f"{bound:.0e}"


def _gap(gap: float | None) -> str:
    return "cannot go on" if gap is None else f"{gap:.1e}"
