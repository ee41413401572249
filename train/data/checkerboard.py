"""A checkerboard: a density with jumps, which a smooth map of a normal one can only come near to.

W. Grathwohl, R. T. Q. Chen, J. Bettencourt, I. Sutskever, D. Duvenaud, FFJORD, ICLR 2019, Fig. 2.
"""

from __future__ import annotations

import math

import numpy as np

from .options import DataOptions
from .plane import plane_data_set
from .splits import DataSet

SQUARE = 2.0  # side; there are four in a row
ENTROPY = math.log(8 * SQUARE**2)  # even on 8 of 16 squares


def load_checkerboard(options: DataOptions) -> DataSet:
    """Points even on the dark squares of a 4 × 4 board of side 8 around the origin."""
    return plane_data_set("checkerboard", "the dark squares of a board of side 8", draw_checkerboard, ENTROPY)


def draw_checkerboard(generator: np.random.Generator, n: int) -> np.ndarray:
    """Points [n, 2], even on the 8 dark squares, of which that at (−4, −4) is one."""
    x = generator.uniform((0, 0), (4 * SQUARE, SQUARE), (n, 2))
    row = 2 * generator.integers(0, 2, n) + x[:, 0] // SQUARE % 2
    x[:, 1] += SQUARE * row
    return x - 2 * SQUARE
