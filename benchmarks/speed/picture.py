"""Work and precision of gradients: time against error over tolerances, every way a line that can be told from
the others without colour."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from .measure import Row
from .report import Found
from .way import FLOOR, OURS, PEER

MARKERS = "osD^v<>PX*hd"
STYLES = {OURS: ("-", 2.0), PEER: ("--", 1.2)}
COLUMNS = 2


def points(found: Sequence[Found], way: str) -> list[tuple[float, float]]:
    """(error, seconds) over the tolerances; without those that have no finite error."""
    rows: list[tuple[Row, Found]] = []
    for one in found:
        row = one.row(way)
        if row is not None and row.error is not None:
            rows.append((row, one))
    pairs = [(row.error or math.nan, row.quartiles(one.clock)[1]) for row, one in rows]
    return [(x, y) for x, y in pairs if math.isfinite(x) and x > 0]


def _marks(groups: dict[str, str]) -> dict[str, dict[str, str]]:
    """By way. Ours are solid lines, others dashed; in each group a way has its marker, then hollow ones."""
    found: dict[str, dict[str, str]] = {}
    for group in STYLES:
        for i, way in enumerate(way for way, own in groups.items() if own == group):
            fill = "full" if i < len(MARKERS) else "none"
            found[way] = {"marker": MARKERS[i % len(MARKERS)], "fillstyle": fill}
    return found


def draw(found: Sequence[Found], target: Path) -> None:
    """One panel a case, written aside and renamed."""
    cases = list(dict.fromkeys(one.case for one in found))
    rows = math.ceil(len(cases) / COLUMNS)
    size = (6.2 * min(len(cases), COLUMNS) + 3, 4.4 * rows)
    figure, axes = plt.subplots(
        rows, min(len(cases), COLUMNS), figsize=size, layout="constrained", squeeze=False
    )
    groups = {row.way: row.group for one in found for row in one.rows if row.group != FLOOR}
    marks = _marks(groups)
    seen: dict[str, object] = {}
    for axis, case in itertools.zip_longest(axes.flat, cases):
        if case is None:
            axis.set_axis_off()
            continue
        own = [one for one in found if one.case == case]
        for way, group in groups.items():
            line = points(own, way)
            if not line:
                continue
            style, width = STYLES[group]
            x, y = zip(*line, strict=True)
            (seen[way],) = axis.loglog(
                x, [1e3 * s for s in y], style, linewidth=width, markersize=5, alpha=0.85, **marks[way]
            )
        tolerances = sorted({one.tol for one in own}, reverse=True)
        span = (
            f"{tolerances[0]:.0e} … {tolerances[-1]:.0e}" if len(tolerances) > 1 else f"{tolerances[0]:.0e}"
        )
        what = "gradient" if own[0].kind not in ("forward", "fixed") else "z(T)"
        axis.set(
            title=f"{case}, tolerance {span}",
            xlabel=f"relative error of the {what}",
            ylabel=f"{own[0].clock} ms".replace("cpu", "CPU"),
        )
        axis.invert_xaxis()
        axis.grid(alpha=0.3)
    figure.legend(seen.values(), seen.keys(), fontsize=7, loc="outside right center")
    scratch = target.with_name(f".{target.stem}.{os.getpid()}.png")
    figure.savefig(scratch, dpi=110)
    plt.close(figure)
    scratch.replace(target)
