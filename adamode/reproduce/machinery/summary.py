"""The figures that were made as Markdown: claims, pictures, findings, tables; to be kept beside a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .figure import Claim, Figure
from .result import Result

LONGEST = 42  # rows of a table; a longer one stays in result.json


def markdown(
    found: Sequence[tuple[Figure, Result]],
    *,
    opening: Sequence[str],
    said: Callable[[Any], str],
    made: Callable[[Result], Sequence[str]],
) -> str:
    """The whole text. Pictures are looked for beside it, as <figure>/<file>.

    opening: its first paragraphs.  said: a value for people.  made: how a result was made, a sentence each.
    """
    blocks = ["# The AdamNODE paper, reproduced", *opening]
    for figure, result in found:
        blocks += _figure(figure, result, said, made)
    return "\n\n".join(blocks) + "\n"


def _figure(
    figure: Figure, result: Result, said: Callable[[Any], str], made: Callable[[Result], Sequence[str]]
) -> list[str]:
    blocks = [f"## {figure.title}", f"The paper says: {figure.says}", _claims(result.claims)]
    blocks += [f"![{_cell(p['caption'])}]({figure.name}/{p['file']})" for p in result.pictures]
    if result.findings:
        blocks += ["### Found out", "\n".join(f"- {_line(finding)}" for finding in result.findings)]
    if len(result.rows) <= LONGEST:
        blocks += ["### Table", _rows(figure.columns, result.rows, said)]
    blocks += [f"    {result.command}", " ".join(_line(sentence) for sentence in made(result))]
    return blocks


def _claims(claims: Sequence[Claim]) -> str:
    rows = [(c.claim, c.paper, c.ours, f"**{c.verdict}**", c.why) for c in claims]
    return _table(["claim", "paper", "ours", "verdict", "why"], rows)


def _rows(columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]], said: Callable[[Any], str]) -> str:
    cells = [["–" if row.get(name) is None else said(row[name]) for name in columns] for row in rows]
    return _table(list(columns.values()), cells)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")


def _line(text: str) -> str:
    return " ".join(str(text).split())
