"""All figures that were made, as a page and as Markdown: claims, verdicts, pictures, tables, their making."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ... import __version__
from ... import report as html
from ...solvers.errors import CheckpointError
from ...solvers.write_aside import write_aside
from ..catalogue import ALL, FIGURES, load
from .figure import FAILS, HOLDS, IN_PART, KINDS, UNTOLD, VERDICTS, Claim, Figure, words_of
from .result import Result, read_picture, read_result
from .training import duration
from .work import RESULT, say

TITLE = "The AdamNODE paper, reproduced"
CLAIM = ("claim", "paper", "ours", "verdict")
LONGEST = 42  # rows of a table in Markdown; a longer one stays in result.json
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
    opening, verdicts = say(scale, version=__version__), headline([one[:2] for one in found])
    body = [html.paragraph(opening, "quiet"), html.paragraph(verdicts[0]), html.items(verdicts[1:])]
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
    body += [html.table(*of, stacked=True) for of in _epoch_tables(result)]
    making = [html.items(made_told(result)), html.table(["setting", "value"], settings)]
    how = html.details("Settings, seeds, versions, machine", making)
    return [*body, _rows(figure, result.rows), html.formulas([result.command]), how]


def _rows(figure: Figure, rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of the figure; a long one is folded."""
    values = [[row.get(column) for column in figure.columns] for row in rows]
    cells = [[(said(value), "quiet" if value is None else "") for value in row] for row in values]
    table = html.table(list(figure.columns.values()), cells)
    return table if len(rows) < _FOLDED_FROM else html.details(f"The table: {len(rows)} rows", [table])


def markdown(found: Sequence[tuple[Figure, Result]], opening: str) -> str:
    """The whole text. Pictures are looked for beside it, as <figure>/<file>. opening: its first paragraph."""
    first, *kinds = headline(found)
    blocks = [f"# {TITLE}", opening, first, *(["\n".join(f"- {line}" for line in kinds)] if kinds else [])]
    for figure, result in found:
        blocks += _as_markdown(figure, result)
    return "\n\n".join(blocks) + "\n"


def _as_markdown(figure: Figure, result: Result) -> list[str]:
    claims = [(c.claim, c.paper, c.ours, f"**{c.verdict}**", c.why) for c in result.claims]
    blocks = [f"## {figure.title}", f"The paper says: {figure.says}", _table((*CLAIM, "why"), claims)]
    blocks += [f"![{_in_cell(p['caption'])}]({figure.name}/{p['file']})" for p in result.pictures]
    for head, cells, caption in _epoch_tables(result):
        texts = [[text for text, _ in row] for row in cells]
        blocks += [f"### {caption}", _table(head, texts)]
    if result.findings:
        blocks += ["### Found out", "\n".join(f"- {_line(finding)}" for finding in result.findings)]
    if len(result.rows) <= LONGEST:
        rows = [[said(row.get(name)) for name in figure.columns] for row in result.rows]
        blocks += ["### Table", _table(list(figure.columns.values()), rows)]
    return [*blocks, f"    {result.command}", " ".join(_line(sentence) for sentence in made_told(result))]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_in_cell(cell) for cell in line)} |" for line in lines)


def _in_cell(text: str) -> str:
    return _line(text).replace("|", "\\|")


def _line(text: str) -> str:
    return " ".join(str(text).split())


def headline(found: Sequence[tuple[Figure, Result]]) -> list[str]:
    """How many claims have each verdict: a sentence for all, then one for each kind of verdict."""
    lines = [counted(claim for _, result in found for claim in result.claims)]
    for kind, about in KINDS.items():
        mine = [(figure.name, result.claims) for figure, result in found if figure.kind == kind]
        claims = [claim for _, some in mine for claim in some]
        if claims:
            names = ", ".join(name for name, some in mine if some)
            lines.append(f"{len(claims)} ({names}) {about}: {_each(claims)}.")
    return lines


def counted(claims: Iterable[Claim]) -> str:
    """How many claims have each verdict, as a sentence."""
    known = list(claims)
    if not known:
        return "No claim was judged."
    each = _each(known)
    return f"{len(known)} claim{'s' * (len(known) > 1)} of the paper. {each[0].upper()}{each[1:]}."


def _each(claims: Sequence[Claim]) -> str:
    verdicts = [claim.verdict for claim in claims]
    return ", ".join(f"{one}: {verdicts.count(one)}" for one in VERDICTS if one in verdicts)


Cells = list[list[tuple[str, str]]]


def _epoch_tables(result: Result) -> list[tuple[list[str], Cells, str]]:
    """Verdicts after each epoch, of a figure that has them: head, rows and caption, a table a data set."""
    tables = []
    for section in result.variants.get("epochs", ()):
        verdicts = section["verdicts"]
        if not verdicts:
            continue
        steps = sorted({row["steps"] for row in verdicts})
        head = ["claim", *(f"{n:,} steps" for n in steps)]
        cells = {(row["claim"], row["steps"]): _epoch_cell(row) for row in verdicts}
        claims = dict.fromkeys(row["claim"] for row in verdicts)
        rows = [[(claim, "text claim"), *(cells[claim, n] for n in steps)] for claim in claims]
        told = {"dataset": section["dataset"], "of": verdicts[0]["of"]}
        tables.append((head, rows, say("by epoch", **told)))
    return tables


def _epoch_cell(row: Mapping[str, Any]) -> tuple[str, str]:
    why = f" ({say('but ' + row['but'])})" if row["but"] else ""
    return f"{row['ours']}: {row['verdict'].removesuffix(' at this scale')}{why}", _KINDS[row["verdict"]]


def made_told(result: Result) -> list[str]:
    """How a result was made, a sentence each."""
    seeds = [f"{name} {said(value)}" for name, value in result.settings.items() if "seed" in name]
    lines = [
        say("seeds", seeds=", ".join(seeds)),
        say("versions", versions=_pairs({"adamode": result.version, **result.versions})),
        say("machine", machine=_pairs(result.machine)),
        say("git", commit=commit_told(result.git)),
        say("time", time=duration(result.seconds)),
    ]
    if FIGURES[result.figure].runs:
        lines.append(say("runs", runs=len(result.runs)))
    if result.variants:
        lines.append(say("variants", variants=", ".join(result.variants)))
    return lines


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def commit_told(git: Mapping[str, Any]) -> str:
    """This package's own, else that of the folder where the command was called."""
    place = "adamode" if "adamode_commit" in git else "here"
    if f"{place}_commit" not in git:
        return "no repository"
    return f"{str(git[f'{place}_commit'])[:12]}{', with changes' if git.get(f'{place}_changed') else ''}"


def said(value: Any) -> str:
    """A value of a row or a setting for people."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(f"({said(v)})" if isinstance(v, list | tuple) else said(v) for v in value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
