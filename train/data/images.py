"""From arrays of images and labels to a data set: checks, split, normalisation, augmentation."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ...solvers.errors import ArgumentError, DataError
from .card import DataCard, FileRecord, checksum
from .options import DataOptions
from .raw import Raw, Scaling
from .splits import DataSet, LabelledImages, balanced_subset, stratified_split

if TYPE_CHECKING:  # torchvision takes longer to import than torch, and what is refused needs none of it
    from torchvision.transforms import v2

_WORDS = {"train": "training", "val": "validation", "test": "test"}
_PIXELS = {"unit": "in [0, 1]", "standard": "with mean 0 and variance 1 over the training images"}
VALIDATION_SHARE = 0.1  # of the official training images, in each class


@dataclasses.dataclass(frozen=True)
class Crop:
    """Augmentation: random crops of size × size from the image with ``padding`` pixels around it, perhaps
    mirrored."""

    size: int
    padding: int
    mirrored: bool = False

    def transform(self) -> v2.Transform:
        """As torchvision does it."""
        from torchvision.transforms import v2

        crop = v2.RandomCrop(self.size, padding=self.padding)
        return v2.Compose([crop, v2.RandomHorizontalFlip()]) if self.mirrored else crop


@dataclasses.dataclass(frozen=True)
class ImageKind:
    """What is fixed of an official data set of images. full: its images in each official part."""

    name: str
    full: dict[str, int]
    shape: tuple[int, int, int]
    source: str
    augment: Crop
    classes: int = 10


def check_images(images: np.ndarray, where: str, shape: tuple[int, ...]) -> None:
    """Raises DataError unless images are uint8 [N, *shape] with N ≥ 1. where: file and entry."""
    if images.dtype != np.uint8:
        raise DataError(f"{where} has dtype {images.dtype}; images must be uint8, 0 … 255.")
    if images.shape[1:] != shape or images.ndim != len(shape) + 1:
        wanted = "×".join(map(str, shape))
        raise DataError(f"{where} has shape {images.shape}; it must be [N, {wanted}], N images of {wanted}.")
    if len(images) == 0:
        raise DataError(f"{where} is empty; at least one image is needed.")


def checked_labels(labels: np.ndarray, where: str, classes: int, count: int) -> np.ndarray:
    """Labels [count] or [count, 1] of whole numbers in 0 … classes−1, as int64 [count].

    Raises: DataError with the first index that is out of range. where: file and entry.
    """
    if labels.dtype.kind not in "iu":
        raise DataError(f"{where} has dtype {labels.dtype}; labels must be whole numbers (int or uint).")
    if labels.shape not in ((count,), (count, 1)):
        raise DataError(
            f"{where} has shape {labels.shape}, but there are {count} images: it must be [{count}]."
        )
    labels = labels.reshape(-1)
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise DataError(
            f"{where}: row {wrong[0]} is {labels[wrong[0]]}{more}; labels must be 0 … {classes - 1}."
        )
    return labels.astype(np.int64)


def check_official(
    arrays: dict[str, np.ndarray], where: dict[str, str], shape: tuple[int, ...], classes: int
) -> None:
    """Checks x_train, y_train, x_test, y_test; labels are replaced by `checked_labels`'.

    where: file and entry of each.
    shape: of an image as it was read.
    """
    for part in ("train", "test"):
        x, y = f"x_{part}", f"y_{part}"
        check_images(arrays[x], where[x], shape)
        arrays[y] = checked_labels(arrays[y], where[y], classes, len(arrays[x]))


def build_official(
    kind: ImageKind, arrays: dict[str, np.ndarray], files: tuple[FileRecord, ...], options: DataOptions
) -> DataSet:
    """A data set with an official test part; validation is a tenth of the training part.

    arrays: checked x_train, y_train, x_test, y_test, images [N, C, H, W] uint8 and labels int64.
    """
    train, val, _ = stratified_split(arrays["y_train"], (VALIDATION_SHARE, 0.0))
    parts = {"train": train, "val": val, "test": np.arange(len(arrays["y_test"]))}
    found = {part: len(arrays[f"y_{part}"]) for part in kind.full}
    note = f"validation is a stratified tenth of the {found['train']:,} training images, by a fixed seed"
    if found != kind.full:
        cut = " and ".join(f"{found[part]:,} of {n:,} {part} images" for part, n in kind.full.items())
        note = f"sample of {kind.name}: {cut}; {note}"
    card = DataCard(
        name=kind.name,
        source=kind.source,
        counts={},
        shape=kind.shape,
        classes=kind.classes,
        sha256=checksum(*(arrays[f"{axis}_{part}"] for part in kind.full for axis in "xy")),
        note=note,
        files=files,
    )
    arrays = {**arrays, "x_val": arrays["x_train"], "y_val": arrays["y_train"]}
    return build_images(arrays, parts, card, options, kind.augment, top=255.0)


def build_images(
    arrays: dict[str, np.ndarray],
    parts: dict[str, np.ndarray],
    card: DataCard,
    options: DataOptions,
    augment: Crop,
    top: float,
) -> DataSet:
    """The three parts of a data set of images.

    arrays: for each part its images [N, C, H, W] and labels [N], under "x_<part>", "y_<part>" with part
        "train", "val", "test".
    parts: rows taken of each.
    top: the value that white has.
    """
    card, parts = _cut(arrays, parts, card, options)
    tensors = {
        part: (torch.from_numpy(arrays[f"x_{part}"][rows]), torch.from_numpy(arrays[f"y_{part}"][rows]))
        for part, rows in parts.items()
    }
    kind = options.normalise or "standard"
    transform = normalisation(tensors["train"][0], kind, top)
    card = _with_note(card, f"pixels {_PIXELS[kind]} (normalise={kind!r})")
    if options.augment:
        card = _with_note(card, "training images augmented")
    crop = augment.transform() if options.augment else None
    sets = {
        part: LabelledImages(x, y, transform, crop if part == "train" else None)
        for part, (x, y) in tensors.items()
    }
    names = {"train": "train", "val": "validation", "test": "test"}
    counts = {names[part]: len(data) for part, data in sets.items()}
    card = dataclasses.replace(card, counts=counts)
    return DataSet(sets["train"], sets["val"], sets["test"], card, raw=Raw(x=transform.scaling, white=top))


def _cut(
    arrays: dict[str, np.ndarray], parts: dict[str, np.ndarray], card: DataCard, options: DataOptions
) -> tuple[DataCard, dict[str, np.ndarray]]:
    """The parts with as many rows as the options of sizes say, and a card that tells it."""
    val = "test_size" if options.val_size is None else "val_size"
    for part, option in (("train", "train_size"), ("test", "test_size"), ("val", val)):
        size, rows = getattr(options, option), parts[part]
        if size is None or (part == "val" and option == "test_size" and size >= len(rows)):
            continue
        if size > len(rows):
            raise ArgumentError(f"{option}={size}: {card.name} has only {len(rows)} {_WORDS[part]} images.")
        kept = rows[balanced_subset(arrays[f"y_{part}"][rows], size)]
        parts = {**parts, part: kept}
        card = _with_note(card, f"{_WORDS[part]} set cut to {size} of {len(rows)} images by {option}")
    return card, parts


@dataclasses.dataclass(frozen=True)
class Normalisation:
    """(x − mean)/std in float32 of images [*, C, H, W], each channel for itself; as torchvision does it.

    Without torchvision, which only what is augmented needs.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """Float32 images of the same shape."""
        mean, std = (
            torch.tensor(row, dtype=torch.float32, device=images.device)[:, None, None]
            for row in (self.mean, self.std)
        )
        return (images.float() - mean).div_(std)

    @property
    def scaling(self) -> Scaling:
        """The same numbers as a file's are scaled by."""
        return Scaling(self.mean, tuple(1 / s for s in self.std))


def normalisation(train: Tensor, kind: str, top: float) -> Normalisation:
    """Transform of images 0 … top to floats; validation and test images decide nothing.

    kind: "standard" (mean 0, variance 1 over ``train``, per channel) or "unit" (to [0, 1]).
    """
    if kind == "unit":
        return Normalisation((0.0,) * train.shape[1], (top,) * train.shape[1])
    # Exact sums from counts of the 256 values: no float64 copy of the images.
    values = np.arange(256, dtype=np.float64)
    counts = [np.bincount(train[:, c].numpy().reshape(-1), minlength=256) for c in range(train.shape[1])]
    mean = [float(n @ values / n.sum()) for n in counts]
    std = [float(np.sqrt(n @ (values - m) ** 2 / n.sum())) for n, m in zip(counts, mean, strict=True)]
    return Normalisation(tuple(mean), tuple(s if s > 0 else 1.0 for s in std))  # without contrast: 0


def _with_note(card: DataCard, text: str) -> DataCard:
    return dataclasses.replace(card, note=f"{card.note}; {text}" if card.note else text)
