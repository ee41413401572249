"""Two moons: half circles that reach into each other, as scikit-learn's `make_moons` draws them."""

from __future__ import annotations

import numpy as np

from .options import DataOptions
from .plane import plane_data_set
from .splits import DataSet

RADIUS, NOISE = 2.0, 0.2  # make_moons' and a noise of 0.1, twice as large
ENTROPY = 2.393866  # in nats, by quadrature of the density over the plane


def load_moons(options: DataOptions) -> DataSet:
    """Points of two half circles of radius 2, each moved by a normal of deviation 0.2 in both directions."""
    return plane_data_set("moons", f"two half circles, normal noise of {NOISE:g}", draw_moons, ENTROPY)


def arc(angle: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Points [N, 2] of the upper (lower: False) or the lower half circle, at angles 0 … π."""
    upper = np.stack((np.cos(angle) - 0.5, np.sin(angle) - 0.25), axis=1)
    other = np.stack((0.5 - np.cos(angle), 0.25 - np.sin(angle)), axis=1)
    return RADIUS * np.where(lower[:, None], other, upper)


def draw_moons(generator: np.random.Generator, n: int) -> np.ndarray:
    """Points [n, 2], of either moon with probability ½."""
    angle, lower = generator.uniform(0, np.pi, n), generator.integers(0, 2, n).astype(bool)
    return arc(angle, lower) + NOISE * generator.normal(size=(n, 2))
