"""The pages that take a step by hand: no number stands in their sentences that their code does not have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

STUDY = Path(__file__).resolve().parent.parent / "docs" / "study"
PAGES = ("step", "drift", "three-adjoints", "two-samples", "implicit-step")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"\d+\.\d+(?:e[-+]?\d+)?|\d+e[-+]?\d+")


def numbers(text: str) -> set[str]:
    """Those with a decimal point or an exponent; 1.6e+05 is 1.6e5."""
    return {re.sub(r"e\+?(-?)0*", r"e\1", found) for found in NUMBER.findall(text)}


def invented(text: str) -> set[str]:
    """Numbers of a page's sentences that stand neither in its code nor in what that prints."""
    own = "".join(content for kind, content in FENCED.findall(text) if kind in ("python", "text"))
    return numbers(FENCED.sub("", text)) - numbers(own)


@pytest.mark.parametrize("page", PAGES)
def test_every_number_of_a_sentence_is_one_of_the_codes(page):
    text = (STUDY / f"{page}.md").read_text(encoding="utf-8")
    assert invented(text) == set()
    assert text.count("```text\n") >= 3  # what is printed is compared where the pages' code is run


def test_a_number_of_nowhere_is_seen():
    page = "```python\nprint(1.5e5, 0.25)\n```\n\n```text\n150000.0 0.25\n```\n\n"
    assert invented(page + "It is 1.5e5, a 0.25 of it, and 0.26 or 2e-3.") == {"0.26", "2e-3"}
