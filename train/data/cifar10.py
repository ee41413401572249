"""CIFAR-10: 32×32 colour images of ten kinds of things.

A. Krizhevsky, Learning multiple layers of features from tiny images, technical report, University of
Toronto (2009). 50,000 images to train on, 10,000 to test.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..places import BATCHES, CIFAR10, CIFAR10_NPZ, find_file
from .card import FileRecord, file_record
from .files import unreadable
from .images import Crop, ImageKind, build_official, check_official
from .npz import read_npz
from .options import DataOptions
from .splits import DataSet

KIND = ImageKind(
    name="cifar10",
    full={"train": 50_000, "test": 10_000},
    shape=(3, 32, 32),
    source="CIFAR-10 (Krizhevsky 2009)",
    augment=Crop(32, padding=4, mirrored=True),
)


def load_cifar10(options: DataOptions) -> DataSet:
    """CIFAR-10 from `cifar10.npz`, else from torchvision's folder: inputs [3, 32, 32] float32.

    Raises: DataError for files that are missing, damaged or of another kind.
    """
    folder = CIFAR10.folder(options.data_dir, make=options.download)
    npz = find_file(folder, [CIFAR10_NPZ])
    if npz is not None:
        arrays = read_npz(npz)
        files: tuple[FileRecord, ...] = (file_record(npz),)
        where = {key: f"{str(npz)!r}, {key}" for key in arrays}
    else:
        if not options.download:
            CIFAR10.find(folder)
        arrays, files = _read_batches(folder, options.download)
        where = {key: f"{str(folder / BATCHES)!r}, {key}" for key in arrays}
    check_official(arrays, where, (32, 32, 3), KIND.classes)
    for x in ("x_train", "x_test"):
        arrays[x] = np.ascontiguousarray(arrays[x].transpose(0, 3, 1, 2))
    return build_official(KIND, arrays, files, options)


def _read_batches(folder: Path, download: bool) -> tuple[dict[str, np.ndarray], tuple[FileRecord, ...]]:
    """torchvision's layout. Its batches are pickles: torchvision opens them only if their MD5 is right."""
    from torchvision import datasets

    arrays: dict[str, np.ndarray] = {}
    try:
        for part in ("train", "test"):
            data = datasets.CIFAR10(str(folder), train=part == "train", download=download)
            arrays[f"x_{part}"], arrays[f"y_{part}"] = data.data, np.asarray(data.targets)
    except (RuntimeError, OSError) as error:
        raise unreadable(folder / BATCHES, error) from error
    names = [name for name, _ in (*datasets.CIFAR10.train_list, *datasets.CIFAR10.test_list)]
    return arrays, tuple(file_record(folder / BATCHES / name) for name in names)
