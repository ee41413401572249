"""The density of scikit-learn's handwritten digits: 64 dimensions, no files needed."""

from __future__ import annotations

from .digits import load_digits_data
from .image_density import density_of_images
from .options import DataOptions
from .pixels import Pixels
from .splits import DataSet

PIXELS = Pixels(levels=17)


def load_digits_density(options: DataOptions) -> DataSet:
    """The digits without their labels: x [1, 8, 8] float32, dequantised logits of 17 levels."""
    return density_of_images(
        load_digits_data(options), "digits-density", PIXELS, "17 shades of grey, with noise in [0, 1)"
    )
