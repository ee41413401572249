"""The page of all figures that were made: claims with their verdicts, pictures, tables, how it was made."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ... import __version__
from ... import report as html
from ...solvers.errors import CheckpointError
from ...train.write_aside import write_aside
from ..catalogue import ALL, FIGURES, load
from .figure import FAILS, HOLDS, IN_PART, UNTOLD, Claim, Figure, words_of
from .result import Result, read_picture, read_result
from .summary import CLAIM, TITLE, counted, made_told, markdown, said
from .work import RESULT, say

PAGE = Path("report") / "index.html"
_FOLDED_FROM = 13  # rows; shorter tables are shown at once
_KINDS = {HOLDS: "ok", IN_PART: "part", FAILS: "fails", UNTOLD: "untold"}


def write_report(output_dir: str | os.PathLike[str], scale: str) -> tuple[Path, list[str]]:
    """Writes <output_dir>/report/index.html and its numbers as <output_dir>/summary.md.

    They are made from the results that are there. Returns the page's path and, a sentence each, which
    results were left out and why: of another version or scale, damaged, or not readable.
    """
    place = Path(output_dir)
    found: list[tuple[Figure, Result, list[bytes]]] = []
    left_out: dict[str, Exception] = {}
    for name in FIGURES:
        path = place / name / RESULT
        if not path.exists():
            continue
        try:
            result = read_result(path, scale)
            pictures = [read_picture(path.parent / picture["file"]) for picture in result.pictures]
        except (CheckpointError, OSError) as error:
            left_out[name] = error
        else:
            found.append((load(name), result, pictures))
    # The page is passed on, a message is not: it alone names folders.
    page = html_page(found, scale, list(left_out))
    (place / PAGE).parent.mkdir(parents=True, exist_ok=True)
    write_aside(place / PAGE, page)
    text = markdown([(figure, result) for figure, result, _ in found], say(scale, version=__version__))
    write_aside(place / "summary.md", text)
    return place / PAGE, [f"{name}: {error}" for name, error in left_out.items()]


def html_page(
    found: Sequence[tuple[Figure, Result, Sequence[bytes]]], scale: str, left_out: Sequence[str] = ()
) -> str:
    """The whole page: it needs no file beside it and runs no script.

    found: each figure, its result, its pictures as PNG.  left_out: names of results that do not belong.
    """
    claims = [(figure.name, claim) for figure, result, _ in found for claim in result.claims]
    opening, verdicts = say(scale, version=__version__), counted(claim for _, claim in claims)
    body = [html.paragraph(opening, "quiet"), html.paragraph(verdicts)]
    if left_out:
        body.append(html.paragraph(say("left out", names=", ".join(left_out))))
    made = [figure.name for figure, _, _ in found]
    if lacking := [name for name in ALL if name not in made]:
        body.append(html.paragraph(f"Not made yet: {', '.join(lacking)}.", "quiet"))
    body.append(html.links([(name, name) for name in made]))
    if claims:
        rows = [[(name, ""), *_claim(claim)] for name, claim in claims]
        body.append(html.table(["figure", *CLAIM], rows, stacked=True))
    body += [html.section(one[0].name, _figure(*one)) for one in found]
    return html.page(TITLE, body, html.STACKED + html.PICTURES + words_of("page.css"))


def _claim(claim: Claim) -> list[tuple[str, str]]:
    """Its cells but the last, which says why."""
    texts = [(claim.claim, "text claim"), (claim.paper, "text"), (claim.ours, "text")]
    return [*texts, (claim.verdict, _KINDS[claim.verdict])]


def _figure(figure: Figure, result: Result, pictures: Sequence[bytes]) -> list[str]:
    body = [html.heading(figure.title), html.paragraph(f"The paper says: {figure.says}")]
    if result.claims:
        rows = [[*_claim(claim), (claim.why, "text why")] for claim in result.claims]
        body.append(html.table([*CLAIM, "why"], rows, stacked=True))
    for picture, png in zip(result.pictures, pictures, strict=True):
        body.append(html.image(png, picture["caption"]))
    if result.findings:
        body += [html.heading("Found out", 3), html.items(result.findings)]
    settings = [[(name, ""), (said(value), "text")] for name, value in result.settings.items()]
    making = [html.items(made_told(result)), html.table(["setting", "value"], settings)]
    how = html.details("Settings, seeds, versions, machine", making)
    return [*body, _rows(figure, result.rows), html.formulas([result.command]), how]


def _rows(figure: Figure, rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of the figure; a long one is folded."""
    values = [[row.get(column) for column in figure.columns] for row in rows]
    cells = [[(said(value), "quiet" if value is None else "") for value in row] for row in values]
    table = html.table(list(figure.columns.values()), cells)
    return table if len(rows) < _FOLDED_FROM else html.details(f"The table: {len(rows)} rows", [table])
