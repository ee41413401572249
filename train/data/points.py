"""Generated points with labels as a data set: the same numbers in every run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from .card import DataCard, checksum
from .splits import SPLIT_SEED, DataSet, Samples

# Small enough that an epoch takes seconds; the test part tells accuracies 0.1 % apart.
COUNTS = {"train": 1000, "validation": 200, "test": 1000}

Draw = Callable[[np.random.Generator, np.ndarray], np.ndarray]


def points_data_set(name: str, source: str, draw: Draw, note: str) -> DataSet:
    """Points of the plane [N, 2] float32 in two classes of equal size.

    draw: generator and labels [N] → points [N, 2].
    """
    generator = np.random.default_rng(SPLIT_SEED)
    total = sum(COUNTS.values())
    labels = np.arange(total) % 2  # every part alternates, so its classes are equal
    points = draw(generator, labels).astype(np.float32)
    ends = np.cumsum(list(COUNTS.values()))
    train, val, test = (
        Samples(torch.from_numpy(points[end - n : end]), torch.from_numpy(labels[end - n : end]))
        for n, end in zip(COUNTS.values(), ends, strict=True)
    )
    card = DataCard(name, source, dict(COUNTS), (2,), 2, checksum(points, labels), note)
    return DataSet(train, val, test, card)
