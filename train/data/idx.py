"""The idx format of the MNIST files, plain or gzip: a magic number, sizes, bytes.

Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits, section "file formats": two
zero bytes, a type (8: unsigned byte), the number of dimensions, each size as a big-endian 32-bit
number, the values.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from ...solvers.errors import DataError
from .files import unreadable

_UNSIGNED_BYTE = 8


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """The array of ``ndim`` dimensions in an idx file of unsigned bytes; gzip is recognised by content.

    Raises: DataError for a wrong magic number, a wrong number of dimensions, or a length that is not
    the one the sizes ask for.
    """
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error
    wanted = _UNSIGNED_BYTE << 8 | ndim
    if len(raw) < 4:
        raise DataError(
            f"{str(path)!r} has {len(raw)} bytes; an idx file begins with a magic number of 4 bytes."
        )
    (magic,) = struct.unpack(">I", raw[:4])
    if magic != wanted:
        raise DataError(
            f"{str(path)!r} has the magic number {magic}; {_kind(ndim)} in idx format has {wanted}."
            f"{_guess(magic)} Is it another file under this name?"
        )
    header = 4 + 4 * ndim
    if len(raw) < header:
        raise DataError(f"{str(path)!r} ends inside its header of {header} bytes: it is truncated.")
    shape = struct.unpack(f">{ndim}I", raw[4:header])
    expected = header + math.prod(shape)
    if len(raw) != expected:
        what = "truncated" if len(raw) < expected else "longer than its header says"
        raise DataError(
            f"{str(path)!r} is {what}: sizes {shape} need {expected:,} bytes, it has {len(raw):,}. "
            "Fetch it again."
        )
    return np.frombuffer(raw, dtype=np.uint8, offset=header).reshape(shape).copy()


def _kind(ndim: int) -> str:
    return {1: "a file of labels", 3: "a file of images"}.get(ndim, f"an array of {ndim} dimensions")


def _guess(magic: int) -> str:
    if magic in (_UNSIGNED_BYTE << 8 | 1, _UNSIGNED_BYTE << 8 | 3):
        return f" This is the number of {_kind(magic & 255)}."
    return ""
