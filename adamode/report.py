"""HTML pages that stand alone: no script, no file beside them, everything shown is escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
.formula { font: 14px/1.6 Cambria, "Latin Modern Math", "STIX Two Math", serif; white-space: nowrap; }
pre.formula { white-space: pre-wrap; margin: .5rem 0 .5rem 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; margin: .5rem 0 1rem; }
caption { text-align: left; font-weight: 600; padding: .25rem 0; }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #8885; }
th { font-weight: 600; } th[colspan] { text-align: center; white-space: nowrap; }
th:first-child, td:first-child, .text { text-align: left; }
.ok { color: #00684a; font-weight: 600; } .fails { color: #fff; background: #b03000; font-weight: 600; }
.quiet { color: #777; }
@media (prefers-color-scheme: dark) { .ok { color: #5fd0a5; } }
"""


def text(value: Any) -> str:
    """The value as text that cannot be markup."""
    return html.escape(str(value))


def page(title: str, body: Sequence[str]) -> str:
    """A whole page; body: pieces made by the functions below."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head += f"<title>{text(title)}</title>"
    parts = "\n".join(body)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>{head}\n<style>{_STYLE}</style></head>\n'
        f"<body>\n<h1>{text(title)}</h1>\n{parts}\n</body>\n</html>\n"
    )


def heading(words: str, level: int = 2) -> str:
    """A heading, of level 2 where not given."""
    return f"<h{level}>{text(words)}</h{level}>"


def paragraph(words: str, kind: str = "") -> str:
    """A paragraph; kind: a class of the style ("ok", "fails", "quiet")."""
    return f'<p class="{text(kind)}">{text(words)}</p>' if kind else f"<p>{text(words)}</p>"


def formulas(lines: Sequence[str]) -> str:
    """Formulas, one a line."""
    return f'<pre class="formula">{text(chr(10).join(lines))}</pre>'


def items(lines: Sequence[str]) -> str:
    """A list."""
    return "<ul>" + "".join(f"<li>{text(line)}</li>" for line in lines) + "</ul>"


def table(
    head: Sequence[str], rows: Sequence[Sequence[tuple[str, str]]], caption: str = "", groups: str = ""
) -> str:
    """rows: cells as (text, class).  groups: a row of headings above, made by `group_row`."""
    top = "".join(f"<th>{text(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f'<td class="{text(kind)}">{text(cell)}</td>' for cell, kind in row) + "</tr>\n"
        for row in rows
    )
    above = f"<caption>{text(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll"><table>{above}\n<thead>{groups}<tr>{top}</tr></thead>\n'
        f"<tbody>\n{body}</tbody></table></div>"
    )


def group_row(groups: Sequence[tuple[str, int]]) -> str:
    """Headings over several columns each: (text, columns)."""
    return "<tr>" + "".join(f'<th colspan="{n}">{text(words)}</th>' for words, n in groups) + "</tr>"
