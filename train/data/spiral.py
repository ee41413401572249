"""Two spiral arms, one turned by half a turn against the other: a toy that no line separates."""

from __future__ import annotations

import numpy as np

from .options import DataOptions
from .points import points_data_set
from .splits import DataSet

TURNS, NOISE = 1.5, 0.03  # the arms lie a third of the radius apart, eleven times the noise


def load_spiral(options: DataOptions) -> DataSet:
    """Points [2] of two arms of 1½ turns inside a circle of radius 1, with noise 0.03."""
    return points_data_set(
        "spiral",
        "generated: two arms, seeded",
        draw_spiral,
        f"{TURNS:g} turns, radius 0.1 to 1, normal noise of {NOISE:g} in each coordinate",
    )


def draw_spiral(generator: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Points [N, 2], evenly spread along the arm of their label (0 or 1)."""
    # The length of arc up to radius r grows about as r², so the root spreads points evenly.
    radius = np.sqrt(generator.uniform(0.1**2, 1.0, len(labels)))
    angle = 2 * np.pi * TURNS * radius + np.pi * labels
    arm = radius[:, None] * np.stack((np.cos(angle), np.sin(angle)), axis=1)
    return arm + NOISE * generator.standard_normal(arm.shape)
