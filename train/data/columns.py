"""Two columns of numbers by name, from a `.csv` or a `.mat` file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...solvers.errors import DataError, first_line
from .files import unreadable
from .matlab import Variable, read_matlab


def read_columns(path: Path, names: Sequence[str]) -> tuple[np.ndarray, ...]:
    """The columns called ``names`` as float64 [N] each; the file's ending decides how it is read.

    Raises: DataError that names file, row and column for what is missing or is no finite number.
    """
    return read_mat(path, names) if path.suffix.lower() == ".mat" else read_csv(path, names)


def read_csv(path: Path, names: Sequence[str]) -> tuple[np.ndarray, ...]:
    """Columns of a comma-separated file whose first line is a header.

    Other columns, and blank lines at the end, are passed over. Rows are counted from 1 after the header.
    Raises: DataError, see `read_columns`.
    """
    return tuple(_column(path, rows, index, name) for name, rows, index in _found(path, names))


def read_known(path: Path, names: Sequence[str]) -> tuple[np.ndarray, ...]:
    """As `read_csv`, but a cell may be blank: NaN."""
    return tuple(_column(path, rows, index, name, blank=True) for name, rows, index in _found(path, names))


def read_texts(path: Path, names: Sequence[str]) -> tuple[list[str], ...]:
    """Columns of a comma-separated file as texts. Raises: DataError, see `read_columns`."""
    return tuple(
        [row[index].strip() if index < len(row) else "" for row in rows[1:]]
        for _, rows, index in _found(path, names)
    )


def _found(path: Path, names: Sequence[str]) -> list[tuple[str, list[list[str]], int]]:
    """Each name with the file's rows, the header first, and its place in them."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise unreadable(path, error) from error
    if not rows:
        raise DataError(f"{str(path)!r} is empty; a header with {', '.join(names)} and rows are needed.")
    header = [cell.strip() for cell in rows[0]]
    missing = [name for name in names if name not in header]
    if missing:
        found = ", ".join(repr(cell) for cell in header if cell) or "no names"
        raise DataError(
            f"{str(path)!r}, line 1: column {' and '.join(map(repr, missing))} missing; there are {found}. "
            "Columns are separated by commas, and the first line holds their names."
        )
    check_once(path, header, names)
    while len(rows) > 1 and not any(cell.strip() for cell in rows[-1]):
        rows.pop()
    if len(rows) == 1:
        raise DataError(f"{str(path)!r} has a header and no rows.")
    return [(name, rows, header.index(name)) for name in names]


def check_once(path: Path, header: Sequence[str], names: Sequence[str]) -> None:
    """Raises DataError where a file has several columns of one of these names."""
    for name in names:
        if header.count(name) > 1:
            raise DataError(
                f"{str(path)!r}, line 1: {header.count(name)} columns are called {name!r}; give each its own "
                "name."
            )


def _column(path: Path, rows: list[list[str]], index: int, name: str, *, blank: bool = False) -> np.ndarray:
    values = np.empty(len(rows) - 1)
    for number, row in enumerate(rows[1:]):
        if blank and (index >= len(row) or not row[index].strip()):
            values[number] = np.nan
            continue
        try:
            values[number] = float(row[index])
        except (ValueError, IndexError):
            text = told_cell(row[index]) if index < len(row) else "missing: the row ends before it"
            raise DataError(_at(path, number, name, f"is {text}")) from None
    return values if blank else _checked_finite(path, name, values)


def told_cell(cell: object) -> str:
    """A cell as a message has it: short, and '' where nothing is in it."""
    return repr(first_line(cell, 40) if str(cell).strip() else "")


def read_mat(path: Path, names: Sequence[str]) -> tuple[np.ndarray, ...]:
    """Variables of a MATLAB file (`-v6`, `-v7`), each [1, N], [N, 1] or [N].

    Raises: DataError, see `read_columns`.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
    found = read_matlab(raw, repr(str(path)))
    columns = tuple(_variable(path, found, name) for name in names)
    lengths = [len(column) for column in columns]
    if len(set(lengths)) > 1:
        pairs = ", ".join(f"{name} {n}" for name, n in zip(names, lengths, strict=True))
        raise DataError(f"{str(path)!r}: variables of different lengths ({pairs}); they must be equal.")
    return columns


def _variable(path: Path, found: dict[str, Variable], name: str) -> np.ndarray:
    where = f"{str(path)!r}: variable {name!r}"
    if name not in found:
        raise DataError(f"{where} missing; the file has {', '.join(map(repr, found)) or 'no variables'}.")
    values = found[name].values
    if values is None:
        raise DataError(f"{where} is {found[name].kind}; an array of real numbers is needed.")
    if values.size == 0 or values.size != max(values.shape):
        raise DataError(f"{where} has shape {values.shape}; one row or one column is needed.")
    return _checked_finite(path, name, values.reshape(-1).astype(np.float64))


def _checked_finite(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise DataError(_at(path, int(wrong[0]), name, f"is {values[wrong[0]]}", also=len(wrong) - 1))
    return values


def _at(path: Path, row: int, name: str, what: str, also: int = 0) -> str:
    more = f" (and {also} more rows)" if also else ""
    line = f" (line {row + 2})" if path.suffix.lower() != ".mat" else ""
    return f"{str(path)!r}, row {row + 1}{line}, column {name!r} {what}{more}; a finite number is needed."
