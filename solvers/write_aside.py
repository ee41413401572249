"""Files that a user computed appear under their name complete, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import ArgumentError

NUMBERS = (".npz", ".csv")


def check_numbers_file(path: str | os.PathLike[str]) -> None:
    """Raises ArgumentError unless the file, which is to hold arrays, ends in .npz or .csv."""
    if Path(path).suffix.lower() not in NUMBERS:
        raise ArgumentError(f"output={os.fspath(path)!r} must end in {' or '.join(NUMBERS)}.")


def write_aside(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Writes ``data`` beside ``path``, flushes it to the disk and renames it.

    Killed at any moment, the file called ``path`` is the old one or the new one, never a part.
    Raises: OSError (disk full, read-only, no such folder); the old file is then untouched.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.part")
    payload = data.encode() if isinstance(data, str) else data
    try:
        with open(aside, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    """Makes the rename itself survive a power cut; Windows has no such call on folders."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
