"""Picture files as arrays of whole numbers 0 … 255."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ...solvers.errors import DataError

GREY = frozenset({"1", "L", "LA", "La", "I", "F"})
_DAMAGED = (
    *(OSError, UnidentifiedImageError, SyntaxError, ValueError),
    *(Image.DecompressionBombWarning, Image.DecompressionBombError),
)


def picture_size(path: str | os.PathLike[str]) -> tuple[int, int, bool]:
    """(width, height, whether it is grey) of a picture, from its head alone. Raises: DataError."""
    with _read(path) as opened:
        return (*opened.size, opened.mode in GREY or opened.mode.startswith("I;16"))


def picture(path: str | os.PathLike[str], channels: int, size: tuple[int, int] | None) -> np.ndarray:
    """A picture as uint8 [channels, height, width], in grey where there is one channel.

    size: (width, height) to which it is brought, each pixel a mean; None leaves it.
    Transparent pixels are taken as black; of 16 bits the upper eight are taken.
    Raises: DataError for a file that is no picture, is damaged, or whose white is not known.
    """
    with _read(path) as opened:
        found: Image.Image = opened
        try:
            if found.mode[0] in "IF":
                found = _in_8_bits(found)
            elif "A" in found.getbands() or "transparency" in found.info:
                rgba = found.convert("RGBA")
                found = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
            found = found.convert("L" if channels == 1 else "RGB")
            if size is not None and found.size != size:
                found = found.resize(size, Image.Resampling.BOX)
        except _DAMAGED as error:
            raise _no_picture(path, error) from error
    width, height = found.size
    return np.asarray(found).reshape(height, width, channels).transpose(2, 0, 1)


def _in_8_bits(found: Image.Image) -> Image.Image:
    """A grey picture of more bits, whose numbers Pillow's own conversion would cut off at 255."""
    if not (
        found.mode.startswith("I;16") or found.format == "PNG"
    ):  # older Pillows say I of 16 bits in a PNG
        raise ValueError(f"its pixels are 32-bit numbers, mode {found.mode}, whose white is not known")
    return Image.fromarray((np.asarray(found).astype(np.int64) >> 8).astype(np.uint8))


def _read(path: str | os.PathLike[str]) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(path)
    except _DAMAGED as error:
        raise _no_picture(path, error) from error


def _no_picture(path: str | os.PathLike[str], error: Exception) -> DataError:
    return DataError(f"{str(path)!r} cannot be read as a picture ({error}); give a PNG, JPEG or the like.")
