"""What a run's model says of a file: arrays (``.npz``), a recording (``.csv``, ``.mat``), or a picture."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..solvers.errors import ArgumentError, DataError
from ..solvers.write_aside import check_numbers_file, write_aside
from .data import DataSet
from .data.columns import read_columns, read_known
from .data.npz import read_npz
from .data.own.arrays import as_images, check_finite, numbers
from .data.own.recording import check_step
from .data.raw import Raw
from .data.splits import LabelledImages
from .evaluation import LoadedRun, read_picture
from .step import check_samples, mixed_precision

ARRAYS, RECORDINGS = (".npz",), (".csv", ".mat")


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What the model says of one file, whose samples have names[i].

    probabilities: [N, K] of classes; None for values.
    values: [N, …] in the file's own units; None for classes.
    labels: names of the classes.
    rmse: of a recording whose outputs are known further than they were given; else None.
    columns: of a recording's values.
    """

    names: tuple[str, ...]
    probabilities: np.ndarray | None = None
    values: np.ndarray | None = None
    labels: tuple[str, ...] = ()
    rmse: float | None = None
    given: int = 0
    columns: tuple[str, ...] = ()

    def as_dicts(self) -> list[dict[str, Any]]:
        """Plain values for JSON, one a sample."""
        found = []
        for i, name in enumerate(self.names):
            told: dict[str, Any] = {"input": name}
            if self.probabilities is not None:
                p = self.probabilities[i].tolist()
                told |= {"class": int(np.argmax(p)), "probabilities": p}
                if self.labels:
                    told["label"] = self.labels[told["class"]]
            if self.values is not None:
                told["values"] = self.values[i].tolist()
            if self.given:
                told |= {"given": self.given, "rmse": self.rmse}
            found.append(told)
        return found


