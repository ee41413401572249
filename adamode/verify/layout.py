"""The comparisons of a `ModelReport` put together for a reader: by variant, quantity, gradient, reference."""

from __future__ import annotations

import dataclasses

from ..train.text import columns as terminal_columns
from ..train.text import within, wrapped
from .derivations import DERIVATIONS
from .rows import ModelReport, ModelRow

GROUPS = ("discrete", "reversible", "interpolating", "backsolve")
SHORT = {
    "autograd": "autograd",
    "forward": "forward",
    "newton": "Newton",
    "finite-differences": "differences",
    "fine-solve": "fine solve",
    "analytic": "analytic",
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """The worst of several comparisons (stepping modes, memory choices, methods, fields)."""

    error: float
    bound: float | None
    ok: bool | None
    count: int

    def __str__(self) -> str:
        return f"{self.error:.0e}" + ("!" if self.ok is False else "")


@dataclasses.dataclass(frozen=True)
class VariantTable:
    """columns: (form, gradient group, reference).
    cells: by quantity and column.
    """

    title: str
    model: str
    columns: tuple[tuple[str, str, str], ...]
    quantities: tuple[str, ...]
    cells: dict[tuple[str, tuple[str, str, str]], Cell]

    def verdict(self, quantity: str) -> str:
        """ok, FAILS, or nothing where nothing is judged."""
        judged = [c.ok for (q, _), c in self.cells.items() if q == quantity and c.ok is not None]
        return "" if not judged else "ok" if all(judged) else "FAILS"

    def formula(self, quantity: str) -> str:
        """What the quantity is."""
        return DERIVATIONS[self.model].of(quantity)

    def bound(self, column: tuple[str, str, str]) -> str:
        """The loosest bound of a column."""
        bounds = [c.bound for (_, at), c in self.cells.items() if at == column and c.bound is not None]
        return f"{max(bounds):.0e}" if bounds else "none"


def variant_tables(report: ModelReport) -> list[VariantTable]:
    """One table for each variant of a model, in the order of the rows."""
    by_variant: dict[str, list[ModelRow]] = {}
    for row in report.rows:
        by_variant.setdefault(row.case[0], []).append(row)
    return [_table(title, rows) for title, rows in by_variant.items()]


def _table(title: str, rows: list[ModelRow]) -> VariantTable:
    found: dict[tuple[str, tuple[str, str, str]], list[ModelRow]] = {}
    for row in rows:
        column = row.form, row.gradient.split("-")[0], row.reference
        found.setdefault((row.quantity, column), []).append(row)
    order = {name: i for i, name in enumerate((*GROUPS, *SHORT))}
    columns = sorted(
        {column for _, column in found}, key=lambda c: (c[0] != "exact", c[0], order[c[1]], order[c[2]])
    )
    quantities = tuple(dict.fromkeys(row.quantity for row in rows))
    cells = {at: _worst(each) for at, each in found.items()}
    return VariantTable(title, rows[0].model, tuple(columns), quantities, cells)


def _worst(rows: list[ModelRow]) -> Cell:
    # Against its own bound; NaN is the worst of all.
    worst = max(
        rows,
        key=lambda r: (
            float("inf") if r.relative_error != r.relative_error else r.relative_error / (r.bound or 1)
        ),
    )
    verdicts = [r.ok for r in rows if r.ok is not None]
    return Cell(worst.relative_error, worst.bound, all(verdicts) if verdicts else None, len(rows))


def text_tables(report: ModelReport) -> str:
    """For a terminal: for each variant one table of the exact form, and one of the printed forms."""
    lines = []
    for one in variant_tables(report):
        exact = [c for c in one.columns if c[0] == "exact"]
        printed = [c for c in one.columns if c[0] != "exact"]
        for columns, title in ((exact, one.title), (printed, f"{one.title}: printed forms (wrong)")):
            if columns:
                lines += [
                    title,
                    *(f"  {line}".rstrip() for line in _text(one, columns, printed=columns is printed)),
                    "",
                ]
    return "\n".join(lines)


def _text(one: VariantTable, columns: list[tuple[str, str, str]], *, printed: bool) -> list[str]:
    groups = [c[1] if i == 0 or columns[i - 1][:2] != c[:2] else "" for i, c in enumerate(columns)]
    if printed:
        groups = [f"{c[0]}:" if i == 0 or columns[i - 1][0] != c[0] else "" for i, c in enumerate(columns)]
    names = [c[1] if printed else SHORT[c[2]] for c in columns]
    body = [[q, *(str(one.cells.get((q, c), "–")) for c in columns)] for q in one.quantities]
    verdicts = [[q, one.verdict(q)] for q in one.quantities]
    table = [["", *groups], ["", *names], *body, ["bound", *map(one.bound, columns)]]
    if not printed:  # beside the quantity, so that each block has it
        said = {q: f"{q}  {verdict}" for q, verdict in verdicts}
        table = [[said.get(row[0], row[0]), *row[1:]] for row in table]
    return within(table, terminal_columns() - 2, spanning=1)


def conclusion(report: ModelReport) -> str:
    """The last lines: the printed form's error, the paper's statements, failures, and the verdict."""
    lines = []
    if report.printed:
        lines.append("The paper's printed adjoint, Eq. 15, is wrong by tens of per cent:")
        lines += [wrapped(f"  {error.sentence()}", "    ") for error in report.printed]
    if report.statements:
        lines.append("The paper's other statements about the adjoint:")
        lines += [wrapped(f"  {statement.sentence()}", "    ") for statement in report.statements]
    lines += [wrapped(failure.failure(), "  ") for failure in report.failures[:20]]
    judged = [row for row in report.rows if row.ok is not None]
    if not judged:
        lines.append("Nothing was judged: printed forms have no bound.")
    elif not report.failures:
        lines.append(f"ok: all {len(judged)} comparisons of the exact form are within their bounds.")
    else:
        lines.append(
            f"FAILED: {len(report.failures)} of {len(judged)} comparisons of the exact form miss their "
            "bounds."
        )
    return "\n".join(lines)
