"""Recordings of a driven system, cut into sequences that a model simulates."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from ...solvers.errors import ArgumentError
from .card import DataCard
from .raw import Raw
from .splits import DataSet, Examples, Samples


@dataclasses.dataclass(frozen=True)
class Recording:
    """Input u and output y, float64 [N] each (or [N, U] and [N, Y]), one row every dt seconds."""

    u: np.ndarray
    y: np.ndarray
    dt: float

    def __getitem__(self, rows: slice) -> Recording:
        return Recording(self.u[rows], self.y[rows], self.dt)

    def __len__(self) -> int:
        return len(self.u)

    def scaled(self, offset: tuple[float, float], factor: float) -> Recording:
        """(u − offset[0]) · factor and (y − offset[1]) · factor."""
        return Recording((self.u - offset[0]) * factor, (self.y - offset[1]) * factor, self.dt)


def sequences(parts: list[Recording], given: int) -> Samples:
    """Recordings of one length L as inputs [B, L, U + Y + 1] and targets [B, L − given, Y], float32.

    Input columns: u; y in the first ``given`` rows and 0 after; 1 in those rows and 0 after.
    """
    u, y = (torch.from_numpy(np.stack([_two(getattr(p, name)) for p in parts])) for name in ("u", "y"))
    shown = torch.zeros_like(y[:, :, :1])
    shown[:, :given] = 1
    inputs = torch.cat((u, torch.where(shown > 0, y, 0.0), shown), dim=-1)
    return Samples(inputs.float(), y[:, given:].float())


def _two(values: np.ndarray) -> np.ndarray:
    """[N] as [N, 1]."""
    return values[:, None] if values.ndim == 1 else values


def windows(parts: list[Recording], window: int, given: int) -> list[Recording]:
    """Stretches of given + window rows; of each part every row after its first ``given`` is simulated once.

    What is left at a part's end and does not fill a window is dropped.
    Raises: ArgumentError where no part is long enough.
    """
    length = given + window
    cut = [
        part[start : start + length] for part in parts for start in range(0, len(part) - length + 1, window)
    ]
    if not cut:
        longest = max(len(part) for part in parts)
        raise ArgumentError(
            f"window={window} with given={given} needs {length} samples in a row; a part has {longest}."
        )
    return cut


def recordings_of(samples: Examples, given: int) -> list[Recording]:
    """The recordings that `sequences` was given, to float32's precision; dt is one row."""
    assert isinstance(samples, Samples)  # what `sequences` makes
    inputs = samples.inputs.shape[2] - samples.targets.shape[2] - 1
    u = samples.inputs[:, :, :inputs].double().numpy()
    shown = samples.inputs[:, :given, inputs:-1].double().numpy()
    y = np.concatenate((shown, samples.targets.double().numpy()), axis=1)
    if inputs == y.shape[2] == 1:
        u, y = u[:, :, 0], y[:, :, 0]
    return [Recording(a, b, 1.0) for a, b in zip(u, y, strict=True)]


def one_step_ahead(samples: Samples, given: int) -> Samples:
    """Every row after the first ``given`` as a sequence of its own: the ``given`` measured rows before it.

    What a model makes of these are predictions one step ahead, of the same rows as a free run's.
    """
    return sequences(windows(recordings_of(samples, given), 1, given), given)


def one_step(parts: list[Recording], order: int) -> tuple[np.ndarray, np.ndarray]:
    """The regression of y[k] on the past: rows [y[k−1] … y[k−order], u[k], u[k−1] … u[k−order]] and y[k].

    Returns [M, 2·order + 1] and [M]: what a linear ARX model of this order is fitted to.
    """
    rows, targets = [], []
    for part in parts:
        k = np.arange(order, len(part))
        past = [part.y[k - i] for i in range(1, order + 1)] + [part.u[k - i] for i in range(order + 1)]
        rows.append(np.stack(past, axis=1))
        targets.append(part.y[k])
    return np.concatenate(rows), np.concatenate(targets)


def sequence_data_set(
    card: DataCard, parts: dict[str, Samples], given: int, dt: float, raw: Raw | None = None
) -> DataSet:
    """A data set of sequences in units of 10 mV. parts: "train", "validation", "test" and more tests."""
    card = dataclasses.replace(card, counts={name: len(part) for name, part in parts.items()})
    train, val, test, *_ = parts.values()
    more = dict(list(parts.items())[3:])
    return DataSet(
        train, val, test, card, given=given, unit="mV", per_unit=10.0, dt=dt, raw=raw, more_tests=more
    )
