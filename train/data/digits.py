"""Handwritten digits, 8×8, 16 shades of grey: 1,797 real images that come with scikit-learn.

E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository
(1998), its test part, as scikit-learn ships it. Nothing is downloaded.
"""

from __future__ import annotations

import numpy as np
import torch
from torchvision.transforms import v2

from .card import DataCard, checksum
from .splits import LabelledImages, Splits, stratified_split

SHARES = (0.1, 0.2)  # validation, test


def load_digits_data() -> Splits:
    """The digits: inputs [1, 8, 8] float32 with mean 0 and variance 1 over the training images."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = bunch.images.astype(np.uint8)[:, None]  # 0 … 16
    labels = bunch.target.astype(np.int64)
    parts = stratified_split(labels, SHARES)
    seen = images[parts[0]].astype(np.float64)  # validation and test decide nothing
    transform = v2.Compose([v2.ToDtype(torch.float32), v2.Normalize([seen.mean()], [seen.std()])])
    train, val, test = (
        LabelledImages(torch.from_numpy(images[part]), torch.from_numpy(labels[part]), transform)
        for part in parts
    )
    card = DataCard(
        name="digits",
        source="scikit-learn, load_digits (UCI Optical Recognition of Handwritten Digits)",
        counts={"train": len(train), "validation": len(val), "test": len(test)},
        shape=(1, 8, 8),
        classes=10,
        sha256=checksum(images, labels),
        note="stratified split by a fixed seed; all three parts share their 13 writers",
    )
    return Splits(train, val, test, card)
