"""Handwritten digits, 8×8, 16 shades of grey: 1,797 real images that come with scikit-learn.

E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository
(1998), its test part, as scikit-learn ships it. Nothing is downloaded.
"""

from __future__ import annotations

import numpy as np

from .card import DataCard, checksum
from .images import Crop, build_images
from .options import DataOptions
from .splits import DataSet, stratified_split

SHARES = (0.1, 0.2)  # validation, test


def load_digits_data(options: DataOptions) -> DataSet:
    """The digits: inputs [1, 8, 8] float32."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = bunch.images.astype(np.uint8)[:, None]  # 0 … 16
    labels = bunch.target.astype(np.int64)
    parts = dict(zip(("train", "val", "test"), stratified_split(labels, SHARES), strict=True))
    arrays = {f"{axis}_{part}": rows for part in parts for axis, rows in (("x", images), ("y", labels))}
    card = DataCard(
        name="digits",
        source="scikit-learn, load_digits (UCI Optical Recognition of Handwritten Digits)",
        counts={},
        shape=(1, 8, 8),
        classes=10,
        sha256=checksum(images, labels),
        note="stratified split by a fixed seed; all three parts share their 13 writers",
    )
    return build_images(arrays, parts, card, options, Crop(8, padding=1), top=16.0)
