"""An ``.npz`` file with x and y: points, images, sequences, or whatever a builder of one's own takes.

What the arrays are follows from their dtypes and shapes:

- y whole numbers, truth values or texts: classes. y floats: values to be predicted.
- x [N] or [N, D]: points.
- x [N, H, W] of uint8, or four dimensions with two equal ones beside the channels: images.
- x [N, L, U] floats with y [N, L, Y] floats: sequences, inputs and outputs.
- anything else: a model of one's own is needed.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from ....solvers.errors import ArgumentError, DataError
from ...known import ARRAYS as ARRAYS
from ...known import IMAGES as IMAGES
from ...known import POINTS as POINTS
from ...known import RECORDING as RECORDING
from ..card import checksum
from ..npz import read_npz
from ..options import DataOptions
from ..raw import scale_of
from .parts import NAMES, Parts, by_column, by_seed, check_trained, column_of, seed_of, told

_GIVEN = ("x_train", "y_train", "x_test", "y_test")  # as Keras has them; x_val, y_val may be there
MOST_SHARE = 0.5  # of the samples that may be classes: more look like values written as whole numbers


@dataclasses.dataclass(frozen=True)
class Arrays:
    """A file's samples, checked.

    kind: the data set's name.
    x: as the kind has it, images as [N, C, S, S].
    y: int64 labels [N], or float64 [N, …].
    classes: names of the labels; () for values.
    parts: indices of each part.
    how: how the parts were made, in words.
    white: the value that white has in images of whole numbers: 255, or 1 for truth values; else None.
    """

    kind: str
    x: np.ndarray
    y: np.ndarray
    classes: tuple[str, ...]
    parts: Parts
    how: str
    white: float | None

    def sha256(self) -> str:
        """Of all that a model is trained on: samples, the names of their classes, their parts.

        Other parts scale inputs in another way, and truth values have another white than the same numbers.
        """
        x = self.x.astype(bool) if self.white == 1 else self.x
        return checksum(x, self.y, np.asarray(self.classes), *(self.parts[part] for part in NAMES))

    def sizes(self) -> dict[str, int]:
        """What a model must know of the samples."""
        if self.kind == RECORDING:
            return {"inputs": self.x.shape[2], "outputs": self.y.shape[2]}
        numbers = len(self.classes) or int(np.prod(self.y.shape[1:], dtype=np.int64))
        if self.kind == IMAGES:
            return {"image_channels": self.x.shape[1], "size": self.x.shape[2], "classes": numbers}
        return {"features": self.x.shape[1], "classes": numbers} if self.kind == POINTS else {}


def read_arrays(path: Path, options: DataOptions) -> Arrays:
    """The samples of an ``.npz`` file. Raises: DataError by entry and row for what is missing or damaged."""
    found = read_npz(path, None)
    where = repr(str(path))
    given, column = None, None
    if "x" in found and "y" in found:
        x, y = found["x"], found["y"]
        others = tuple(name for name in found if name not in ("x", "y"))
        column = column_of(options.split, others, where)
    elif all(name in found for name in _GIVEN):
        if options.split and seed_of(options.split) is None:
            raise ArgumentError(
                f"split={options.split!r}: {where} says the parts already; give a seed, or none."
            )
        x, y, given = _joined(found, where)
    else:
        listed = ", ".join(sorted(found)) or "nothing"
        raise DataError(f"{where} has {listed}; x and y are needed, or {', '.join(_GIVEN)}.")
    truth = x.dtype.kind == "b"
    x = numbers(x, f"{where}, entry x")
    if y.ndim == 0 or len(x) != len(y):
        raise DataError(f"{where}: x has shape {x.shape} and y {y.shape}; both need one row a sample.")
    y, classes = _targets(y, f"{where}, entry y")
    kind, x, y = _kind(x, y, labelled=bool(classes))
    check_finite(x, f"{where}, entry x")
    check_finite(y, f"{where}, entry y")
    white = None if kind == POINTS else 1.0 if truth else 255.0 if _are_pixels(kind, x) else None
    parts, how = _parts(found, column, given, (y, classes), options.split, where)
    if classes:
        check_trained(y, parts, classes, where)
    return Arrays(kind, x, y, classes, parts, how, white)


def _are_pixels(kind: str, x: np.ndarray) -> bool:
    return kind == IMAGES and x.dtype == np.uint8


def _parts(
    found: dict[str, np.ndarray],
    column: str | None,
    given: Parts | None,
    targets: tuple[np.ndarray, tuple[str, ...]],
    split: str | None,
    where: str,
) -> tuple[Parts, str]:
    """The indices of each part, and how they were made.

    column: the entry that says them, or None.
    given: the parts of a file that has x_train, x_test …, or None.
    targets: (labels or values, the names of the classes).
    """
    y, classes = targets
    if column is not None:
        if found[column].shape not in ((len(y),), (len(y), 1)):
            shape = found[column].shape
            raise DataError(f"{where}: {column} has shape {shape}; one value for each of x's {len(y)} rows.")
        return by_column(found[column], f"{where}, entry {column}"), told(split, column)
    labels, seed = (y if classes else None), seed_of(split) or 0
    if given is None:
        return by_seed(labels, len(y), seed, classes, where), told(split, None)
    parts = given if len(given["val"]) else _with_validation(given, labels, seed, where)
    return parts, told(split, "x_train, x_test")


def _joined(found: dict[str, np.ndarray], where: str) -> tuple[np.ndarray, np.ndarray, Parts]:
    """x, y of all parts one after another, and the rows of each: none for a validation that is not there."""
    xs, ys, parts, n = [], [], {part: np.zeros(0, np.int64) for part in NAMES}, 0
    for part in NAMES:
        if f"x_{part}" not in found:
            continue
        x, y = found[f"x_{part}"], found.get(f"y_{part}")
        if y is None or y.ndim == 0 or len(x) != len(y) or not len(x):
            told_y = "nothing" if y is None else f"shape {y.shape}"
            raise DataError(
                f"{where}: x_{part} has shape {x.shape} and y_{part} {told_y}; one row a sample each."
            )
        parts[part], n = np.arange(n, n + len(x)), n + len(x)
        xs.append(x)
        ys.append(y)
    if (
        len({(x.shape[1:], scale_of(x.dtype)) for x in xs}) > 1
        or len({(y.shape[1:], y.dtype.kind) for y in ys}) > 1
    ):
        raise DataError(f"{where}: the parts differ in shape or kind; samples of all parts must be alike.")
    return np.concatenate(xs), np.concatenate(ys), parts


def _with_validation(parts: Parts, labels: np.ndarray | None, seed: int, where: str) -> Parts:
    """Validation is a tenth of the training part. Raises: DataError where nothing would be left of that."""
    if len(parts["train"]) < 2:
        raise DataError(
            f"{where}: x_train has one sample; give more, of which some validate, or x_val and y_val."
        )
    rows = np.random.default_rng(seed).permutation(parts["train"])
    if labels is not None:  # a tenth of each class, then
        rows = rows[np.argsort(labels[rows], kind="stable")]
    chosen = rows[:: max(2, min(10, len(rows)))]
    return {**parts, "val": np.sort(chosen), "train": np.setdiff1d(parts["train"], chosen)}


def numbers(x: np.ndarray, where: str) -> np.ndarray:
    """x, truth values as 0 and 1. Raises: DataError for what are no real numbers, or none at all."""
    if x.dtype.kind not in "iubf":
        raise DataError(f"{where} has dtype {x.dtype}; real numbers are needed.")
    if x.ndim == 0 or x.size == 0:
        raise DataError(f"{where} has shape {x.shape}; at least one sample is needed.")
    return x.astype(np.uint8) if x.dtype.kind == "b" else x


def _targets(y: np.ndarray, where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """(labels 0 … K−1, the names of the classes), or (float64 values, ())."""
    if y.size == 0:
        raise DataError(f"{where} has shape {y.shape}; at least one number a sample is needed.")
    if y.dtype.kind == "f":
        return y.astype(np.float64), ()
    if y.dtype.kind not in "iubUS":
        raise DataError(
            f"{where} has dtype {y.dtype}; whole numbers or texts (classes) or floats are needed."
        )
    if y.shape not in ((len(y),), (len(y), 1)):
        raise DataError(
            f"{where} has shape {y.shape}; labels must be [N], one a sample. Values must be floats."
        )
    names, labels = np.unique(y.reshape(-1), return_inverse=True)
    if len(names) < 2:
        raise DataError(
            f"{where} has one class, {names.tolist()[0]!r}; at least two are needed. Values must be floats."
        )
    if len(names) > max(2, MOST_SHARE * len(y)):
        raise DataError(
            f"{where} has {len(names)} classes in {len(y)} samples: values to be predicted must be floats "
            "(y.astype(float))."
        )
    told_names = (n.decode(errors="replace") if isinstance(n, bytes) else str(n) for n in names.tolist())
    return labels.reshape(-1).astype(np.int64), tuple(told_names)


def _kind(x: np.ndarray, y: np.ndarray, *, labelled: bool) -> tuple[str, np.ndarray, np.ndarray]:
    """The kind of data, and x and y as it has them."""
    if not labelled and y.ndim == 1:
        y = y[:, None]
    flat = labelled or y.ndim == 2
    if x.ndim <= 2 and flat:
        return POINTS, x.reshape(len(x), -1), y
    images = as_images(x)
    if images is not None and flat:
        return IMAGES, images, y
    if x.ndim == 3 and not labelled and y.ndim in (2, 3) and y.shape[:2] == x.shape[:2]:
        return RECORDING, x, y.reshape(*x.shape[:2], -1)
    return ARRAYS, x, y


def as_images(x: np.ndarray) -> np.ndarray | None:
    """x as squares [N, C, S, S], or None where it is none: [N, S, S] of uint8, channels first or last."""
    if x.ndim == 3 and x.dtype == np.uint8 and x.shape[1] == x.shape[2]:
        return x[:, None]
    if x.ndim == 4 and x.shape[2] == x.shape[3]:
        return x
    if x.ndim == 4 and x.shape[1] == x.shape[2]:
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    return None


def check_finite(values: np.ndarray, where: str) -> None:
    """Raises DataError with the first place and value that is NaN or infinite."""
    if values.dtype.kind != "f":
        return
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        place = tuple(int(i) for i in wrong[0])
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        column = f", column {', '.join(map(str, place[1:]))}" if len(place) > 1 else ""
        raise DataError(
            f"{where}: row {place[0]}{column} is {values[place]}{more}; a finite number is needed."
        )
