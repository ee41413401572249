"""A folder of pictures, a sub-folder a class; or folders train, val and test of such folders."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from ....solvers.errors import DataError
from ..card import DataCard
from ..images import Crop, build_images
from ..options import DataOptions
from ..pictures import picture, picture_size
from ..splits import DataSet
from .parts import NAMES, Parts, by_seed, check_trained, named_part, seed_of, told

Found = list[tuple[Path, str, str | None]]  # picture, class, part


def look_at_folder(path: Path, options: DataOptions) -> dict[str, int]:
    """{"image_channels", "size", "classes"} from the names and the heads of the files. Raises: DataError."""
    found = _pictures(path)
    channels, size = _shape(path, found, options.image_size)
    return {"image_channels": channels, "size": size, "classes": len(_classes(found))}


def load_folder(options: DataOptions) -> DataSet:
    """Pictures by class, as training data: all of one size, or brought to ``image_size`` pixels a side.

    Raises: DataError for a folder that is not so, or a picture that cannot be read (by its path).
    """
    path = Path(options.path or "")
    found = _pictures(path)
    channels, size = _shape(path, found, options.image_size)
    classes = _classes(found)
    labels = np.asarray([classes.index(name) for _, name, _ in found], dtype=np.int64)
    images = np.stack([picture(file, channels, (size, size)) for file, _, _ in found])
    parts = _parts(path, found, labels, classes, options)
    card = DataCard(
        name="own-images",
        source=f"pictures in the folder {path.name!r}",
        counts={},
        shape=(channels, size, size),
        classes=len(classes),
        sha256=_checksum(images, labels, classes),
        note=_note(found, options),
        labels=tuple(classes),
    )
    arrays = {f"{axis}_{part}": rows for part in parts for axis, rows in (("x", images), ("y", labels))}
    augment = Crop(size, padding=max(1, size // 8))
    return build_images(arrays, parts, card, options, augment, top=255.0)


def _pictures(path: Path) -> Found:
    """Every picture with its class and, where the folders say it, its part; in the order of names."""
    if not path.is_dir():
        raise DataError(
            f"data={str(path)!r} is not a folder; one with a sub-folder of pictures a class is needed."
        )
    folders = _folders(path)
    # Of numbers it is not known whether they name parts; folders called 0, 1 and 2 are classes.
    parted = {name: None if name.isdecimal() else named_part(name) for name in folders}
    if folders and all(parted.values()):
        missing = [part for part in NAMES if part not in parted.values()]
        if missing:
            raise DataError(
                f"{str(path)!r} has the folders {', '.join(folders)} and none for {' and '.join(missing)}: "
                "give all of train, val and test, or the folders of the classes alone."
            )
        found = [entry for name in folders for entry in _of_classes(path / name, parted[name])]
    else:
        found = _of_classes(path, None)
    if len(_classes(found)) < 2:
        raise DataError(
            f"{str(path)!r} has pictures of {len(_classes(found))} classes; a folder with at least two "
            "folders of pictures, one a class, is needed."
        )
    return found


def _of_classes(path: Path, part: str | None) -> Found:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    found: Found = []
    for name in _folders(path):
        files = sorted(p for p in (path / name).rglob("*") if p.suffix.lower() in IMG_EXTENSIONS)
        files = [p for p in files if not p.name.startswith(".") and p.is_file()]
        if not files:
            raise DataError(f"{str(path / name)!r} holds no pictures ({', '.join(IMG_EXTENSIONS)}).")
        found += [(file, name, part) for file in files]
    return found


def _folders(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _classes(found: Found) -> list[str]:
    return sorted({name for _, name, _ in found})


def _shape(path: Path, found: Found, image_size: int | None) -> tuple[int, int]:
    """(channels, pixels a side): one channel where all pictures are grey."""
    first, grey = picture_size(found[0][0]), True
    for file, _, _ in found:
        width, height, is_grey = picture_size(file)
        grey = grey and is_grey
        if image_size is None and ((width, height) != first[:2] or width != height):
            what = f"{width}×{height} pixels"
            other = "is no square" if width != height else f"{str(found[0][0])!r} has {first[0]}×{first[1]}"
            raise DataError(
                f"{str(file)!r} has {what}, and {other}; the pictures of {str(path)!r} must be squares of "
                "one size: bring them there, or let --image-size N squeeze them to N×N."
            )
    return (1 if grey else 3), first[0] if image_size is None else image_size


def _parts(path: Path, found: Found, labels: np.ndarray, classes: list[str], options: DataOptions) -> Parts:
    if found[0][2] is not None:
        if options.split:
            raise DataError(
                f"split={options.split!r}: the folders of {str(path)!r} say the parts already; leave it out."
            )
        parts = {part: np.flatnonzero([p == part for _, _, p in found]) for part in NAMES}
        check_trained(labels, parts, tuple(classes), repr(str(path)))
        return parts
    seed = seed_of(options.split)
    if seed is None:
        raise DataError(
            f"split={options.split!r}: a folder of classes has no columns; give a whole number as a seed, or "
            "folders train, val and test."
        )
    return by_seed(labels, len(labels), seed, tuple(classes), repr(str(path)))


def _note(found: Found, options: DataOptions) -> str:
    parts = told(options.split, "folders" if found[0][2] is not None else None)
    squeezed = f"; squeezed to {options.image_size} pixels a side" if options.image_size else ""
    return f"{len(found)} pictures, {parts}{squeezed}"


def _checksum(images: np.ndarray, labels: np.ndarray, classes: list[str]) -> str:
    digest = hashlib.sha256(repr(classes).encode())
    digest.update(images.tobytes())
    digest.update(labels.tobytes())
    return digest.hexdigest()
