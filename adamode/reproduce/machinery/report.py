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
from .figure import FAILS, HOLDS, IN_PART, UNTOLD, Claim, Figure
from .result import Result, read_picture, read_result
from .summary import CLAIM, TITLE, counted, made_told, markdown, said
from .work import RESULT

PAGE = Path("report") / "index.html"
_FOLDED_FROM = 13  # rows; shorter tables are shown at once
_KINDS = {HOLDS: "ok", IN_PART: "part", FAILS: "fails", UNTOLD: "untold"}
_SCALES = {
    "smoke": "Scale smoke: as small as it can be, to see that everything runs. Its numbers say nothing about "
    "the paper's claims.",
    "sample": "Scale sample: smaller than in the paper, to fit a desk computer. Each figure's settings say "
    "by how much. A verdict is one of these sizes, and what so few seeds, images or draws do not decide "
    "cannot be told.",
    "paper": "Scale paper: the sizes of the paper.",
}
_STYLE = """
body { overflow-wrap: break-word; }
nav a { margin-right: 1rem; white-space: nowrap; }
section { border-top: 1px solid #8885; margin-top: 2.5rem; } section h2 { margin-top: 1.2rem; }
details { margin: .5rem 0; } summary { cursor: pointer; }
details details, details > :not(summary) { margin-left: 1rem; }
pre.formula { font-family: ui-monospace, monospace; font-size: 13px; overflow-wrap: anywhere; }
td.ok, td.part, td.fails, td.untold { font-weight: 600; text-align: left; min-width: 6.5rem; }
td { vertical-align: top; } td[class=""] { white-space: nowrap; }
td.claim { min-width: 18rem; max-width: 34rem; } td.why { min-width: 18rem; }
.part { color: #8a4b00; } .untold { color: #555; } a { color: #0060a0; }
@media (prefers-color-scheme: dark) {
  body { background: #16181b; color: #e4e6e8; }
  .part { color: #efb35a; } .untold, .quiet { color: #a8adb3; } a { color: #7cb8f0; }
}
@media (max-width: 40rem) {
  body { margin: 1rem auto; } h1 { font-size: 1.5rem; }
  td.claim, td.why { min-width: 0; max-width: none; }
}
"""


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
    text = markdown([(figure, result) for figure, result, _ in found], _opening(scale))
    write_aside(place / "summary.md", text)
    return place / PAGE, [f"{name}: {error}" for name, error in left_out.items()]


def _opening(scale: str) -> str:
    return f"{_SCALES[scale]} adamode {__version__}."


def html_page(
    found: Sequence[tuple[Figure, Result, Sequence[bytes]]], scale: str, left_out: Sequence[str] = ()
) -> str:
    """The whole page: it needs no file beside it and runs no script.

    found: each figure, its result, its pictures as PNG.  left_out: names of results that do not belong.
    """
    claims = [(figure.name, claim) for figure, result, _ in found for claim in result.claims]
    body = [html.paragraph(_opening(scale), "quiet"), html.paragraph(counted(claim for _, claim in claims))]
    if left_out:
        why = "Left out, as damaged, or made by another version or at another scale"
        body.append(html.paragraph(f"{why}: {', '.join(left_out)}."))
    made = [figure.name for figure, _, _ in found]
    if lacking := [name for name in ALL if name not in made]:
        body.append(html.paragraph(f"Not made yet: {', '.join(lacking)}.", "quiet"))
    body.append(html.links([(name, name) for name in made]))
    if claims:
        rows = [[(name, ""), *_claim(claim)] for name, claim in claims]
        body.append(html.table(["figure", *CLAIM], rows, stacked=True))
    body += [html.section(one[0].name, _figure(*one)) for one in found]
    return html.page(TITLE, body, html.STACKED + html.PICTURES + _STYLE)


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
