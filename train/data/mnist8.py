"""The density of MNIST at 8 × 8 pixels: 64 dimensions, as many images as MNIST has."""

from __future__ import annotations

from .image_density import density_of_images, pooled_to_8
from .mnist import load_mnist
from .options import DataOptions
from .pixels import Pixels
from .splits import DataSet

PIXELS = Pixels(levels=256)


def load_mnist8_density(options: DataOptions) -> DataSet:
    """MNIST without its labels, pooled: x [1, 8, 8] float32, dequantised logits of 256 levels."""
    return density_of_images(
        load_mnist(options),
        "mnist8-density",
        PIXELS,
        "padded to 32×32, means of 4×4 pixels rounded to 0 … 255, with noise in [0, 1)",
        pooled_to_8,
    )