def predict_file(
    run: LoadedRun, data: DataSet, path: str | os.PathLike[str], *, invert: bool = False
) -> Prediction:
    """The model's answers for a file.

    data: the run's, which say how numbers are scaled.
    invert: of a picture, see `read_picture`.

    ``.npz``: x as in training (and y, [N, ≥ given, Y], for sequences). ``.csv``, ``.mat``: the recording's
    columns,
    its outputs in the first ``data.given`` rows; cells after them may be blank.
    Raises: DataError with file, row and column; ArgumentError for a file that is not of the run's kind.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if data.task == "density":
        raise ArgumentError(
            f"file={str(path)!r}: a {run.config.model} on {run.config.dataset} is a density, which answers "
            "with samples: `adamode predict RUN --samples N`. From Python load_run(folder).model(x) is "
            "log p(x)."
        )
    if invert and suffix in (*RECORDINGS, *ARRAYS):
        raise ArgumentError(f"invert=True: {str(path)!r} is no picture; turn its numbers round in the file.")
    if suffix in RECORDINGS:
        return _recording(run, data, path)
    if suffix in ARRAYS:
        return _sequences(run, data, path) if data.given else _arrays(run, data, path)
    x = read_picture(path, data, invert=invert)
    return _answers(run, data, x, (str(path),))


def _arrays(run: LoadedRun, data: DataSet, path: Path) -> Prediction:
    x, where = _real(read_npz(path, None), "x", path), f"{str(path)!r}, entry x"
    check_finite(x, where)
    wanted = tuple(data.card.shape)
    if len(wanted) == 3 and x.shape[1:] != wanted:  # images without their one channel, or with it last
        flat = x.astype(np.uint8) if x.ndim == 3 else x
        images = as_images(flat)
        x = x[:, None] if x.ndim == 3 and images is not None else x if images is None else images
    elif x.ndim == 1 and wanted == (1,):
        x = x[:, None]
    if data.dt is None and len(wanted) == 2 and x.ndim == 3:  # trajectories, of any length
        wanted = (x.shape[1], wanted[1])
    if x.shape[1:] != wanted:
        raise DataError(f"{where} has shape {x.shape}; the model takes [N, {', '.join(map(str, wanted))}].")
    raw, axis = data.raw or Raw(), 1 if len(wanted) == 3 else -1
    raw.check_scale(x, where)
    x = numbers(x, where)
    if isinstance(data.train, LabelledImages):
        inputs = data.train.transform(torch.from_numpy(np.ascontiguousarray(x, dtype=np.uint8)))
    else:
        if raw.x is not None:
            raw.x.warn_of_other_units(x, where, axis)
        scaled = x if raw.x is None else raw.x.apply(x, axis)
        inputs = torch.from_numpy(np.ascontiguousarray(scaled, dtype=np.float64))
    return _answers(run, data, inputs, tuple(f"{path}[{i}]" for i in range(len(x))))


def _real(found: Mapping[str, np.ndarray], name: str, path: Path) -> np.ndarray:
    """An entry of a file; DataError unless it is there and has real numbers."""
    a = found.get(name)
    if a is None or a.dtype.kind not in "iubf" or a.ndim == 0 or not a.size:
        raise DataError(
            f"{str(path)!r}, entry {name} is missing, empty or holds no real numbers; {name} is needed, one "
            "row a sample."
        )
    return a


def _answers(run: LoadedRun, data: DataSet, x: Tensor, names: tuple[str, ...]) -> Prediction:
    output = outputs(run, x)
    if data.task == "classification":
        return Prediction(names, output.softmax(1).numpy(), labels=data.card.labels)
    raw = data.raw or Raw()
    values = output.numpy()
    return Prediction(names, values=values if raw.y is None else raw.y.undo(values))


def _recording(run: LoadedRun, data: DataSet, path: Path) -> Prediction:
    raw = _raw(data, path)
    if path.suffix.lower() == ".mat":
        columns = read_columns(path, (*raw.inputs, *raw.outputs))
    else:
        columns = (*read_columns(path, raw.inputs), *read_known(path, raw.outputs))
        check_step(path, raw)
    table = np.stack(columns, axis=1)
    u, y = table[:, : len(raw.inputs)], table[:, len(raw.inputs) :]
    return _free_run(run, data, u[None], y[None], path)


def _sequences(run: LoadedRun, data: DataSet, path: Path) -> Prediction:
    _raw(data, path)
    found = read_npz(path, None)
    x, y = (_real(found, name, path).astype(np.float64) for name in "xy")
    check_finite(x, f"{str(path)!r}, entry x")
    y = y[..., None] if y.ndim == 2 else y
    width = data.card.shape[-1] - 1
    if x.ndim != 3 or y.ndim != 3 or len(x) != len(y) or x.shape[2] + y.shape[2] != width:
        raise DataError(
            f"{str(path)!r}: x has shape {x.shape} and y {y.shape}; [N, L, U] and [N, L, Y] with U + Y = "
            f"{width} "
            f"are needed, y known in the first {data.given} rows (and NaN, or missing, after them)."
        )
    short = x.shape[1] - y.shape[1]
    if short > 0:
        y = np.concatenate((y, np.full((len(y), short, y.shape[2]), np.nan)), axis=1)
    return _free_run(run, data, x, y[:, : x.shape[1]], path)


def _raw(data: DataSet, path: Path) -> Raw:
    if not data.given or data.raw is None:
        raise ArgumentError(
            f"{str(path)!r} is a recording, and {data.name} has none: its inputs have shape "
            f"{data.card.shape}."
        )
    return data.raw


def _free_run(run: LoadedRun, data: DataSet, u: np.ndarray, y: np.ndarray, path: Path) -> Prediction:
    """From inputs [N, L, U] and outputs [N, L, Y], of which the first rows are given, the other outputs."""
    given, raw = data.given, data.raw or Raw()
    if u.shape[1] <= given:
        raise DataError(
            f"{str(path)!r} has {u.shape[1]} rows; the model is given {given}, and more are needed."
        )
    wrong = np.argwhere(~np.isfinite(y[:, :given]))
    if len(wrong):
        sample, row, column = (int(i) for i in wrong[0])
        name = raw.outputs[column] if column < len(raw.outputs) else column
        of = f", sample {sample}" if len(y) > 1 else ""
        raise DataError(
            f"{str(path)!r}{of}, row {row + 1}, column {name!r} is missing; the model is given the first "
            f"{given} "
            "rows of the outputs."
        )
    assert raw.x is not None
    assert raw.y is not None
    raw.x.warn_of_other_units(u, f"{str(path)!r}, inputs")
    raw.y.warn_of_other_units(y[:, :given], f"{str(path)!r}, outputs")
    shown = np.zeros((*y.shape[:2], 1))
    shown[:, :given] = 1
    known = np.where(shown > 0, raw.y.apply(y), 0.0)
    values = raw.y.undo(
        outputs(run, torch.from_numpy(np.concatenate((raw.x.apply(u), known, shown), axis=2))).numpy()
    )
    truth = y[:, given:]
    rmse = float(np.sqrt(np.mean((values - truth) ** 2))) if np.isfinite(truth).all() else None
    names = (str(path),) if len(u) == 1 else tuple(f"{path}[{i}]" for i in range(len(u)))
    return Prediction(names, values=values, rmse=rmse, given=given, columns=raw.outputs)


@torch.no_grad()
def outputs(run: LoadedRun, x: Tensor) -> Tensor:
    """The model's outputs for inputs [N, …], in batches of the run's size, as float64 on the CPU.

    Raises: SolverError, SamplesFailed where a batch cannot be solved.
    """
    found = []
    for part in x.to(run.dtype).split(run.config.batch_size):
        with mixed_precision(run.model, run.config.amp, run.device):
            found.append(run.model(part.to(run.device)).double().cpu())
        check_samples(run.model)
    return torch.cat(found)


def write_predictions(path: str | os.PathLike[str], predictions: list[Prediction]) -> None:
    """Writes answers to an ``.npz`` (input, and class, probabilities or values) or, one table, a ``.csv``.

    Raises: ArgumentError for another ending, or answers of different shapes; OSError.
    """
    check_numbers_file(path)
    path = Path(path)
    names = [name for p in predictions for name in p.names]
    tables = [p.probabilities if p.values is None else p.values for p in predictions]
    if len({table.shape[1:] for table in tables if table is not None}) > 1:
        raise ArgumentError(
            f"--output {str(path)!r}: the files' answers differ in shape; ask for one at a time."
        )
    table = np.concatenate([t for t in tables if t is not None])
    of_classes = predictions[0].values is None
    if path.suffix.lower() == ".npz":
        buffer = io.BytesIO()
        more = {"probabilities": table, "class": table.argmax(1)} if of_classes else {"values": table}
        np.savez(buffer, input=np.asarray(names), **more)
        write_aside(path, buffer.getvalue())
        return
    write_aside(path, _as_csv(names, table, predictions[0]))


def _as_csv(names: list[str], table: np.ndarray, first: Prediction) -> str:
    """A row a sample; of sequences a row a time, counted from 1."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if table.ndim == 3:
        columns = first.columns or tuple(f"y{i}" for i in range(table.shape[2]))
        writer.writerow(["input", "row", *columns])
        for name, rows in zip(names, table, strict=True):
            writer.writerows([name, first.given + 1 + i, *row] for i, row in enumerate(rows.tolist()))
        return text.getvalue()
    flat = table.reshape(len(table), -1)
    labels = first.labels or tuple(str(i) for i in range(flat.shape[1]))
    heads = (
        [f"p({label})" for label in labels]
        if first.values is None
        else [f"y{i}" for i in range(flat.shape[1])]
    )
    writer.writerow(["input", *heads])
    writer.writerows([name, *row] for name, row in zip(names, flat.tolist(), strict=True))
    return text.getvalue()
