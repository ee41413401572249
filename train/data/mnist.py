"""MNIST: 28×28 grey images of handwritten digits.

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Gradient-based learning applied to document recognition,
Proc. IEEE 86 (1998) 2278–2324. 60,000 images to train on, 10,000 to test.
"""

from __future__ import annotations

from pathlib import Path

from ..places import IDX, MNIST
from .card import file_record
from .files import unreadable
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


def load_mnist(options: DataOptions) -> DataSet:
    """MNIST from `mnist.npz`, else from idx files: inputs [1, 28, 28] float32.

    Raises: DataError for files that are missing, damaged or of another kind.
    """
    folder = MNIST.folder(options.data_dir, make=options.download)
    if options.download and MNIST.missing(options.data_dir):
        _download(folder)
    paths = MNIST.find(folder)
    if npz := paths.get("npz"):
        arrays = read_npz(npz)
        where = {key: f"{str(npz)!r}, {key}" for key in arrays}
    else:
        arrays = {key: read_idx(path, IDX[key][1]) for key, path in paths.items()}
        where = {key: repr(str(path)) for key, path in paths.items()}
    files = tuple(file_record(path) for path in paths.values())
    check_official(arrays, where, (28, 28), KIND.classes)
    for x in ("x_train", "x_test"):
        arrays[x] = arrays[x][:, None]
    return build_official(KIND, arrays, files, options)


def _download(folder: Path) -> None:
    """Fetches what is missing, in torchvision's layout; torchvision compares the files' checksums."""
    from torchvision import datasets

    try:
        datasets.MNIST(str(folder), download=True)
    except (RuntimeError, OSError) as error:
        raise unreadable(folder / "MNIST", error) from error
