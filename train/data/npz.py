"""Keras-style `.npz` files: x_train, y_train, x_test, y_test in one archive."""

from __future__ import annotations

import io
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ...solvers.errors import DataError, first_line
from .files import unreadable

# What zipfile and NumPy were seen to raise for archives with bytes changed.
_DAMAGED = (
    OSError,
    ValueError,
    EOFError,
    MemoryError,
    RuntimeError,  # "encrypted"; NotImplementedError is one
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
KEYS = ("x_train", "y_train", "x_test", "y_test")


def read_npz(path: Path, keys: tuple[str, ...] | None = KEYS) -> dict[str, np.ndarray]:
    """The arrays called ``keys`` of a `.npz` file, all of them where None. Nothing in it is unpickled.

    Raises: DataError for a file that is no archive, is truncated or damaged (naming the entry), lacks
    a key (listing those it has) or holds Python objects.
    """
    try:
        # NumPy, given a path, leaves the file open when the archive turns out damaged.
        with open(path, "rb") as file:
            start = file.read(2)
            if start != b"PK":
                raise DataError(
                    f"{str(path)!r} is not an .npz archive: it begins with {start!r} and not with b'PK'. A "
                    f"file as numpy.savez writes it{', with ' + ', '.join(keys) if keys else ''}, is needed."
                )
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                return _read_entries(path, archive, tuple(archive.files) if keys is None else keys)
    except DataError:
        raise
    except _DAMAGED as error:
        raise unreadable(path, error) from error


def _read_entries(path: Path, archive: np.lib.npyio.NpzFile, keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    missing = [key for key in keys if key not in archive.files]
    if missing:
        found = ", ".join(sorted(archive.files)) or "nothing"
        raise DataError(
            f"{str(path)!r} lacks {', '.join(missing)}; it holds {found}. A file as Keras writes it has "
            f"{', '.join(keys)}."
        )
    return {key: _read_entry(path, archive, key) for key in keys}


def _read_entry(path: Path, archive: np.lib.npyio.NpzFile, key: str) -> np.ndarray:
    try:
        # All of it first: then the archive's checksum is compared before NumPy looks at the header.
        assert archive.zip is not None  # open
        raw = archive.zip.read(f"{key}.npy")
        return np.lib.format.read_array(io.BytesIO(raw), allow_pickle=False)
    except (*_DAMAGED, KeyError, SyntaxError, tokenize.TokenError) as error:
        reason = first_line(str(error) or type(error).__name__)
        raise DataError(
            f"{str(path)!r}, entry {key}: cannot be read: {reason.rstrip('.')}. The file may be truncated, "
            "or the entry may hold Python objects, which are not read; fetch it again."
        ) from error
