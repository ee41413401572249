"""Files that a command is asked to write."""

from __future__ import annotations

import json
import os
from typing import Any

import typer


def check_output_file(option: str, path: str | None) -> None:
    """Says before the work, not after it, that ``path`` cannot be written; None and "-" always can.

    Raises: ArgumentError unless path is a file, there or not, in a folder that exists.
    """
    if path is None or path == "-":
        return
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder) or os.path.isdir(path):
        from ..solvers.errors import ArgumentError

        raise ArgumentError(f"{option} {path!r} must be a file in a folder that exists.")


def write_json(content: object, where: str, *, indent: int = 2, **form: Any) -> None:
    """Writes JSON to a file, or to stdout for "-". form: further arguments of `json.dumps`."""
    text = json.dumps(content, indent=indent, **form)
    if where == "-":
        typer.echo(text)
        return
    from ..solvers.write_aside import write_aside

    write_aside(where, text + "\n")
