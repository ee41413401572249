"""The figures that were made as Markdown: claims, pictures, findings, tables; to be kept beside a text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..catalogue import FIGURES
from .figure import VERDICTS, Claim, Figure
from .result import Result
from .training import duration
from .work import say

TITLE = "The AdamNODE paper, reproduced"
CLAIM = ("claim", "paper", "ours", "verdict")
LONGEST = 42  # rows of a table; a longer one stays in result.json


def markdown(found: Sequence[tuple[Figure, Result]], opening: str) -> str:
    """The whole text. Pictures are looked for beside it, as <figure>/<file>. opening: its first paragraph."""
    blocks = [f"# {TITLE}", opening, counted(claim for _, result in found for claim in result.claims)]
    for figure, result in found:
        blocks += _figure(figure, result)
    return "\n\n".join(blocks) + "\n"


def _figure(figure: Figure, result: Result) -> list[str]:
    claims = [(c.claim, c.paper, c.ours, f"**{c.verdict}**", c.why) for c in result.claims]
    blocks = [f"## {figure.title}", f"The paper says: {figure.says}", _table((*CLAIM, "why"), claims)]
    blocks += [f"![{_cell(p['caption'])}]({figure.name}/{p['file']})" for p in result.pictures]
    if result.findings:
        blocks += ["### Found out", "\n".join(f"- {_line(finding)}" for finding in result.findings)]
    if len(result.rows) <= LONGEST:
        rows = [[said(row.get(name)) for name in figure.columns] for row in result.rows]
        blocks += ["### Table", _table(list(figure.columns.values()), rows)]
    return [*blocks, f"    {result.command}", " ".join(_line(sentence) for sentence in made_told(result))]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")


def _line(text: str) -> str:
    return " ".join(str(text).split())


def counted(claims: Iterable[Claim]) -> str:
    """How many claims have each verdict, as a sentence."""
    verdicts = [claim.verdict for claim in claims]
    if not verdicts:
        return "No claim was judged."
    each = ", ".join(f"{one}: {verdicts.count(one)}" for one in VERDICTS if one in verdicts)
    return f"{len(verdicts)} claim{'s' * (len(verdicts) > 1)} of the paper. {each[0].upper()}{each[1:]}."


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
