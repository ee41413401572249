"""The programs of docs/examples, cell by cell: what they print, held against what they say they print.

``python tests/example_outputs.py`` runs them and writes their ``# Output:`` blocks and pictures anew.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image

DOCS = Path(__file__).resolve().parent.parent / "docs"
EXAMPLES = sorted((DOCS / "examples").glob("*.py"))
PICTURES = DOCS / "images" / "examples"  # what each draws, for its page of the site
COLOURS = 128  # of a picture: a third of the bytes
PER_CENT = 0.1  # a number may differ by so much
OUTPUT = re.compile(r"\n\n# Output:\n((?:#(?: .*)?\n)+)\n*\Z")
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(\.\d+)?(?:e([-+]?\d+))?(?!\w)")


class Cell(NamedTuple):
    """A cell of the percent format.

    line: of its first line of text, from 1.
    code: None where it is text.
    output: what it says that it prints; None where it says nothing.
    """

    line: int
    text: str
    code: str | None
    output: str | None


def cells(program: str) -> list[Cell]:
    """A program's cells."""
    found = []
    heads = list(re.finditer(r"^# %%(.*)\n", program, re.MULTILINE))
    for head, after in zip(heads, [*heads[1:], None], strict=True):
        body = program[head.end() : after.start() if after else len(program)]
        line = program[: head.end()].count("\n") + 1
        if head[1].strip() == "[markdown]":
            text = re.sub(r"^# ?", "", body.strip(), flags=re.MULTILINE)
            found.append(Cell(line, text, None, None))
            continue
        block = OUTPUT.search(body)
        output = re.sub(r"^# ?", "", block[1], flags=re.MULTILINE) if block else None
        found.append(Cell(line, body, body[: block.start()] if block else body, output))
    return found


def prints(program: str, name: str) -> Iterator[tuple[Cell, str]]:
    """Runs a program, a cell at a time: each with what it prints."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    for cell in cells(program):
        if cell.code is not None:
            stream = io.StringIO()
            with contextlib.redirect_stdout(stream):
                exec(compile("\n" * (cell.line - 1) + cell.code, name, "exec"), namespace)
            yield cell, stream.getvalue()


def difference(expected: str, found: str) -> str | None:
    """The first difference of two outputs, in words; None where there is none.

    Numbers may differ by PER_CENT, and those that are printed with decimals by one in the last of these.
    Everything else must be equal, spaces apart.
    """
    lines = expected.rstrip().splitlines(), found.rstrip().splitlines()
    for one, other in zip(*lines, strict=False):
        words = [" ".join(NUMBER.sub("0", line).split()) for line in (one, other)]
        pairs = zip(NUMBER.finditer(one), NUMBER.finditer(other), strict=False)
        if words[0] != words[1] or any(abs(float(a[0]) - float(b[0])) > slack(a) for a, b in pairs):
            return f"it says {one!r}, but prints {other!r}"
    if len(lines[0]) != len(lines[1]):
        return f"it says {len(lines[0])} lines, but prints {len(lines[1])}"
    return None


def slack(number: re.Match[str]) -> float:
    """By how much what is printed may differ from a number."""
    decimals, exponent = number[1], int(number[2] or 0)
    last = 10.0 ** (exponent - len(decimals) + 1) if decimals else 0.0
    return max(abs(float(number[0])) * PER_CENT / 100, last) * (1 + 1e-9)


def faults(program: str, name: str) -> list[str]:
    """What a program says and does not print, or prints and does not say."""
    told = []
    for cell, found in prints(program, name):
        if (cell.output is None) != (found == ""):
            words = "prints nothing" if cell.output else f"does not say that it prints {found!r}"
            told.append(f"{name}:{cell.line}: {words}")
        elif cell.output and (fault := difference(cell.output, found)):
            told.append(f"{name}:{cell.line}: {fault}")
    return told


def rewritten(program: str, name: str) -> str:
    """The program with its blocks as it prints now."""
    for cell, found in reversed(list(prints(program, name))):
        block = "\n".join(f"# {line}".rstrip() for line in ("Output:", *found.rstrip().splitlines()))
        code, space = str(cell.code).rstrip(), cell.text[len(cell.text.rstrip()) :]
        body = code + (f"\n\n{block}" if found else "") + space
        at = len("".join(program.splitlines(keepends=True)[: cell.line - 1]))
        program = program[:at] + body + program[at + len(cell.text) :]
    return program


def _main() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in EXAMPLES}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for path, text in texts.items():
            path.write_text(rewritten(text, path.name), encoding="utf-8")
            drawn = Image.open(f"{path.stem}.png").convert("RGB")
            drawn.quantize(COLOURS).save(PICTURES / f"{path.stem}.png", optimize=True)


if __name__ == "__main__":
    _main()
