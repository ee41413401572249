"""What a data set is, in a few lines that are printed before training starts."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np


@dataclasses.dataclass(frozen=True)
class DataCard:
    """Name, origin, counts and checksum of a data set.

    counts: samples of each split.  shape: of one input.  classes: number of labels.
    source: where the files came from.  sha256: of the raw arrays.  note: what a reader of a figure
    must know (for instance that it is a sample of something larger).
    """

    name: str
    source: str
    counts: dict[str, int]
    shape: tuple[int, ...]
    classes: int
    sha256: str
    note: str = ""

    def __str__(self) -> str:
        counts = ", ".join(f"{split} {n}" for split, n in self.counts.items())
        shape = "×".join(str(n) for n in self.shape)
        lines = [
            f"data      {self.name}: {sum(self.counts.values())} inputs of shape {shape}, "
            f"{self.classes} classes ({counts})",
            f"source    {self.source}; sha256 {self.sha256[:16]}…",
        ]
        return "\n".join([*lines, f"note      {self.note}"] if self.note else lines)


def checksum(*arrays: np.ndarray) -> str:
    """SHA-256 over shapes, dtypes and bytes of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
