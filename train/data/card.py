"""What a data set is, in a few lines that are printed before training starts."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

MOST_LABELS = 12  # that are printed


@dataclasses.dataclass(frozen=True)
class FileRecord:
    """A file that was read: its name, its size in bytes, the SHA-256 of its bytes."""

    name: str
    size: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class DataCard:
    """Name, origin, counts and checksums of a data set.

    name: by which it is known.
    counts: samples of each split, in reading order.
    shape: of one input.
    classes: number of labels, 0 where there are none.
    source: where the data came from.
    sha256: of the raw arrays as read or generated; of one's own files also of the parts.
    note: what a reader of a figure must know (for instance that it is a sample of something larger).
    files: those that were read.
    task: "classification", "regression" or "density".
    labels: names of the classes in their order, where they have names.
    """

    name: str
    source: str
    counts: dict[str, int]
    shape: tuple[int, ...]
    classes: int
    sha256: str
    note: str = ""
    files: tuple[FileRecord, ...] = ()
    task: str = "classification"
    labels: tuple[str, ...] = ()

    def __str__(self) -> str:
        counts = ", ".join(f"{split} {n}" for split, n in self.counts.items())
        shape = "×".join(str(n) for n in self.shape)
        if self.task == "classification":
            what = f"{sum(self.counts.values())} inputs of shape {shape}, {self.classes} classes"
        else:
            what = f"{self.task}, training inputs of shape {shape}"
        lines = [
            f"data      {self.name}: {what} ({counts})",
            f"source    {self.source}; sha256 {self.sha256[:16]}…",
        ]
        lines += [f"file      {f.name}, {f.size:,} bytes, sha256 {f.sha256[:16]}…" for f in self.files]
        if self.labels:
            more = " …" if len(self.labels) > MOST_LABELS else ""
            lines.append(f"classes   {', '.join(self.labels[:MOST_LABELS])}{more}")
        return "\n".join([*lines, f"note      {self.note}"] if self.note else lines)

    def as_dict(self) -> dict[str, Any]:
        """The card as plain values, for JSON."""
        return dataclasses.asdict(self)


def checksum(*arrays: np.ndarray) -> str:
    """SHA-256 over shapes, dtypes and bytes of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def file_record(path: Path) -> FileRecord:
    """Name, size and SHA-256 of a file, read in pieces."""
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
            size += len(piece)
    return FileRecord(path.name, size, digest.hexdigest())
