"""Writes the tables into docs/adjoints.md, between its markers; the words there are a person's."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

from adamode.train.reproducible import processor


class PageError(RuntimeError):
    """A marker is missing."""


def insert(text: str, name: str, content: str) -> str:
    """Replaces what stands between <!-- name --> and <!-- /name -->."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise PageError(f"the page must have {begin} and {end} once each, around the place of that table.")
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    return pattern.sub(lambda _: f"{begin}\n\n{content.strip()}\n\n{end}", text)


def write(target: Path, parts: dict[str, str]) -> None:
    """All tables at once: aside, flushed, renamed."""
    text = target.read_text(encoding="utf-8")
    for name, content in parts.items():
        text = insert(text, name, content)
    scratch = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    with scratch.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    scratch.replace(target)


def machine() -> str:
    """In words: processor, torch, threads."""
    version, threads = torch.__version__.split("+")[0], torch.get_num_threads()
    return f"{processor()}, torch {version}, {threads} thread{'s' if threads > 1 else ''}"
