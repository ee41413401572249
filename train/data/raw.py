"""How numbers as a user has them become those that a model sees, and back."""

from __future__ import annotations

import dataclasses

import numpy as np

Numbers = tuple[float, ...]
LEAST = 1e-300  # numbers below this pass for 0: one over them is close to float64's largest


@dataclasses.dataclass(frozen=True)
class Scaling:
    """x ↦ (x − offset) · factor, an entry of the last axis each (or of axis 1, for images)."""

    offset: Numbers
    factor: Numbers

    @classmethod
    def of(cls, values: np.ndarray, kind: str, size: float = 1.0) -> Scaling:
        """From the training part [M, n]: "standard" to mean 0 and deviation ``size``, "unit" to 0 … 1.

        A column that does not vary is moved, and not scaled.
        """
        # In a power of two of about the largest, exactly: no square overflows, or is lost.
        power = np.ldexp(1.0, np.frexp(np.abs(values).max(0))[1] - 1)
        v = np.where(power < LEAST, 0.0, values / power)
        if kind == "unit":
            low, spread = v.min(0), np.ptp(v, axis=0)
            size = 1.0
        else:
            low, spread = v.mean(0), v.std(0)
        # The mean of equal numbers is off by rounding, and so is their deviation from it.
        flat = spread <= 1e-12 * np.abs(low)
        factor = size / np.where(flat, size, spread * power)
        return cls(tuple(map(float, low * power)), tuple(map(float, factor)))

    def apply(self, values: np.ndarray, axis: int = -1) -> np.ndarray:
        """Raw numbers as a model sees them, float64."""
        offset, factor = self._shaped(values.ndim, axis)
        result: np.ndarray = (values.astype(np.float64) - offset) * factor
        return result

    def undo(self, values: np.ndarray, axis: int = -1) -> np.ndarray:
        """A model's numbers as a user has them, float64."""
        offset, factor = self._shaped(values.ndim, axis)
        result: np.ndarray = values.astype(np.float64) / factor + offset
        return result

    def _shaped(self, ndim: int, axis: int) -> tuple[np.ndarray, np.ndarray]:
        shape = [1] * ndim
        shape[axis] = -1
        return np.reshape(self.offset, shape), np.reshape(self.factor, shape)


@dataclasses.dataclass(frozen=True)
class Raw:
    """What a file for a model must hold, and how its numbers are scaled.

    inputs, outputs: names of a recording's columns.
    x, y: None where they are taken as they are.
    """

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    x: Scaling | None = None
    y: Scaling | None = None
