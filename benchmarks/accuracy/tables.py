"""The tables of docs/accuracy.md, as Markdown, from the measurements."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np

from .controllers import METHODS, Cost
from .heterogeneous import Batch
from .lines import Line, comparable, ratios
from .measurements import EXPONENTS, Measurements, geometric_mean
from .problems import ABOUT, TEN, reference_error
from .solvers import KIND, OURS

COLUMNS = tuple(f"1e-{k}" for k in EXPONENTS)
MIDDLE = slice(2, 5)  # from 1e-5 to 1e-8: three decades


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def number(value: float) -> str:
    """Three digits (two below 0.1); a dash for NaN."""
    if not math.isfinite(value):
        return "–"
    if value < 0.1:
        return f"{value:.2g}"
    return f"{value:.2f}" if value < 10 else f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def noise(name: str) -> float:
    """The error of the reference: it moved by reference_error when its tolerance was ten times looser."""
    return reference_error(name) / 10


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Evaluations of ours over another's, [problem, tolerance]."""

    method: str
    other: str
    cells: np.ndarray

    @property
    def mean(self) -> float:
        return geometric_mean(self.cells)

    @property
    def worst(self) -> tuple[float, str, str]:
        i, j = np.unravel_index(np.nanargmax(self.cells), self.cells.shape)
        return float(self.cells[i, j]), TEN[i], COLUMNS[j]


def comparisons(known: Measurements) -> list[Comparison]:
    """All methods against all codes of their kind."""
    found = []
    for method, ours in known.all_ours("shared").items():
        for other in KIND[method]:
            theirs = known.lines(other)
            cells = np.array([ratios(ours[name], theirs[name], noise(name)) for name in TEN])
            found.append(Comparison(method, other, cells))
    return found


def equal_error_summary(found: Sequence[Comparison]) -> str:
    rows = []
    for c in found:
        worst, problem, tolerance = c.worst
        above = int((c.cells > 1.3).sum())
        share = f"{np.isfinite(c.cells).sum()} of {c.cells.size}"
        mean, most = number(c.mean), number(worst)
        rows.append((f"`{c.method}`", c.other, mean, most, f"{problem}, {tolerance}", str(above), share))
    head = ("method", "against", "geometric mean", "worst cell", "where", "cells above 1.3", "compared")
    return table(head, rows)


def equal_error_cells(found: Sequence[Comparison], method: str) -> str:
    rows = [
        (name, c.other, *map(number, c.cells[i]))
        for i, name in enumerate(TEN)
        for c in found
        if c.method == method
    ]
    return table(("problem", "against", *COLUMNS), rows)


def _scipy(known: Measurements, method: str) -> dict[str, Line]:
    """scipy's method of the same kind, at the tolerances of the tables only."""
    lines = known.lines(KIND[method][0])
    return {n: Line(l.tolerance[1:-1], l.error[1:-1], l.nfe[1:-1]) for n, l in lines.items()}


def achieved(known: Measurements, method: str) -> str:
    """Error over tolerance: shared, per sample, scipy's, for each problem."""
    kinds = {
        "shared": known.lines(f"adamode {method}"),
        "per sample": known.lines(f"adamode {method}", "per_sample"),
        KIND[method][0]: _scipy(known, method),
    }
    rows = [
        (name, kind, *map(number, lines[name].error / lines[name].tolerance))
        for name in TEN
        for kind, lines in kinds.items()
    ]
    return table(("problem", "solver", *COLUMNS), rows)


def _factors(line: Line) -> np.ndarray:
    """By how much the error falls for each decade of the tolerance, in the middle of the range."""
    return (line.error[:-1] / line.error[1:])[MIDDLE]


def straightness(known: Measurements) -> str:
    """Per method: how far above scipy at one tolerance, and how straight the lines are."""
    rows = []
    for method in OURS:
        ours, theirs = known.lines(f"adamode {method}"), _scipy(known, method)
        over = np.array(
            [np.where(comparable(ours[n], noise(n)), ours[n].error / theirs[n].error, np.nan) for n in TEN]
        )
        i, j = np.unravel_index(np.nanargmax(over), over.shape)
        mine, other = (np.array([_factors(x[n]) for n in TEN]) for x in (ours, theirs))
        whole, theirs_whole = (np.array([math.exp(np.mean(np.log(row))) for row in x]) for x in (mine, other))
        rows.append(
            (
                f"`{method}`",
                number(geometric_mean(over)),
                f"{number(over[i, j])} ({TEN[i]}, {COLUMNS[j]})",
                str(int((over > 2).sum())),
                f"{number(whole.min())} … {number(whole.max())}",
                f"{number(theirs_whole.min())} … {number(theirs_whole.max())}",
                f"{_outside(mine)} of {mine.size}",
                f"{_outside(other)} of {other.size}",
            )
        )
    head = ("method", "error over scipy's", "worst", "cells above 2", "error falls by", "scipy's falls by")
    return table((*head, "decades outside 5 … 20", "scipy's"), rows)


def _outside(factors: np.ndarray) -> int:
    return int(((factors < 5) | (factors > 20)).sum())


def heterogeneous(found: dict[tuple[float, float, str], Batch]) -> str:
    """Keys: tolerance, end, mode; "shared" is what the others are divided by."""
    rows = []
    for (tol, end, mode), batch in found.items():
        fewer = found[tol, end, "shared"].rows / batch.rows
        cells = (f"{batch.rows:,}", f"{batch.calls:,}", number(fewer), str(batch.failed))
        rows.append((f"{tol:.0e}", f"{end:g}", mode, *cells))
    head = ("tolerance", "end", "mode", "rows evaluated", "calls", "times fewer than shared", "failed")
    return table(head, rows)


def controllers(found: dict[str, Cost]) -> str:
    head = ["controller"]
    for m in METHODS:
        head += [f"`{m}`: evaluations at equal error", "error at equal tolerance", "rejected, %"]
    rows = [
        (
            name,
            *(
                v
                for m in METHODS
                for v in (number(c.nfe[m]), number(c.error[m]), f"{100 * c.rejected[m]:.1f}")
            ),
        )
        for name, c in found.items()
    ]
    return table(head, rows)


def problems() -> str:
    return table(
        ("problem", "what", "reference moves by"),
        ((n, ABOUT[n], f"{reference_error(n):.0e}") for n in TEN),
    )
