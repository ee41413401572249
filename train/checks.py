"""Checks of a configuration's settings, each by its name."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from ..models.known import check_model
from ..solvers.errors import ArgumentError, ArgumentTypeError, check_choice
from ..solvers.methods import get_method
from .known import CHOICES, check_dataset, is_own

AT_LEAST_ONE = ("epochs", "batch_size", "accumulate", "threads", "checkpoint_every", "sync_every")
AT_LEAST_ZERO = ("patience", "image_size", "train_size", "val_size", "test_size", "window", "given")
POSITIVE = ("lr", "clip", "rtol", "atol")


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raises ArgumentError or ArgumentTypeError for a setting's value that no run can have.

    settings: of `adamode.TrainConfig`, some or all; None is one that is filled in later.
    Nothing here imports torch, so a command can refuse a misspelt name at once.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    if "dataset" in given:
        check_dataset(given["dataset"])
    if "model" in given and not is_own(given["model"]):
        check_model(given["model"])
    for name, known in CHOICES.items():
        if given.get(name, known[0]) or name not in ("denominator", "damping"):  # "" is of a model without
            check_choice(name, given.get(name, known[0]), known)
    if "method" in given:
        get_method(given["method"], implicit=True)
    for names, smallest in ((AT_LEAST_ONE, 1), (AT_LEAST_ZERO, 0)):
        for name in names:
            check_count(name, given.get(name, smallest), smallest=smallest)
    check_count("seed", given.get("seed", 0), smallest=0, largest=2**32 - 1)
    for name in POSITIVE:
        checked_positive(name, given.get(name, 1.0))


def check_text(name: str, value: Any) -> None:
    """Raises ArgumentTypeError or ArgumentError unless the value is a text that says something."""
    if not isinstance(value, str):
        raise ArgumentTypeError(f"{name}={value!r} is {type(value).__name__}; a text is needed.")
    if not value.strip():
        raise ArgumentError(f"{name}={value!r} is empty; give a name.")


def check_count(name: str, value: Any, *, smallest: int, largest: int | None = None) -> None:
    """Raises ArgumentTypeError or ArgumentError unless the value is a whole number in this range."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ArgumentTypeError(f"{name}={value!r} is {type(value).__name__}; a whole number is needed.")
    if value < smallest or (largest is not None and value > largest):
        rule = f"at least {smallest}" + ("" if largest is None else f" and at most {largest}")
        raise ArgumentError(f"{name}={value} must be {rule}.")


def checked_positive(name: str, value: Any) -> float:
    """The value as a float; ArgumentTypeError or ArgumentError unless it is a number, finite and above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ArgumentTypeError(f"{name}={value!r} is {type(value).__name__}; a number is needed.")
    if not (math.isfinite(value) and value > 0):
        raise ArgumentError(f"{name}={value} must be finite and above 0, for instance 1e-3.")
    return float(value)


def checked_finite(name: str, value: Any) -> float:
    """The value as a float; ArgumentTypeError or ArgumentError unless it is a number and finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ArgumentTypeError(f"{name}={value!r} is {type(value).__name__}; a number is needed.")
    if not math.isfinite(value):
        raise ArgumentError(f"{name}={value} must be finite.")
    return float(value)


def check_name(name: Any) -> None:
    """Raises ArgumentTypeError or ArgumentError for what no folder of a run can be called."""
    check_text("name", name)
    if not re.fullmatch(r"[\w][\w.+=-]*", name):
        raise ArgumentError(
            f"name={name!r} must be a folder's name of letters, digits and . _ - + = that starts "
            "with a letter or digit; choose the folder above it with output_dir."
        )
