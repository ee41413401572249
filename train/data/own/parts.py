"""Which samples train, validate and test: by a seed, or as a column says."""

from __future__ import annotations

import numpy as np

from ....solvers.errors import ArgumentError, DataError
from ..columns import told_cell
from ..splits import SPLIT_SEED

COLUMN = "split"  # taken where it is there and nothing else is asked for
SHARES = {"val": 0.1, "test": 0.2}
NAMES = ("train", "val", "test")
_WORDS = {
    "train": "train",
    "training": "train",
    "0": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "1": "val",
    "test": "test",
    "testing": "test",
    "2": "test",
}
Parts = dict[str, np.ndarray]


def seed_of(split: str | None) -> int | None:
    """The seed that ``split`` names; None where it names a column, `SPLIT_SEED` where it says nothing."""
    if not split:
        return SPLIT_SEED
    return int(split) if split.isdecimal() else None


def column_of(split: str | None, found: tuple[str, ...], where: str) -> str | None:
    """The column of ``found`` that says the parts, or None: then a seed does.

    Raises: DataError for a column that is not there.
    """
    if split and seed_of(split) is None:
        if split not in found:
            listed = ", ".join(map(repr, found)) or "nothing"
            raise DataError(
                f"{where} has no {split!r}, which split={split!r} asks for; it has {listed}. Give the name "
                "of one of these, or a whole number as a seed."
            )
        return split
    return COLUMN if not split and COLUMN in found else None


def named_part(text: object) -> str | None:
    """ "train", "val" or "test", where a text or number says one of them."""
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    if isinstance(text, float | np.floating) and float(text).is_integer():
        text = int(text)
    return _WORDS.get(str(text).strip().lower())


def by_column(values: np.ndarray, where: str) -> Parts:
    """Indices of each part from a value a sample.

    Raises: DataError for a value that names no part (with its row), and for a part without any.
    """
    named = [named_part(value) for value in values.reshape(-1).tolist()]
    for row, name in enumerate(named):
        if name is None:
            raise DataError(
                f"{where}, row {row + 1} is {told_cell(values.reshape(-1)[row])}; it must be train, "
                "val or test (or 0, 1, 2)."
            )
    parts = {part: np.flatnonzero(np.asarray([name == part for name in named])) for part in NAMES}
    for part, rows in parts.items():
        if not len(rows):
            raise DataError(f"{where} names no sample {part!r}; each of train, val and test needs one.")
    return parts


def by_seed(labels: np.ndarray | None, count: int, seed: int, names: tuple[str, ...], where: str) -> Parts:
    """Sorted indices of each part: a tenth validates, two tenths test, of each class where there are labels.

    names: of the classes.
    Raises: DataError where a class, or the whole, has fewer than three samples.
    """
    generator = np.random.default_rng(seed)
    groups = (
        [np.arange(count)] if labels is None else [np.flatnonzero(labels == k) for k in range(len(names))]
    )
    found: dict[str, list[np.ndarray]] = {part: [] for part in NAMES}
    for k, members in enumerate(groups):
        if len(members) < len(NAMES):
            what = f"class {names[k]!r} has" if labels is not None else "there are"
            raise DataError(
                f"{where}: {what} {len(members)} samples; at least three are needed, one for each of "
                "training, validation and test. Whole numbers are classes: values must be floats."
            )
        members = generator.permutation(members)
        n_val, n_test = (max(1, round(share * len(members))) for share in SHARES.values())
        n_test = min(n_test, len(members) - 1 - n_val)
        found["val"].append(members[:n_val])
        found["test"].append(members[n_val : n_val + n_test])
        found["train"].append(members[n_val + n_test :])
    return {part: np.sort(np.concatenate(rows)) for part, rows in found.items()}


def told(split: str | None, column: str | None, kind: str = "a tenth validation, two tenths test") -> str:
    """How the parts were made, for the card."""
    return f"parts by {column!r}" if column else f"{kind}, by seed {seed_of(split)}"


def check_seed(split: str | None) -> None:
    """Raises ArgumentError for a seed that NumPy cannot take."""
    seed = seed_of(split)
    if seed is not None and seed >= 2**32:
        raise ArgumentError(f"split={split!r} is too large for a seed; it must be below 2³².")


def check_trained(labels: np.ndarray, parts: Parts, names: tuple[str, ...], where: str) -> None:
    """Raises DataError for a class of which no sample trains: no model could ever name it.

    names: of the classes 0 … K−1.
    """
    lacking = np.setdiff1d(np.arange(len(names)), labels[parts["train"]])
    if len(lacking):
        more = f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""
        raise DataError(
            f"{where}: class {names[lacking[0]]!r}{more} has no sample in the training part; each class "
            "needs one there, or leave its samples out."
        )
