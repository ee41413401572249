"""How numbers as a user has them become those that a model sees, and back."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import numpy as np

from ...solvers.errors import AdamodeWarning, DataError

Numbers = tuple[float, ...]
LEAST = 1e-300  # numbers below this pass for 0: one over them is close to float64's largest
FAINT = 15.0  # times as small as training's numbers: digits of 0 … 16 as 0 and 1 are so, dark pictures seldom
FAR = 5.0  # times as far out as training's numbers: a choice, between an outlier and another unit


def scale_of(dtype: np.dtype) -> str:
    """What a dtype says of a scale: whole numbers of 8 bits end at another number than those of 16.

    Those of 32 and 64 bits are numbers as they come, whatever the machine's own width is.
    """
    if dtype.kind not in "iu":
        return dtype.kind
    return "whole" if dtype.itemsize > 2 else f"{dtype.kind}{dtype.itemsize}"


@dataclasses.dataclass(frozen=True)
class Scaling:
    """x ↦ (x − offset) · factor, an entry of the last axis each (or of axis 1, for images).

    low, high: the training part's least and largest numbers, as a user has them; () where not known.
    """

    offset: Numbers
    factor: Numbers
    low: Numbers = ()
    high: Numbers = ()

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
        found = (low * power, factor, values.min(0), values.max(0))
        return cls(*(tuple(map(float, numbers)) for numbers in found))

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

    def warn_of_other_units(self, values: np.ndarray, where: str, axis: int = -1) -> None:
        """Warns of a number that is much farther out than all of the training part.

        values: numbers as a user has them.
        where: file and entry.
        """
        if not self.low:
            return
        low, high = (np.asarray(numbers) for numbers in (self.low, self.high))
        middle, reach = (low + high) / 2, FAR * (high - low) / 2
        columns = np.moveaxis(values, axis, -1).reshape(-1, len(low)).astype(np.float64)
        far = np.abs(columns - middle).max(0)
        wrong = np.flatnonzero((far > reach) & (high > low))
        if len(wrong):
            k = int(wrong[0])
            value = columns[int(np.abs(columns[:, k] - middle[k]).argmax()), k]
            which = f", column {k}" if len(low) > 1 else ""
            warnings.warn(
                f"{where}{which} has {value:g}, where the model was trained on {low[k]:g} … {high[k]:g}: are "
                "these numbers in the same unit? The answers are far from anything that the model has seen.",
                AdamodeWarning,
                stacklevel=2,
            )

    def _shaped(self, ndim: int, axis: int) -> tuple[np.ndarray, np.ndarray]:
        shape = [1] * ndim
        shape[axis] = -1
        return np.reshape(self.offset, shape), np.reshape(self.factor, shape)


@dataclasses.dataclass(frozen=True)
class Raw:
    """What a file for a model must hold, and how its numbers are scaled.

    inputs, outputs: names of a recording's columns.
    x, y: None where they are taken as they are.
    dtype: NumPy's name of that of the training inputs, where it says on which scale they are; else "".
    white: the value that white has in images of whole numbers; None for all other inputs.
    step: between two rows of a recording, in its clock's unit; None where no clock says it.
    """

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    x: Scaling | None = None
    y: Scaling | None = None
    dtype: str = ""
    white: float | None = None
    step: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """What a user of the model alone must do to numbers, as JSON has it: (x − offset) · factor."""
        scalings = {"x": self.x, "y": self.y}
        told: dict[str, Any] = {
            name: {"offset": list(s.offset), "factor": list(s.factor)} for name, s in scalings.items() if s
        }
        names = {"inputs": list(self.inputs), "outputs": list(self.outputs)} if self.inputs else {}
        more = {name: value for name in ("white", "step") if (value := getattr(self, name)) is not None}
        return {**names, **told, **more}

    def check_scale(self, x: np.ndarray, where: str) -> None:
        """Raises DataError for inputs on another scale than those of training; warns of faint images.

        x: inputs as a user has them.
        where: file and entry.
        Pixels 0 … 255 mean something else to a model that was trained on 0 … 1, and no shape tells.
        """
        if self.white is not None:
            values = x.astype(np.float64)
            wrong = values[(values < 0) | (values > self.white) | (values != np.rint(values))]
            truth = x.dtype.kind == "b" and self.white != 1
            if truth or wrong.size:
                what = "truth values" if truth else f"{wrong[0]:g}"
                raise DataError(
                    f"{where} has {what}; the model was trained on pixels that are whole numbers "
                    f"0 … {self.white:g}, so give the same, as uint8."
                )
        elif self.dtype and scale_of(x.dtype) != scale_of(np.dtype(self.dtype)):
            low, high = (min(self.x.low), max(self.x.high)) if self.x is not None else (None, None)
            between = "" if low is None else f" between {low:g} and {high:g}"
            raise DataError(
                f"{where} has dtype {x.dtype}; the model was trained on {self.dtype}{between}: bring the "
                f"numbers to that scale, and give them as {self.dtype}."
            )
        self._warn_of_faint(x, where)

    def _warn_of_faint(self, x: np.ndarray, where: str) -> None:
        """Warns of images that are black beside those of training: 0 and 1 are whole numbers too."""
        far = self.white
        if far is None and self.dtype and self.x is not None:
            far = max((abs(value) for value in (*self.x.low, *self.x.high)), default=None)
        most = float(np.abs(x.astype(np.float64)).max(initial=0.0))
        if far is not None and 0 < most <= far / FAINT:
            warnings.warn(
                f"{where} has no number above {most:g}, and the model was trained on numbers up to {far:g}: "
                "are these on the same scale? To the model they are nearly black.",
                AdamodeWarning,
                stacklevel=3,
            )
