"""Tables and sentences for a terminal."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Collection, Sequence

SHOWN = 240  # characters that pytest shows of the repr of what follows `assert …,`


def columns() -> int:
    """How many columns a line may have: the terminal's, and 80 in a file or pipe."""
    return max(shutil.get_terminal_size((80, 24)).columns, 40)


def aligned(table: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> list[str]:
    """Rows of text as lines with aligned columns. right: those that end at the same place, as numbers do."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return [
        "  ".join(
            cell.rjust(w) if i in right else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def within(
    table: Sequence[Sequence[str]],
    width: int | None = None,
    *,
    spanning: int = 0,
    right: Collection[int] = (),
) -> list[str]:
    """The same, in blocks with an empty line between where the table is wider than width.

    Each block has the table's first column, and as many of the others as fit, in their order.
    width: in columns; None is the terminal's.
    spanning: so many rows at the top in which an empty cell goes on with what stands left of it.
    right: as in `aligned`.
    """
    width = columns() if width is None else width
    rows = [list(row) for row in table]
    blocks: list[list[int]] = [[0]]
    used = first = max(len(row[0]) for row in rows)
    for i in range(1, len(rows[0])):
        size = max(len(row[i]) for row in rows)
        if used + 2 + size > width and len(blocks[-1]) > 1:
            blocks.append([0])
            for row in rows[:spanning]:
                row[i] = row[i] or next((cell for cell in reversed(row[1:i]) if cell), "")
            used, size = first, max(len(row[i]) for row in rows)
        blocks[-1].append(i)
        used += 2 + size
    told = []
    for block in blocks:
        ends = {place for place, i in enumerate(block) if i in right}
        told.append("\n".join(aligned([[row[i] for i in block] for row in rows], right=ends)))
    return "\n\n".join(told).split("\n")


def wrapped(text: str, indent: str = "", width: int | None = None) -> str:
    """A sentence in lines that fit; those after its first are indented. No word is cut."""
    width = columns() if width is None else width
    lines = text.splitlines() or [""]
    form = {"subsequent_indent": indent, "break_long_words": False, "break_on_hyphens": False}
    return "\n".join(textwrap.fill(line, width, **form) for line in lines)  # type: ignore[arg-type]


def shortened(text: str, most: int) -> str:
    """The words of a text that fit, with a sign where some are left out."""
    return textwrap.shorten(text, most, placeholder=" …", break_long_words=False) or "…"


def failing_first(name: str, n: int, failures: Sequence[str]) -> str:
    """The repr of a report: how many of n checks fail, and as many of these as pytest shows."""
    if not failures:
        return f"<{name}: all of {n} checks ok>"
    lines = [f"{name}: {len(failures)} of {n} checks FAIL (print it for all)"]
    room = SHOWN - len(lines[0]) - len("\n… and 9999 more")
    for failure in failures:
        told = failure if len(failure) < room else shortened(failure, room - 1) if len(lines) == 1 else ""
        if not told:
            break
        lines.append(told)
        room -= len(told) + 1
    left = len(failures) - len(lines) + 1
    return "\n".join([*lines, *([f"… and {left} more"] if left else [])])
