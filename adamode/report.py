"""HTML pages that stand alone: no script, no file beside them, everything shown is escaped."""

from __future__ import annotations

import base64
import html
import struct
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
th, td { padding: .2rem .4rem; text-align: right; border-bottom: 1px solid #8885; }
th { font-weight: 600; } th[colspan] { text-align: center; }
th:first-child, td:first-child, .text { text-align: left; }
.ok { color: #00684a; font-weight: 600; } .fails { color: #fff; background: #b03000; font-weight: 600; }
.quiet { color: #777; }
@media (prefers-color-scheme: dark) { .ok { color: #5fd0a5; } }
"""

# For a page with pictures.
PICTURES = """
figure { margin: 1rem 0; } figcaption { font-size: 13px; max-width: 60rem; }
img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
@media (max-width: 40rem) { img { min-width: calc(var(--width) * .6); } }
"""

# For a page with stacked tables: where it is narrow, a row is a block of lines, each with its heading.
STACKED = """
.stacked th { text-align: left; }
@media (max-width: 40rem) {
  .stacked, .stacked tbody, .stacked tr, .stacked td { display: block; }
  .stacked thead { display: none; }
  .stacked tr { padding: .5rem 0; border-bottom: 1px solid #8888; }
  .stacked td { text-align: left; border: 0; padding: .1rem 0; }
  .stacked td::before { content: attr(data-label) ": "; font-weight: 400; color: inherit; opacity: .7; }
  .stacked .fails { padding-left: .3rem; }
}
"""


def text(value: Any) -> str:
    """The value as text that cannot be markup."""
    return html.escape(str(value))


def page(title: str, body: Sequence[str], style: str = "") -> str:
    """A whole page; body: pieces made by the functions below.

    style: CSS beside the common one.
    """
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head += f"<title>{text(title)}</title>"
    parts = "\n".join(body)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>{head}\n<style>{_STYLE}{style}</style></head>\n'
        f"<body>\n<h1>{text(title)}</h1>\n{parts}\n</body>\n</html>\n"
    )


def heading(words: str, level: int = 2) -> str:
    """A heading, of level 2 where not given."""
    return f"<h{level}>{text(words)}</h{level}>"


def paragraph(words: str, kind: str = "") -> str:
    """A paragraph; kind: a class of the style ("ok", "fails", "quiet")."""
    return f'<p class="{text(kind)}">{text(words)}</p>' if kind else f"<p>{text(words)}</p>"


def section(name: str, body: Sequence[str]) -> str:
    """A part of the page that `links` lead to by ``name``."""
    return f'<section id="{text(name)}">\n' + "\n".join(body) + "\n</section>"


def links(targets: Sequence[tuple[str, str]]) -> str:
    """A line of links to sections: (name, words) of each."""
    return (
        "<nav>" + " ".join(f'<a href="#{text(name)}">{text(words)}</a>' for name, words in targets) + "</nav>"
    )


def image(png: bytes, caption: str) -> str:
    """A PNG inside the page, with its caption below, which is also what is read out in its place.

    Its own width is the style's ``--width``: `PICTURES` makes it as small as a phone only where its words can
    still be read, and lets it scroll else.
    """
    data = base64.b64encode(png).decode("ascii")
    width, height = struct.unpack(">II", png[16:24])  # of its first chunk, IHDR
    source = f'<img src="data:image/png;base64,{data}" width="{width}" height="{height}"'
    source += f' style="--width:{width}px" alt="{text(caption)}">'
    return f'<figure><div class="scroll">{source}</div><figcaption>{text(caption)}</figcaption></figure>'


def details(summary: str, body: Sequence[str]) -> str:
    """Pieces that are folded away until ``summary`` is clicked."""
    return f"<details><summary>{text(summary)}</summary>\n" + "\n".join(body) + "\n</details>"


def formulas(lines: Sequence[str]) -> str:
    """Formulas, one a line."""
    return f'<pre class="formula">{text(chr(10).join(lines))}</pre>'


def items(lines: Sequence[str]) -> str:
    """A list of these texts, a line each."""
    return "<ul>" + "".join(f"<li>{text(line)}</li>" for line in lines) + "</ul>"


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[tuple[str, str]]],
    caption: str = "",
    groups: str = "",
    stacked: bool = False,
) -> str:
    """rows: cells as (text, class).
    groups: a row of headings above, made by `group_row`.

    The heading of a column whose first cell has the class "text" stands left too.
    stacked: each cell carries its heading too, so that `STACKED` can show a row as a block on a phone.
    """
    texts = ["text" in kind.split() for _, kind in rows[0]] if rows else [False] * len(head)
    opens = ['<th class="text">' if is_text else "<th>" for is_text in texts]
    top = "".join(f"{opening}{text(cell)}</th>" for opening, cell in zip(opens, head, strict=True))
    labels = [f' data-label="{text(cell)}"' if stacked else "" for cell in head]
    body = "".join(
        "<tr>"
        + "".join(
            f'<td class="{text(kind)}"{label}>{text(cell)}</td>'
            for (cell, kind), label in zip(row, labels, strict=True)
        )
        + "</tr>\n"
        for row in rows
    )
    opening = '<table class="stacked">' if stacked else "<table>"
    above = f"<caption>{text(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll">{opening}{above}\n<thead>{groups}<tr>{top}</tr></thead>\n'
        f"<tbody>\n{body}</tbody></table></div>"
    )


def group_row(groups: Sequence[tuple[str, int]]) -> str:
    """Headings over several columns each: (text, columns)."""
    return "<tr>" + "".join(f'<th colspan="{n}">{text(words)}</th>' for words, n in groups) + "</tr>"
