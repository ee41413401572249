"""Handwritten digits, 8×8, 16 shades of grey: 1,797 real images that come with scikit-learn.

E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository
(1998), its test part, as scikit-learn ships it. Nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from .card import DataCard, checksum
from .images import Crop, build_images
from .options import DataOptions
from .splits import DataSet, stratified_split

SHARES = (0.1, 0.2)  # validation, test


def _read() -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 1, 8, 8] of 0 … 16, uint8, and labels [N], int64: those of scikit-learn's `load_digits`.

    Its file is read without scikit-learn, whose import takes about as long as torch's.
    """
    found = importlib.util.find_spec("sklearn")
    places = (found.submodule_search_locations if found is not None else None) or []
    files = [Path(place) / "datasets" / "data" / "digits.csv.gz" for place in places]
    if files and files[0].is_file():
        rows = np.loadtxt(files[0], delimiter=",")
        pixels, labels = rows[:, :-1], rows[:, -1]
    else:  # it may have moved
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
    return pixels.astype(np.uint8).reshape(-1, 1, 8, 8), labels.astype(np.int64)


def load_digits_data(options: DataOptions) -> DataSet:
    """The digits: inputs [1, 8, 8] float32."""
    images, labels = _read()
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
