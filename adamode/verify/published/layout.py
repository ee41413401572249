"""The rows of a `PublishedReport` for a reader: tables for a terminal, and for docs/accuracy.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...solvers.methods import METHODS
from ...train.text import within, wrapped
from .bounds import SAFETY, method_factor
from .report import PublishedReport, PublishedRow

_ORDERS = (("Order 2 and 3", 2, 3), ("Order 4 to 6", 4, 6), ("Order 7 and 8", 7, 8))
GRADIENTS = "Gradients"


def text_tables(report: PublishedReport) -> str:
    """One line a problem and method, then one a gradient; what fails is marked and said below."""
    ends, gradients = _parted(report)
    lines: list[str] = []
    if ends:
        rtols = sorted({row.rtol for row in ends}, reverse=True)
        table = [("problem", "method", *(f"rtol {rtol:.0e}" for rtol in rtols))]
        table += [
            (problem, method, *(_text(by.get(rtol)) for rtol in rtols))
            for (problem, method), by in _by_method(ends).items()
        ]
        lines += [*within(table), "(error ≤ bound)", ""]
    if gradients:
        head = ("quantity", "by", "error", "bound", "", "against")
        lines += [*within([head, *(_gradient(row) for row in gradients)]), ""]
    return "\n".join([*lines, *(wrapped(f"FAILS: {row.sentence()}", "  ") for row in report.failures)])


def conclusion(report: PublishedReport) -> str:
    """How many comparisons hold, and which is the closest to its bound."""
    failed = len(report.failures)
    if failed:
        return f"{failed} of {len(report.rows)} comparisons with published values miss their bounds."
    closest = max(report.rows, key=lambda row: row.share)
    return wrapped(
        f"All {len(report.rows)} comparisons with published values hold; the closest to its bound is "
        f"{closest.sentence()}."
    )


def markdown_tables(report: PublishedReport) -> str:
    """A table for each group of orders, under its heading, and one of the gradients."""
    ends, gradients = _parted(report)
    parts = []
    for title, least, most in _ORDERS:
        rows = [row for row in ends if least <= METHODS[row.method].order <= most]
        if rows:
            parts += [f"### {title}\n\n", _end_table(rows), "\n"]
    if gradients:
        head = ("quantity", "by", "error", "bound", "", "against")
        parts += [f"### {GRADIENTS}\n\n", _table(head, (_gradient(row) for row in gradients)), "\n"]
    return "".join(parts)


def _end_table(rows: Sequence[PublishedRow]) -> str:
    columns = list(dict.fromkeys((row.method, row.rtol) for row in rows))
    head = ["problem", "κ", *(f"`{method}` {rtol:.0e}" for method, rtol in columns), "largest share"]
    factors = [SAFETY * method_factor(METHODS[method]) for method, _ in columns]
    lines = [["bound ÷ κ·rtol", "", *(f"{factor:.3g}" for factor in factors), ""]]
    for problem in dict.fromkeys(row.problem for row in rows):
        found = {(row.method, row.rtol): row for row in rows if row.problem == problem}
        condition = next(iter(found.values())).condition
        cells = [_cell(found.get(column)) for column in columns]
        share = max(row.share for row in found.values())
        lines.append([problem, f"{condition:.1e}", *cells, f"{share:.1e}"])
    return _table(head, lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def _parted(report: PublishedReport) -> tuple[list[PublishedRow], list[PublishedRow]]:
    """The states at an end, and the gradients."""
    ends = [row for row in report.rows if row.condition is not None]
    return ends, [row for row in report.rows if row.condition is None]


def _by_method(rows: Sequence[PublishedRow]) -> dict[tuple[str, str], dict[float, PublishedRow]]:
    found: dict[tuple[str, str], dict[float, PublishedRow]] = {}
    for row in rows:
        found.setdefault((row.problem, row.method), {})[row.rtol] = row
    return found


def _cell(row: PublishedRow | None) -> str:
    return "–" if row is None else f"{row.error:.1e}" if row.ok else f"**{row.error:.1e}**"


def _text(row: PublishedRow | None) -> str:
    return "" if row is None else f"{row.error:.1e} {'≤' if row.ok else '> !'} {row.bound:.0e}"


def _gradient(row: PublishedRow) -> tuple[str, ...]:
    verdict = "ok" if row.ok else "FAILS"
    return row.problem, row.gradient, f"{row.error:.1e}", f"{row.bound:.0e}", verdict, row.source
