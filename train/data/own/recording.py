"""A recording of inputs and outputs, as a CSV file (or a MATLAB one), or as many sequences in an ``.npz``."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ....solvers.errors import ArgumentError, DataError
from ..card import DataCard, checksum, file_record
from ..columns import check_once, read_columns, read_texts
from ..files import unreadable
from ..options import DataOptions
from ..raw import Raw, Scaling
from ..sequences import Recording, sequences, windows
from ..splits import DataSet
from .arrays import Arrays
from .parts import NAMES, by_column, column_of, seed_of, told

WINDOW, GIVEN = 32, 8  # the Silverbox's windows; as many rows as the models' encoder reads
STRETCHES = 10  # that a recording is cut into
# The size of input and output in the Silverbox's training part, in its unit of 10 mV: the models' scales were
# chosen there.
SIZE_IN, SIZE_OUT = 2.2, 5.5
_TIMES = ("t", "time")
EVEN = 1e-3  # of a step, by which a time may be off: clocks are written with few digits


def columns_of(
    path: Path, options: DataOptions
) -> tuple[tuple[str, ...], tuple[str, ...], str | None, str | None]:
    """(inputs, outputs, the parts' column, the time's column) of a recording.

    Inputs and outputs are those of the options, else the columns called u, u1, … and y, y1, ….
    Raises: DataError, ArgumentError for names that are not there, and where none are known.
    """
    where = repr(str(path))
    asked = tuple(_names(name, getattr(options, name)) for name in ("inputs", "outputs"))
    if path.suffix.lower() == ".mat":
        if not all(asked):
            raise ArgumentError(f"{where}: say which variables they are, --inputs U --outputs Y.")
        _refuse_both(*asked)
        return asked[0], asked[1], None, None
    header = _header(path)
    column = column_of(options.split, header, where)
    free = [name for name in header if name and name != column]
    found = tuple(
        names or tuple(n for n in free if re.fullmatch(rf"{letter}\d*", n.lower()))
        for names, letter in zip(asked, "uy", strict=True)
    )
    if not all(found):
        lacking = " and ".join(
            f"--{n}" for n, names in zip(("inputs", "outputs"), found, strict=True) if not names
        )
        raise ArgumentError(
            f"{where} has the columns {', '.join(map(repr, header))}, of which none are called u, u1 … and "
            f"y, y1 …: say with {lacking} which they are (several with commas). Columns are separated by "
            "commas, and the first line holds their names."
        )
    _refuse_both(*found)
    check_once(path, header, (*found[0], *found[1]))
    return found[0], found[1], column, _clock(free, (*found[0], *found[1]))


def look_at_recording(path: Path, options: DataOptions) -> dict[str, int]:
    """{"inputs", "outputs"}: how many of each."""
    inputs, outputs, *_ = columns_of(path, options)
    return {"inputs": len(inputs), "outputs": len(outputs)}


def load_recording(options: DataOptions) -> DataSet:
    """One recording, cut into stretches that train, validate and test.

    Training and validation are windows; a test stretch is one free run from its first measured rows.
    Raises: DataError with file, row and column; ArgumentError for options that do not fit it.
    """
    path = Path(options.path or "")
    inputs, outputs, column, time = columns_of(path, options)
    values = np.stack(read_columns(path, (*inputs, *outputs)), axis=1)
    dt = 1.0 if time is None else _step(path, time)
    u, y = values[:, : len(inputs)], values[:, len(inputs) :]
    pieces, how = _pieces(path, len(u), column, options)
    whole = {part: [(u[rows], y[rows]) for rows in found] for part, found in pieces.items()}
    raw = Raw(inputs, outputs, *_scalings(whole["train"], options), step=None if time is None else dt)
    ends = (np.asarray([(rows.start, rows.stop) for rows in pieces[part]]) for part in NAMES)
    files = (file_record(path),)
    source = f"the recording {path.name!r}: {', '.join(inputs)} → {', '.join(outputs)}, {len(u):,} rows"
    return _data_set(
        whole,
        raw,
        options,
        DataCard("own-recording", source, {}, (), 0, checksum(values, *ends), how, files),
        dt,
    )


def load_sequences(arrays: Arrays, card: DataCard, options: DataOptions) -> DataSet:
    """Sequences x [N, L, U], y [N, L, Y]: of training and validation windows, of the test the whole."""
    whole = {part: [(arrays.x[i], arrays.y[i]) for i in rows] for part, rows in arrays.parts.items()}
    sizes = arrays.sizes()
    u, y = (
        tuple(f"{letter}{i + 1}" if n > 1 else letter for i in range(n))
        for letter, n in (("u", sizes["inputs"]), ("y", sizes["outputs"]))
    )
    raw = Raw(u, y, *_scalings(whole["train"], options))
    return _data_set(whole, raw, options, card, 1.0)


def _data_set(
    whole: dict[str, list[tuple[np.ndarray, np.ndarray]]],
    raw: Raw,
    options: DataOptions,
    card: DataCard,
    dt: float,
) -> DataSet:
    """Windows and free runs of scaled stretches."""
    assert raw.x is not None
    assert raw.y is not None
    scaled = {
        part: [Recording(raw.x.apply(u), raw.y.apply(y), dt) for u, y in stretches]
        for part, stretches in whole.items()
    }
    given = options.given or GIVEN
    longest = max(len(part) for part in scaled["train"])
    window = options.window or max(1, min(WINDOW, longest - given))
    shortest = min(len(part) for part in scaled["test"])
    if shortest <= given:
        raise ArgumentError(f"given={given}: a stretch of the test has {shortest} rows; take fewer.")
    runs = windows(scaled["test"], shortest - given, given)
    sets = {
        "train": sequences(windows(scaled["train"], window, given), given),
        "validation": sequences(
            windows(scaled["val"], min(window, _room(scaled["val"], given)), given), given
        ),
        "test": sequences(runs, given),
    }
    note = (
        f"{card.note}; windows of {window} rows after {given} given ones; test: {len(runs)} free runs of "
        f"{shortest - given:,} rows; scaled as the Silverbox is"
        if options.normalise in (None, "standard")
        else f"{card.note}; windows of {window} rows after {given} given ones; to 0 … 1"
    )
    counts = {name: len(part) for name, part in sets.items()}
    width = len(raw.inputs) + len(raw.outputs) + 1
    card = dataclasses.replace(
        card, counts=counts, shape=(given + window, width), note=note, task="regression"
    )
    one = len(raw.outputs) == 1
    return DataSet(
        sets["train"],
        sets["validation"],
        sets["test"],
        card,
        given=given,
        per_unit=1 / raw.y.factor[0] if one else 1.0,
        dt=dt,
        raw=raw,
    )


def _room(parts: list[Recording], given: int) -> int:
    room = max(len(part) for part in parts) - given
    if room < 1:
        raise ArgumentError(
            f"given={given}: the validation's longest stretch has {room + given} rows; take fewer."
        )
    return room


def _scalings(train: list[tuple[np.ndarray, np.ndarray]], options: DataOptions) -> tuple[Scaling, Scaling]:
    u, y = (np.concatenate([stretch[k] for stretch in train]).astype(np.float64) for k in (0, 1))
    kind = options.normalise or "standard"
    return Scaling.of(u, kind, SIZE_IN), Scaling.of(y, kind, SIZE_OUT)


def _pieces(
    path: Path, rows: int, column: str | None, options: DataOptions
) -> tuple[dict[str, list[slice]], str]:
    """The stretches of each part, as ranges of rows, and how they were chosen."""
    if column is not None:
        values = np.asarray(read_texts(path, (column,))[0])
        parts = by_column(values, f"{str(path)!r}, column {column!r}")
        return {part: _stretches(found) for part, found in parts.items()}, told(options.split, column)
    if rows < STRETCHES:
        raise DataError(f"{str(path)!r} has {rows} rows; a recording needs at least {STRETCHES}.")
    ends = np.linspace(0, rows, STRETCHES + 1).astype(int)
    cut = [slice(int(a), int(b)) for a, b in itertools.pairwise(ends)]
    if not options.split:
        first = {"train": [slice(0, cut[6].stop)], "val": [cut[7]], "test": [slice(cut[8].start, rows)]}
        return first, "in time: 70 % training, 10 % validation, 20 % test"
    order = np.random.default_rng(seed_of(options.split)).permutation(STRETCHES)
    chosen = {"train": np.sort(order[:7]), "val": order[7:8], "test": np.sort(order[8:])}
    listed = {part: [cut[i] for i in indices] for part, indices in chosen.items()}
    return listed, f"of {STRETCHES} stretches seven train, one validates, two test, by seed {options.split}"


def _stretches(rows: np.ndarray) -> list[slice]:
    """Runs of consecutive rows."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    return [slice(int(run[0]), int(run[-1]) + 1) for run in np.split(rows, breaks)]


