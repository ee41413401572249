"""One's own data by their path: which kind they are, what a model must know of them, and their parts."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import torch

from ....solvers.errors import ArgumentError, DataError, MissingDataError
from ..card import DataCard, file_record
from ..images import Crop, build_images
from ..options import DataOptions
from ..raw import Raw, Scaling
from ..splits import DataSet, Samples
from .arrays import ARRAYS, IMAGES, POINTS, RECORDING, Arrays, read_arrays
from .folder import load_folder, look_at_folder
from .parts import check_seed
from .recording import load_recording, load_sequences, look_at_recording

RECORDINGS = (".csv", ".mat")


def look(options: DataOptions) -> tuple[str, dict[str, int]]:
    """(the data set's name, the sizes that a model must know) of the data at ``options.path``.

    Names and heads are read of folders and recordings, all of an ``.npz``.
    Raises: MissingDataError, DataError for what is not there, damaged or of no known kind.
    """
    path = _checked(options)
    if path.is_dir():
        return IMAGES, look_at_folder(path, options)
    if path.suffix.lower() in RECORDINGS:
        return RECORDING, look_at_recording(path, options)
    arrays = read_arrays(path, options)
    return arrays.kind, arrays.sizes()


def load_own(options: DataOptions) -> DataSet:
    """The data at ``options.path``, in three parts, with their card.

    Raises: as `look`; ArgumentError for an option that this kind of data does not have.
    """
    path = _checked(options)
    if path.is_dir():
        _refuse(options, "pictures", ("inputs", "outputs", "window", "given"))
        return load_folder(options)
    if path.suffix.lower() in RECORDINGS:
        _refuse(options, "a recording", (*_OF_IMAGES, "image_size"))
        return load_recording(options)
    _refuse(options, "an .npz file", ("inputs", "outputs", "image_size"))
    return _load_arrays(path, options)


_OF_IMAGES = ("augment", "train_size", "val_size", "test_size")


def _checked(options: DataOptions) -> Path:
    if not options.path:
        raise ArgumentError(
            "these data were given in Python, so no file says where they are: give them again, "
            "Trainer(config, data=…), or their folder or file with --data."
        )
    check_seed(options.split)
    path = Path(os.path.expanduser(options.path))  # a home that is not there stays a name
    if not path.exists():
        raise MissingDataError(
            f"data={str(path)!r} does not exist; give a folder, a .npz, .csv or .mat file."
        )
    if not path.is_dir() and path.suffix.lower() not in (*RECORDINGS, ".npz"):
        ending = f"the ending {path.suffix!r} is not known" if path.suffix else "the file has no ending"
        raise DataError(
            f"data={str(path)!r}: {ending}; give a folder of "
            "pictures by class, an .npz with x and y, or a recording as .csv or .mat."
        )
    return path


def _refuse(options: DataOptions, what: str, names: tuple[str, ...]) -> None:
    for name in names:
        if getattr(options, name) not in (None, False):
            raise ArgumentError(
                f"{name}={getattr(options, name)!r} is not an option of {what}; leave it out."
            )


def _load_arrays(path: Path, options: DataOptions) -> DataSet:
    arrays = read_arrays(path, options)
    labelled = bool(arrays.classes)
    card = DataCard(
        name=arrays.kind,
        source=f"the file {path.name!r}",
        counts={},
        shape=tuple(arrays.x.shape[1:]),
        classes=len(arrays.classes),
        sha256=arrays.sha256(),
        note=arrays.how,
        files=(file_record(path),),
        task="classification" if labelled else "regression",
        labels=arrays.classes,
    )
    if arrays.kind == RECORDING:
        _refuse(options, "sequences", _OF_IMAGES)
        return load_sequences(arrays, card, options)
    _refuse(options, f"data of the kind {arrays.kind}", ("window", "given"))
    if arrays.kind == IMAGES and arrays.white is not None and labelled:
        rows = {
            f"{axis}_{part}": a for part in arrays.parts for axis, a in (("x", arrays.x), ("y", arrays.y))
        }
        augment = Crop(arrays.x.shape[2], padding=max(1, arrays.x.shape[2] // 8))
        return build_images(rows, arrays.parts, card, options, augment, top=arrays.white)
    _refuse(options, "data that are no labelled images of whole numbers 0 … 255", _OF_IMAGES)
    return _scaled(arrays, card, options)


def _scaled(arrays: Arrays, card: DataCard, options: DataOptions) -> DataSet:
    """Points, images of floats, or any arrays (which are left as they are), in three parts."""
    kind, train = options.normalise or "standard", arrays.parts["train"]
    axis = 1 if arrays.kind == IMAGES else -1
    x, y = arrays.x.astype(np.float64), arrays.y
    scale_x = scale_y = None
    if arrays.kind != ARRAYS:
        scale_x = Scaling.of(np.moveaxis(x[train], axis, -1).reshape(-1, x.shape[axis]), kind)
        x = scale_x.apply(x, axis)
        if not arrays.classes:
            scale_y = Scaling.of(y[train], kind)
            y = scale_y.apply(y)
    values = torch.from_numpy(y if arrays.classes else y.astype(np.float32))
    inputs = torch.from_numpy(x.astype(np.float32))
    sets = {part: Samples(inputs[rows], values[rows]) for part, rows in arrays.parts.items()}
    names = {"train": "train", "val": "validation", "test": "test"}
    card = dataclasses.replace(card, counts={names[part]: len(data) for part, data in sets.items()})
    one = scale_y is not None and len(scale_y.factor) == 1
    per_unit = 1 / scale_y.factor[0] if one and scale_y is not None else 1.0
    # A point's columns have units of their own, in which whole numbers are numbers like others.
    dtype = "" if arrays.kind == POINTS else arrays.x.dtype.name
    raw = Raw(x=scale_x, y=scale_y, dtype=dtype, white=arrays.white)
    return DataSet(sets["train"], sets["val"], sets["test"], card, per_unit=per_unit, raw=raw)


__all__ = ["ARRAYS", "IMAGES", "POINTS", "RECORDING", "load_own", "look"]
