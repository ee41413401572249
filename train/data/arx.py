"""ARX: the linear baseline beside which a model of a driven system is judged.

y[k] = Σ aᵢ y[k−i] + Σ bⱼ u[k−j], i = 1 … n, j = 0 … n, fitted by least squares to one step ahead
(L. Ljung, System Identification: Theory for the User, 2nd edition, section 4.2).
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from ...solvers.errors import ArgumentError
from .sequences import Recording, one_step, recordings_of
from .splits import DataSet, Examples


@dataclasses.dataclass(frozen=True)
class ARX:
    """A fitted model. a: [n], of past outputs, the latest first.

    b: [n + 1], of inputs u[k] … u[k−n].
    """

    a: np.ndarray
    b: np.ndarray

    @property
    def order(self) -> int:
        """How many past outputs it looks at."""
        return len(self.a)

    @property
    def stable(self) -> bool:
        """Whether a free run stays bounded: all roots of zⁿ − Σ aᵢ zⁿ⁻ⁱ inside the unit circle."""
        return bool((np.abs(np.roots(np.concatenate(([1.0], -self.a)))) < 1).all())

    def predict(self, part: Recording) -> np.ndarray:
        """One step ahead from measured outputs: rows order … N−1, [N − order]."""
        rows, _ = one_step([part], self.order)
        return rows @ np.concatenate((self.a, self.b))

    def simulate(self, part: Recording, given: int) -> np.ndarray:
        """Free run from the first ``given`` measured outputs: rows given … N−1, [N − given]."""
        n = self.order
        if given < n:
            raise ArgumentError(
                f"given={given} is less than the order {n}: a free run starts from {n} outputs."
            )
        y = part.y.copy()
        forced = np.convolve(part.u, self.b)[: len(y)]
        backwards = self.a[::-1].copy()
        for k in range(given, len(y)):
            y[k] = forced[k] + backwards @ y[k - n : k]
        return y[given:]


def fit_arx(parts: list[Recording], order: int) -> ARX:
    """Least squares over all rows of the recordings that have ``order`` rows before them.

    Raises: ArgumentError for an order below 1 or with more coefficients than rows.
    """
    if isinstance(order, bool) or not isinstance(order, int) or order < 1:
        raise ArgumentError(f"order={order!r} must be a whole number of at least 1.")
    rows, targets = one_step([part for part in parts if len(part) > order], order)
    if len(rows) < 2 * order + 1:
        raise ArgumentError(
            f"order={order} has {2 * order + 1} coefficients, and there are {len(rows)} rows."
        )
    found = np.linalg.lstsq(rows, targets, rcond=None)[0]
    return ARX(found[:order], found[order:])


def arx_errors(data: DataSet, order: int) -> dict[str, dict[str, float]]:
    """Root mean square errors of an ARX fitted to ``data.train``, in ``data.unit``.

    For "test" and each of ``data.more_tests``: "one_step" from measured outputs and "free_run" from the
    first ``data.given``, both over the same rows, those after the given ones.
    """
    # Windows share their given rows: fitted to the rows after them, each row of the recording counts once.
    parts = recordings_of(data.train, data.given)
    model = fit_arx([part[max(0, data.given - order) :] for part in parts], order)
    return {
        name: _errors(model, part, data.given, data.per_unit)
        for name, part in {"test": data.test, **data.more_tests}.items()
    }


def _errors(model: ARX, samples: Examples, given: int, per_unit: float) -> dict[str, float]:
    parts = recordings_of(samples, given)
    step = [model.predict(part)[given - model.order :] - part.y[given:] for part in parts]
    free = [model.simulate(part, given) - part.y[given:] for part in parts]
    return {"one_step": _rms(step) * per_unit, "free_run": _rms(free) * per_unit}


def _rms(errors: list[np.ndarray]) -> float:
    return math.sqrt(float(np.mean(np.concatenate(errors) ** 2)))
