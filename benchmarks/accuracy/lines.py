"""Work–precision lines: evaluations over achieved error, smoothed, and compared at equal error."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from .solvers import Point


@dataclasses.dataclass(frozen=True)
class Line:
    """tolerance, error, nfe: [n] each, from loose to tight."""

    tolerance: np.ndarray
    error: np.ndarray
    nfe: np.ndarray

    @staticmethod
    def of(scatters: Sequence[Sequence[Point]]) -> Line:
        """One point for each scatter of neighbouring tolerances: geometric means.

        A single solve's error is partly luck: on an orbit the errors of the steps may cancel.
        """
        columns = (
            [[getattr(p, name) for p in s] for s in scatters] for name in ("tolerance", "error", "nfe")
        )
        return Line(*(np.array([_geometric(row) for row in column]) for column in columns))

    def nfe_at(self, error: float) -> float:
        """Evaluations for this error, log–log interpolated; NaN beyond the line's ends."""
        fine = self.error < 1  # not where the code gave up or is nowhere near
        x, y = _monotone(np.log(self.error[fine]), np.log(self.nfe[fine]))
        if not math.isfinite(error) or len(x) == 0:
            return math.nan
        at = math.log(error)
        if not x[-1] <= at <= x[0]:
            return math.nan
        return math.exp(np.interp(at, x[::-1], y[::-1]))


def _geometric(values: Sequence[float]) -> float:
    return math.exp(np.mean(np.log(values)))


def _monotone(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours whose x does not fall are replaced by their mean (pool adjacent violators)."""
    blocks: list[tuple[float, float, int]] = []
    for a, b in zip(x, y, strict=True):
        block = (float(a), float(b), 1)
        while blocks and blocks[-1][0] <= block[0]:
            (p, q, m), (r, s, n) = blocks.pop(), block
            block = ((m * p + n * r) / (m + n), (m * q + n * s) / (m + n), m + n)
        blocks.append(block)
    return np.array([b[0] for b in blocks]), np.array([b[1] for b in blocks])


HOPELESS = 0.1  # an error above it has no digit right: nothing is compared there


def comparable(line: Line, noise: float) -> np.ndarray:
    """[n] bool: where the error is below HOPELESS and 30 times above noise, the reference's own error."""
    return (line.error < HOPELESS) & (line.error > 30 * noise)


def ratios(ours: Line, theirs: Line, noise: float) -> np.ndarray:
    """Our evaluations over theirs at the error that we achieve, [n]; NaN where it cannot be compared."""
    found = [n / theirs.nfe_at(e) for e, n in zip(ours.error, ours.nfe, strict=True)]
    return np.where(comparable(ours, noise), found, math.nan)
