"""The page of all figures that were made: claims with their verdicts, pictures, tables, how it was made."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ... import __version__
from ... import report as html
from ...solvers.errors import CheckpointError
from ...train.write_aside import write_aside
from ..catalogue import ALL, FIGURES, load
from .figure import FAILS, HOLDS, IN_PART, UNTOLD, VERDICTS, Claim, Figure
from .result import Result, read_picture, read_result
from .summary import markdown
from .training import duration
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
    left_out = []
    for name in FIGURES:
        path = place / name / RESULT
        if not path.exists():
            continue
        try:
            result = read_result(path, scale)
            pictures = [read_picture(path.parent / picture["file"]) for picture in result.pictures]
        except (CheckpointError, OSError) as error:
            left_out.append(f"{name}: {error}")
            continue
        found.append((load(name), result, pictures))
    # The page is passed on, a message is not: it alone names folders.
    page = html_page(found, scale, [line.partition(":")[0] for line in left_out])
    path = place / PAGE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_aside(path, page)
    claims = [(figure.name, claim) for figure, result, _ in found for claim in result.claims]
    opening = [f"{_SCALES[scale]} adamode {__version__}.", counted(claims)]
    pairs = [(figure, result) for figure, result, _ in found]
    text = markdown(pairs, opening=opening, said=said, made=made_told)
    write_aside(place / "summary.md", text)
    return path, left_out


def html_page(
    found: Sequence[tuple[Figure, Result, Sequence[bytes]]], scale: str, left_out: Sequence[str] = ()
) -> str:
    """The whole page: it needs no file beside it and runs no script.

    found: each figure, its result, its pictures as PNG.  left_out: names of results that do not belong.
    """
    claims = [(figure.name, claim) for figure, result, _ in found for claim in result.claims]
    body = [
        html.paragraph(f"{_SCALES[scale]} adamode {__version__}.", "quiet"),
        html.paragraph(counted(claims)),
    ]
    lacking = [name for name in ALL if name not in {figure.name for figure, _, _ in found}]
    if left_out:
        body.append(
            html.paragraph(
                "Left out, as damaged, or made by another version or at another scale: "
                f"{', '.join(left_out)}."
            )
        )
    if lacking:
        body.append(html.paragraph(f"Not made yet: {', '.join(lacking)}.", "quiet"))
    body += [html.links([(figure.name, figure.name) for figure, _, _ in found])]
    if claims:
        body.append(html.table(*_claims_table(claims), stacked=True))
    body += [
        html.section(figure.name, _figure(figure, result, pictures)) for figure, result, pictures in found
    ]
    return html.page("The AdamNODE paper, reproduced", body, html.STACKED + html.PICTURES + _STYLE)


def counted(claims: Sequence[tuple[str, Claim]]) -> str:
    """How many claims have each verdict, as a sentence."""
    if not claims:
        return "No claim was judged."
    numbers = {verdict: sum(claim.verdict == verdict for _, claim in claims) for verdict in VERDICTS}
    said = ", ".join(f"{verdict}: {n}" for verdict, n in numbers.items() if n)
    return f"{len(claims)} claim{'s' if len(claims) > 1 else ''} of the paper. {said[0].upper()}{said[1:]}."


def _claims_table(
    claims: Sequence[tuple[str, Claim]],
) -> tuple[list[str], list[list[tuple[str, str]]]]:
    rows = [
        [
            (name, ""),
            (claim.claim, "text claim"),
            (claim.paper, "text"),
            (claim.ours, "text"),
            (claim.verdict, _KINDS[claim.verdict]),
        ]
        for name, claim in claims
    ]
    return ["figure", "claim", "paper", "ours", "verdict"], rows


def _figure(figure: Figure, result: Result, pictures: Sequence[bytes]) -> list[str]:
    body = [html.heading(figure.title), html.paragraph(f"The paper says: {figure.says}")]
    rows = [
        [
            (claim.claim, "claim"),
            (claim.paper, "text"),
            (claim.ours, "text"),
            (claim.verdict, _KINDS[claim.verdict]),
            (claim.why, "text why"),
        ]
        for claim in result.claims
    ]
    if rows:
        body.append(html.table(["claim", "paper", "ours", "verdict", "why"], rows, stacked=True))
    for picture, png in zip(result.pictures, pictures, strict=True):
        body.append(html.image(png, picture["caption"]))
    if result.findings:
        body += [html.heading("Found out", 3), html.items(result.findings)]
    body += [_rows(figure, result.rows), *_making(result)]
    return body


def _rows(figure: Figure, rows: Sequence[Mapping[str, Any]]) -> str:
    cells = [[_cell(row.get(column)) for column in figure.columns] for row in rows]
    table = html.table(list(figure.columns.values()), cells)
    if len(rows) < _FOLDED_FROM:
        return table
    return html.details(f"The table: {len(rows)} rows", [table])


def made_told(result: Result) -> list[str]:
    """How a result was made, a sentence each."""
    seeds = [f"{name} {said(value)}" for name, value in result.settings.items() if "seed" in name]
    machine = ", ".join(f"{name} {value}" for name, value in result.machine.items())
    lines = [
        f"Seeds: {', '.join(seeds) or 'nothing is drawn at random'}.",
        f"Versions: adamode {result.version}, "
        + ", ".join(f"{name} {version}" for name, version in result.versions.items())
        + ".",
        f"Machine: {machine}.",
        f"Git: {commit_told(result.git)}.",
        f"Time: {duration(result.seconds)} of work, over all calls.",
    ]
    if FIGURES[result.figure].runs:
        lines.append(f"Finished training runs that were there: {len(result.runs)}.")
    if result.variants:
        lines.append(f"Other settings computed, in result.json: {', '.join(result.variants)}.")
    return lines


def _making(result: Result) -> list[str]:
    """The command at once, the rest folded."""
    lines = made_told(result)
    settings = [[(name, ""), (said(value), "text")] for name, value in result.settings.items()]
    return [
        html.formulas([result.command]),
        html.details(
            "Settings, seeds, versions, machine",
            [html.items(lines), html.table(["setting", "value"], settings)],
        ),
    ]


def commit_told(git: Mapping[str, Any]) -> str:
    """This package's own, else that of the folder where the command was called."""
    place = "adamode" if "adamode_commit" in git else "here"
    if f"{place}_commit" not in git:
        return "no repository"
    return f"{str(git[f'{place}_commit'])[:12]}{', with changes' if git.get(f'{place}_changed') else ''}"


def _cell(value: Any) -> tuple[str, str]:
    return ("–", "quiet") if value is None else (said(value), "")


def said(value: Any) -> str:
    """A value of a row or a setting for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(f"({said(v)})" if isinstance(v, list | tuple) else said(v) for v in value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
