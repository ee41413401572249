"""From images with labels to a density of the images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor

from .card import DataCard
from .pixels import Dequantised, Pixels
from .splits import DataSet, LabelledImages


def density_of_images(
    data: DataSet, name: str, pixels: Pixels, note: str, pool: Callable[[Tensor], Tensor] = lambda x: x
) -> DataSet:
    """The images of a data set without their labels, dequantised.

    pixels: how its whole numbers become inputs.
    pool: of raw images [N, C, H, W], to smaller ones of whole numbers.
    """
    parts = []
    for part in (data.train, data.val, data.test):
        assert isinstance(part, LabelledImages)
        parts.append(Dequantised(pool(part.images), pixels))
    shape = tuple(parts[0].images.shape[1:])
    card: DataCard = dataclasses.replace(
        data.card, name=name, shape=shape, classes=0, task="density", note=f"{note}; {data.card.note}"
    )
    per_dim = 1 / (math.prod(shape) * math.log(2))
    train, val, test = parts
    return DataSet(train, val, test, card, unit="bits/dim", per_unit=per_dim, pixels=pixels)


def pooled_to_8(images: Tensor) -> Tensor:
    """28 × 28 as 8 × 8: padded to 32 × 32, means of 4 × 4 pixels, rounded to whole numbers; uint8."""
    padded = torch.nn.functional.pad(images.float(), (2, 2, 2, 2))
    return torch.nn.functional.avg_pool2d(padded, 4).round().to(torch.uint8)
