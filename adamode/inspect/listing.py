"""The catalogue as text. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence

from ..train.text import columns, within, wrapped
from .problem import Problem


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width, the first to the left, the others to the right; in blocks that fit."""
    ruled = ["-" * max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    return "\n".join(within([header, ruled, *rows], right=range(1, len(header))))


def problems_table(problems: Sequence[Problem]) -> str:
    """The catalogue."""
    header = ("problem", "size", "from t", "to t", "  ")
    rows = [
        (p.name, str(len(p.y0)), f"{p.span[0]:g}", f"{p.span[1]:.6g}", "stiff" if p.stiff else "")
        for p in problems
    ]
    lines = text_table(header, rows).split("\n")
    # The last column is padded where it is empty, or the equations would not stand below each other.
    width = max(len(line) for line in lines)
    told = [*lines[:2]]
    for line, problem in zip(lines[2:], problems, strict=True):
        beside = f"{line.ljust(width)}  {problem.equation}"
        fits = len(beside) <= columns()
        told.append(beside if fits else f"{line}\n    {wrapped(problem.equation, ' ' * 4, columns() - 4)}")
    return "\n".join(told)
