"""Arrays of real numbers in MATLAB files of level 5 (MATLAB's `-v6` and `-v7`).

MathWorks, MAT-File Format, chapter 1: a header of 128 bytes, then data elements of a tag (type, size)
and a body; a matrix holds flags, dimensions, name and numbers, each an element, and may be compressed.

Not `scipy.io.loadmat`: on damaged files its compiled reader was seen to end the whole process with a
segmentation fault. Here each length is compared with what is left before it is used.
"""

from __future__ import annotations

import dataclasses
import math
import struct
import zlib
from collections.abc import Iterator
from typing import Literal

import numpy as np

from ...solvers.errors import DataError

Order = Literal["<", ">"]  # of bytes, least or most significant first
HEADER = 128
MATRIX, COMPRESSED = 14, 15
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
# The array's class in its flags: 6 double, 7 single, 8 … 15 integers; text, cells and others have no numbers.
CLASSES = {1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse"}
NUMERIC = range(6, 16)
COMPLEX, LOGICAL = 0x0800, 0x0200
LARGEST = 1 << 30  # bytes that a compressed matrix may unpack to


@dataclasses.dataclass(frozen=True)
class Variable:
    """A variable of a MATLAB file. values: its numbers in its shape, or None where ``kind`` is not real."""

    name: str
    kind: str
    values: np.ndarray | None


def read_matlab(raw: bytes, where: str) -> dict[str, Variable]:
    """The variables in a MATLAB file's bytes, by name.

    Raises: DataError, which begins with ``where``, for another format or a damaged file.
    """
    order = _byte_order(raw, where)
    found = {}
    try:
        for kind, body in _elements(raw[HEADER:], order):
            if kind == COMPRESSED:
                kind, body = next(_elements(_unpacked(body), order))
            if kind == MATRIX:
                variable = _matrix(body, order)
                found[variable.name] = variable
    except (_DamagedError, zlib.error, StopIteration) as error:
        reason = str(error) or "a compressed part is empty"
        raise DataError(f"{where} is damaged or truncated: {reason}. Fetch it again.") from error
    return found


class _DamagedError(Exception):
    pass


def _byte_order(raw: bytes, where: str) -> Order:
    orders: dict[bytes, Order] = {b"IM": "<", b"MI": ">"}
    order = orders.get(raw[126:128])
    if raw[:10] == b"MATLAB 7.3" or raw[:8] == b"\x89HDF\r\n\x1a\n":
        raise DataError(
            f"{where} is a MATLAB 7.3 file (HDF5), which is not read; save(name, '-v7') in MATLAB writes "
            "one that is."
        )
    if order is None:
        raise DataError(
            f"{where} is not a MATLAB file of level 5: byte 126 of its header has {raw[126:128]!r}, not "
            "b'IM' or b'MI'. save(name, '-v7') in MATLAB writes one."
        )
    return order


def _elements(raw: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Type and body of each element in turn."""
    place = 0
    while place < len(raw):
        if len(raw) - place < 8:
            raise _DamagedError(f"{len(raw) - place} bytes are left where an element of 8 or more begins")
        kind, size = struct.unpack_from(order + "II", raw, place)
        if kind >> 16:  # up to four bytes are kept in the tag itself
            kind, size, start, step = kind & 0xFFFF, kind >> 16, place + 4, 8
            if size > 4:
                raise _DamagedError(f"a short element says it has {size} bytes")
        else:
            start = place + 8
            # Compressed elements are not padded to multiples of eight.
            step = 8 + (size if kind == COMPRESSED else -(-size // 8) * 8)
        if start + size > len(raw):
            raise _DamagedError(f"an element says it has {size} bytes, and {len(raw) - start} are left")
        yield kind, raw[start : start + size]
        place += step


def _unpacked(body: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    raw = unpacker.decompress(body, LARGEST)
    if not unpacker.eof:
        raise _DamagedError("a compressed part has no end, or is larger than 1 GiB")
    return raw


def _matrix(body: bytes, order: Order) -> Variable:
    parts = _elements(body, order)
    try:
        (_, flags), (_, sizes), (_, name) = next(parts), next(parts), next(parts)
    except StopIteration:
        raise _DamagedError("a matrix lacks its flags, sizes or name") from None
    if len(flags) < 4 or len(sizes) < 8 or len(sizes) % 4:
        raise _DamagedError("a matrix has flags or sizes of the wrong length")
    (word,) = struct.unpack_from(order + "I", flags)
    text, kind = name.decode("latin-1"), word & 0xFF
    if kind not in NUMERIC or word & (COMPLEX | LOGICAL):
        what = CLASSES.get(kind, "complex" if word & COMPLEX else "logical" if word & LOGICAL else "unknown")
        return Variable(text, what, None)
    shape = struct.unpack(f"{order}{len(sizes) // 4}i", sizes)
    stored, numbers = next(parts, (0, b""))
    if stored not in NUMBERS:
        raise _DamagedError(f"the numbers of {text!r} are of the unknown type {stored}")
    dtype = np.dtype(NUMBERS[stored]).newbyteorder(order)
    if min(shape) < 0 or math.prod(shape) * dtype.itemsize != len(numbers):
        raise _DamagedError(f"{text!r} of shape {shape} does not have {len(numbers)} bytes of {dtype.name}")
    return Variable(text, dtype.name, np.frombuffer(numbers, dtype).reshape(shape, order="F"))
