"""MNIST: 28×28 grey images of handwritten digits.

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Gradient-based learning applied to document recognition,
Proc. IEEE 86 (1998) 2278–2324. 60,000 images to train on, 10,000 to test.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...solvers.errors import MissingDataError
from .card import FileRecord, file_record
from .files import data_folder, find_file, not_found, unreadable
from .idx import read_idx
from .images import Crop, ImageKind, build_official, check_official
from .npz import read_npz
from .options import DataOptions
from .splits import DataSet

KIND = ImageKind(
    name="mnist",
    full={"train": 60_000, "test": 10_000},
    shape=(1, 28, 28),
    source="MNIST (LeCun, Bottou, Bengio, Haffner 1998)",
    augment=Crop(28, padding=2),
)
IDX = {
    "x_train": ("train-images-idx3-ubyte", 3),
    "y_train": ("train-labels-idx1-ubyte", 1),
    "x_test": ("t10k-images-idx3-ubyte", 3),
    "y_test": ("t10k-labels-idx1-ubyte", 1),
}
FOLDERS = ("", "MNIST/raw/", "mnist/", "raw/")  # MNIST/raw is torchvision's
REMEDY = (
    "Put mnist.npz (as Keras has it) or the four idx files (plain or .gz) there, or let --download fetch "
    "them. --dataset digits needs no files."
)


def load_mnist(options: DataOptions) -> DataSet:
    """MNIST from `mnist.npz`, else from idx files: inputs [1, 28, 28] float32.

    Raises: DataError for files that are missing, damaged or of another kind.
    """
    folder = data_folder(options.data_dir, "mnist", REMEDY, make=options.download)
    if options.download and not _present(folder):
        _download(folder)
    if npz := find_file(folder, ["mnist.npz"]):
        arrays = read_npz(npz)
        files: tuple[FileRecord, ...] = (file_record(npz),)
        where = {key: f"{str(npz)!r}, {key}" for key in arrays}
    else:
        arrays, files, where = _read_idx_files(folder)
    check_official(arrays, where, (28, 28), KIND.classes)
    for x in ("x_train", "x_test"):
        arrays[x] = arrays[x][:, None]
    return build_official(KIND, arrays, files, options)


def _present(folder: Path) -> bool:
    return find_file(folder, ["mnist.npz"]) is not None or all(_find_idx(folder, key) for key in IDX)


def _find_idx(folder: Path, key: str) -> Path | None:
    name = IDX[key][0]
    return find_file(folder, [f"{place}{name}{end}" for place in FOLDERS for end in ("", ".gz")])


def _read_idx_files(
    folder: Path,
) -> tuple[dict[str, np.ndarray], tuple[FileRecord, ...], dict[str, str]]:
    paths = {key: _find_idx(folder, key) for key in IDX}
    missing = [f"{IDX[key][0]}[.gz]" for key, path in paths.items() if path is None]
    if len(missing) == len(paths):
        places = [f"{place}{IDX['x_train'][0]}[.gz] and its three fellows" for place in FOLDERS[:2]]
        raise not_found("mnist", folder, ["mnist.npz", *places], REMEDY)
    if missing:
        raise MissingDataError(f"data set 'mnist' in {str(folder)!r} lacks {', '.join(missing)}. {REMEDY}")
    arrays = {key: read_idx(path, IDX[key][1]) for key, path in paths.items() if path is not None}
    files = tuple(file_record(path) for path in paths.values() if path is not None)
    return arrays, files, {key: repr(str(path)) for key, path in paths.items()}


def _download(folder: Path) -> None:
    """Fetches what is missing, in torchvision's layout; torchvision compares the files' checksums."""
    from torchvision import datasets

    try:
        datasets.MNIST(str(folder), download=True)
    except (RuntimeError, OSError) as error:
        raise unreadable(folder / "MNIST", error) from error
