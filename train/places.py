"""Which files data sets are read from, and whether they are there. Nothing here imports torch or NumPy."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..solvers.errors import DataError, MissingDataError

VARIABLE = "ADAMODE_DATA"
MNIST_NPZ, CIFAR10_NPZ = "mnist.npz", "cifar10.npz"
IDX = {  # MNIST's own files, and their numbers of axes
    "x_train": ("train-images-idx3-ubyte", 3),
    "y_train": ("train-labels-idx1-ubyte", 1),
    "x_test": ("t10k-images-idx3-ubyte", 3),
    "y_test": ("t10k-labels-idx1-ubyte", 1),
}
IDX_FOLDERS = ("", "MNIST/raw/", "mnist/", "raw/")  # MNIST/raw is torchvision's
BATCHES = "cifar-10-batches-py"
RECORDINGS = tuple(
    f"{folder}{name}" for name in ("SNLS80mV.csv", "SNLS80mV.mat") for folder in ("", "SilverboxFiles/")
)


@dataclasses.dataclass(frozen=True)
class Place:
    """The files of a data set.

    name: of the data set.
    remedy: a sentence on how to get them.
    find: from the folder to their paths; raises MissingDataError where they are not there.
    """

    name: str
    remedy: str
    find: Callable[[Path], Any]

    def folder(self, data_dir: str | None, *, make: bool = False) -> Path:
        """The folder that holds the files: data_dir, else $ADAMODE_DATA.

        make: create it if it is not there.
        Raises: MissingDataError where neither is given or it is not there, DataError where it is no folder.
        """
        folder, origin = data_dir, "--data-dir"
        if folder is None:
            folder, origin = os.environ.get(VARIABLE) or None, VARIABLE
        if folder is None:
            raise MissingDataError(
                f"data set {self.name!r} is read from files, and no folder was given: use --data-dir FOLDER "
                f"(in Python DataOptions(data_dir=…)) or the environment variable {VARIABLE}. {self.remedy}"
            )
        path, looked = Path(os.path.expanduser(folder)), f"{self.name!r} is looked for there. {self.remedy}"
        if make and not path.exists():
            try:
                path.mkdir(parents=True)
            except OSError as error:
                raise DataError(f"{origin} {str(folder)!r} cannot be made: {error}.") from error
        if not path.exists():
            raise MissingDataError(f"{origin} {str(folder)!r} does not exist; {looked}")
        if not path.is_dir():
            raise DataError(f"{origin} {str(folder)!r} is not a folder; {looked}")
        return path

    def missing(self, data_dir: str | None) -> str:
        """Why the files are not there, and how to get them; "" where they are. Nothing is read.

        Raises: DataError where the folder is none.
        """
        try:
            self.find(self.folder(data_dir))
        except MissingDataError as error:
            return str(error)
        return ""


def find_file(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of ``names`` (paths relative to ``folder``) that is a file, or None."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _not_there(place: Place, folder: Path, looked_for: Sequence[str]) -> MissingDataError:
    listed = ", ".join(looked_for)
    return MissingDataError(
        f"data set {place.name!r} is not in {str(folder)!r}: looked for {listed}. {place.remedy}"
    )


def _find_mnist(folder: Path) -> dict[str, Path]:
    """{"npz": the file of all arrays}, else the path of each array of `IDX`."""
    if npz := find_file(folder, [MNIST_NPZ]):
        return {"npz": npz}
    paths = {
        key: find_file(folder, [f"{place}{name}{end}" for place in IDX_FOLDERS for end in ("", ".gz")])
        for key, (name, _) in IDX.items()
    }
    missing = [f"{IDX[key][0]}[.gz]" for key, path in paths.items() if path is None]
    if len(missing) == len(paths):
        places = [f"{place}{IDX['x_train'][0]}[.gz] and its three fellows" for place in IDX_FOLDERS[:2]]
        raise _not_there(MNIST, folder, [MNIST_NPZ, *places])
    if missing:
        raise MissingDataError(
            f"data set 'mnist' in {str(folder)!r} lacks {', '.join(missing)}. {MNIST.remedy}"
        )
    return {key: path for key, path in paths.items() if path is not None}


def _find_cifar10(folder: Path) -> Path:
    """The file of all arrays, else torchvision's folder."""
    if npz := find_file(folder, [CIFAR10_NPZ]):
        return npz
    if not (folder / BATCHES).is_dir():
        raise _not_there(CIFAR10, folder, [CIFAR10_NPZ, f"{BATCHES}/"])
    return folder / BATCHES


def _find_silverbox(folder: Path) -> Path:
    path = find_file(folder, RECORDINGS)
    if path is None:
        raise _not_there(SILVERBOX, folder, RECORDINGS)
    return path


MNIST = Place(
    "mnist",
    "Put mnist.npz (as Keras has it) or the four idx files (plain or .gz) there, or let --download fetch "
    "them. --dataset digits needs no files.",
    _find_mnist,
)
CIFAR10 = Place(
    "cifar10",
    "Put cifar10.npz (x_train, y_train, x_test, y_test as Keras gives them) or torchvision's folder "
    f"{BATCHES} there, or let --download fetch it.",
    _find_cifar10,
)
SILVERBOX = Place(
    "silverbox",
    "Get SilverboxFiles.zip from the Silverbox page of nonlinearbenchmark.org and put SNLS80mV.csv or "
    "SNLS80mV.mat there; it is not downloaded for you. silverbox-simulated needs no files.",
    _find_silverbox,
)
PLACES = {  # of the data sets that are read from files
    "mnist": MNIST,
    "cifar10": CIFAR10,
    "silverbox": SILVERBOX,
    "silverbox-paper": SILVERBOX,
    "mnist8-density": MNIST,
}
