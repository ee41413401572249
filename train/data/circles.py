"""Nested circles: a disc inside a ring, which no flow of the plane can separate by a line.

E. Dupont, A. Doucet, Y. W. Teh, Augmented Neural ODEs, NeurIPS 2019, section 3: the map of an ODE is a
homeomorphism, and the disc stays inside the ring; one more dimension helps.
"""

from __future__ import annotations

import numpy as np

from .options import DataOptions
from .points import points_data_set
from .splits import DataSet

DISC, RING = 0.5, (1.0, 1.5)  # radii; between the two is a gap as wide as the disc's radius


def load_circles(options: DataOptions) -> DataSet:
    """Points [2] of a disc of radius ½ (label 0) and a ring from 1 to 1½ (label 1)."""
    return points_data_set(
        "circles",
        "generated: a disc and a ring, seeded",
        draw_circles,
        f"disc of radius {DISC:g}, ring from {RING[0]:g} to {RING[1]:g}, points evenly over each area",
    )


def draw_circles(generator: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Points [N, 2], evenly spread over the disc (label 0) or the ring (label 1)."""
    inner, outer = np.where(labels, RING[0], 0.0), np.where(labels, RING[1], DISC)
    radius = np.sqrt(generator.uniform(inner**2, outer**2))
    angle = generator.uniform(0, 2 * np.pi, len(labels))
    return radius[:, None] * np.stack((np.cos(angle), np.sin(angle)), axis=1)