def check_step(path: Path, raw: Raw) -> None:
    """Raises DataError for a recording whose own clock has another step than training's, or an uneven one.

    A model's time runs in rows: of rows at another distance it says something else, and no shape tells.
    """
    time = None if raw.step is None else _clock(_header(path), (*raw.inputs, *raw.outputs))
    if time is None or raw.step is None:
        return
    dt = _step(path, time)
    if abs(dt - raw.step) > EVEN * raw.step:
        raise DataError(
            f"{str(path)!r}, column {time!r} has steps of {dt:g}; the model was trained on rows {raw.step:g} "
            "apart: resample the recording, or leave that column out where it is in another unit."
        )


def _clock(header: Sequence[str], others: Sequence[str]) -> str | None:
    """The column of times, of those that are no inputs and outputs; None where there is none."""
    return next((name for name in header if name.lower() in _TIMES and name not in others), None)


def _step(path: Path, time: str) -> float:
    """The step between two rows of an even clock."""
    (t,) = read_columns(path, (time,))
    if len(t) < 2:
        return 1.0
    dt = float(t[-1] - t[0]) / (len(t) - 1)
    off = np.flatnonzero(~(np.abs(np.diff(t) - dt) <= EVEN * abs(dt))) if dt > 0 else np.asarray([0])
    if len(off):
        row = int(off[0]) + 2
        jump = t[row - 1] - t[row - 2]
        raise DataError(
            f"{str(path)!r}, row {row} (line {row + 1}), column {time!r} is {t[row - 1]:g}, {jump:g} after "
            f"the row before; times must increase in even steps, here of {dt:g}. Resample the recording."
        )
    return dt


def _refuse_both(inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
    for name in inputs:
        if name in outputs:
            raise ArgumentError(f"{name!r} is an input and an output; a column can be one of the two.")


def _names(option: str, text: str | None) -> tuple[str, ...]:
    if not text:
        return ()
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise ArgumentError(f"{option}={text!r}: give each column once, with commas between them.")
    return names


def _header(path: Path) -> tuple[str, ...]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            first = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise unreadable(path, error) from error
    if not first:
        raise DataError(
            f"{str(path)!r} is empty, or its first line is; a header with the columns' names, and rows, are "
            "needed."
        )
    return tuple(cell.strip() for cell in first)
