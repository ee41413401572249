"""The measurements as text tables and as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .measure import Row, ratio
from .way import FLOOR, OURS, PEER

WORSE = "!"  # marks a ratio at which ours has the larger error
EQUAL = 1.02  # errors within 2 % of each other are equal: two exact gradients of one solve differ by rounding


# What a reader must know of a way, by the start of its name.
NOTES = {
    "diffrax/": "evaluations of the forward pass only; peak: XLA's own figure",
    "gradsolve/": "in float64, the one precision of its general route; a mesh for each sample",
    "gradsolve/replay": "recording the mesh is not in the time",
    "torchode/": "a step size for each sample, but for joint-backsolve's way back",
}


@dataclasses.dataclass(frozen=True)
class Found:
    """One case at one tolerance.

    doubt: the reference against torchdiffeq's; NaN: not checked.
    clock: "cpu", or "wall" on a device.
    """

    case: str
    tol: float
    kind: str
    clock: str
    doubt: float
    rows: list[Row]

    @property
    def measured(self) -> list[Row]:
        """Those with times."""
        return [row for row in self.rows if row.samples]

    def row(self, way: str) -> Row | None:
        """By name, where measured."""
        return next((row for row in self.measured if row.way == way), None)


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of even width, the first to the left."""
    cells = [list(head), *map(list, rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = []
    for row in cells:
        padded = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(padded).rstrip())
    return "\n".join([lines[0], "─" * max(map(len, lines)), *lines[1:]])


def number(value: float | None, digits: int = 2) -> str:
    """1.2e-05, or – where there is none; NaN is shown."""
    if value is None:
        return "–"
    return "NaN" if math.isnan(value) else f"{value:.{digits - 1}e}"


def milliseconds(value: float) -> str:
    """Three digits."""
    value *= 1e3
    if math.isnan(value):
        return "–"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def times_table(found: Found) -> str:
    """Every way: times, error, counts, memory, compilation."""
    head = ["way", "CPU ms", "quartiles", "wall ms", "rounds", "error", "f", "f back", "VJPs", "peak KiB"]
    hetero = any(row.counts.rows is not None for row in found.rows)
    head += (["f × samples"] if hetero else []) + ["first call s", "compiled again"]
    rows = []
    for row in found.rows:
        if not row.samples:
            continue
        low, middle, high = row.quartiles("cpu")
        cells = [row.way, milliseconds(middle), f"{milliseconds(low)}–{milliseconds(high)}"]
        cells += [milliseconds(row.quartiles("wall")[1]), str(len(row.samples)), number(row.error)]
        counts = row.counts
        cells += [_count(counts.nfe), _count(counts.nfe_backward), _count(counts.vjps)]
        cells.append("–" if row.peak is None else f"{row.peak / 1024:,.0f}")
        cells += [_count(counts.rows)] if hetero else []
        cells.append(f"{row.first:.2f}" if row.compiled else "–")
        cells.append(_count(row.compilations) if row.compiled else "–")
        rows.append(cells)
    return "\n".join([grid(head, rows), *_below(found)])


def _below(found: Found) -> list[str]:
    """Notes on ways, and why others were not measured, one line a reason."""
    reasons: dict[str, list[str]] = {}
    for row in found.rows:
        if not row.samples:
            reasons.setdefault(row.reason, []).append(row.way)
    notes = [
        f"  {start}: {note}"
        for start, note in NOTES.items()
        if any(row.way.startswith(start) for row in found.measured)
    ]
    return notes + [f"  {reason}: {', '.join(names)}" for reason, names in reasons.items()]


def ratio_cell(ours: Row, other: Row, clock: str) -> str:
    """How many times faster ours is; for a floor the overhead. Marked where our error is larger."""
    value = ratio(ours, other, clock)
    if math.isnan(value):
        return "–"
    if other.group == FLOOR:
        return f"{100 * (value - 1):+.0f} %" + ("" if same_evaluations(ours, other) else " *")
    if other.error is not None and math.isnan(other.error):
        return f"{1 / value:.2f}× (NaN)"
    return f"{1 / value:.2f}×" + (f" {WORSE}" if not at_equal_error(ours, other) else "")


def same_evaluations(ours: Row, floor: Row) -> bool:
    """Whether a floor repeats as many evaluations and VJPs as this way made, and this one none anew."""
    a, b = ours.counts, floor.counts
    return (a.nfe, a.vjps) == (b.nfe, b.vjps) and not a.nfe_backward


def at_equal_error(ours: Row, other: Row) -> bool:
    """Whether our error is no larger. NaN is larger than any number."""
    if ours.error is None or other.error is None:
        return True
    if math.isnan(ours.error):
        return False
    return math.isnan(other.error) or ours.error <= EQUAL * other.error


def ratio_table(found: Found) -> str:
    """Our ways against each peer (times faster) and each floor (overhead); "" where one side lacks."""
    ours = [row for row in found.measured if row.group == OURS]
    others = [row for row in found.measured if row.group in (PEER, FLOOR)]
    if not ours or not others:
        return ""
    rows = [[other.way, *(ratio_cell(own, other, found.clock) for own in ours)] for other in others]
    return grid(["against", *(own.way.removeprefix("adamode/") for own in ours)], rows)


def text(found: Found) -> str:
    """A case's heading and both tables."""
    what = "gradient: relative, 2-norm, the worst of dL/dz0 and each parameter"
    if found.kind in ("forward", "fixed"):
        what = "z(t_end): relative, 2-norm"
    checked = (
        "not checked" if math.isnan(found.doubt) else f"checked against torchdiffeq to {found.doubt:.0e}"
    )
    head = f"\n{found.case}, tolerance {found.tol:g} (error of the {what}; reference {checked})\n"
    parts = [head, times_table(found)]
    ratios = ratio_table(found)
    if ratios:
        note = (
            f"Times faster than each peer ({WORSE}: ours has the larger error), overhead over each floor "
            "(*: not the same number of evaluations)"
        )
        parts += ["", note, ratios]
    return "\n".join(parts)


def as_data(found: Sequence[Found], about: dict[str, Any]) -> dict[str, Any]:
    """Everything, for JSON; NaN is null there."""
    cases = []
    for one in found:
        entry = {"case": one.case, "tol": one.tol, "kind": one.kind, "clock": one.clock, "doubt": one.doubt}
        entry["rows"] = [dataclasses.asdict(row) for row in one.rows]
        cases.append(entry)
    return _without_nan({**about, "cases": cases})


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(target: Path, data: Any) -> None:
    """Aside, then renamed."""
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    scratch.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    scratch.replace(target)
