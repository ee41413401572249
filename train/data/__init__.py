"""Data sets by name. One file each; a data set says where it came from."""

from __future__ import annotations

from collections.abc import Callable

from ...solvers.errors import ArgumentError, nearest
from .card import DataCard
from .digits import load_digits_data
from .splits import Splits

DATASETS: dict[str, Callable[[], Splits]] = {"digits": load_digits_data}


def check_dataset(name: object) -> None:
    """Raises ArgumentError, with the nearest names, unless ``name`` is a data set."""
    if not isinstance(name, str) or name not in DATASETS:
        raise ArgumentError(f"dataset={name!r} is not a known data set: {nearest(str(name), DATASETS)}")


def load_data(name: str) -> Splits:
    """Training, validation and test set called ``name``, with their card."""
    check_dataset(name)
    return DATASETS[name]()


__all__ = ["DATASETS", "DataCard", "Splits", "check_dataset", "load_data"]
