"""The docs' table of refusals, and where it stands."""

from __future__ import annotations

from pathlib import Path

from .refusals import table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "refusals.md"
BEGIN, END = "<!-- refusals -->\n\n", "\n<!-- /refusals -->\n"


def written() -> str:
    """The table that the page holds."""
    text = PAGE.read_text(encoding="utf-8")
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)]


def write() -> None:
    """Puts the table into the page."""
    text = PAGE.read_text(encoding="utf-8")
    before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    PAGE.write_text(before + table() + after, encoding="utf-8")
