"""Rings around the origin: what lies between them must be torn open, which no map of the plane can do.

W. Grathwohl, R. T. Q. Chen, J. Bettencourt, I. Sutskever, D. Duvenaud, FFJORD, ICLR 2019, whose toy data
have four.
"""

from __future__ import annotations

import numpy as np

from .options import DataOptions
from .plane import plane_data_set
from .splits import DataSet

RADII, NOISE = (1.0, 2.0, 3.0), 0.15
ENTROPY = 3.048655  # in nats, by quadrature over the radius


def load_rings(options: DataOptions) -> DataSet:
    """Points of three rings of radius 1, 2 and 3, each as likely, whose radius has a deviation of 0.15."""
    return plane_data_set("rings", f"three rings, radii normal with {NOISE:g}", draw_rings, ENTROPY)


def draw_rings(generator: np.random.Generator, n: int) -> np.ndarray:
    """Points [n, 2]."""
    radius = generator.choice(RADII, n) + NOISE * generator.normal(size=n)
    angle = generator.uniform(0, 2 * np.pi, n)
    return radius[:, None] * np.stack((np.cos(angle), np.sin(angle)), axis=1)
