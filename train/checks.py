"""Checks of a configuration's settings, each by its name."""

from __future__ import annotations

import math
import re
from typing import Any

from ..solvers.errors import ArgumentError, ArgumentTypeError


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


def check_name(name: Any) -> None:
    """Raises ArgumentTypeError or ArgumentError for what no folder of a run can be called."""
    check_text("name", name)
    if not re.fullmatch(r"[\w][\w.+=-]*", name):
        raise ArgumentError(
            f"name={name!r} must be a folder's name of letters, digits and . _ - + = that starts "
            "with a letter or digit; choose the folder above it with output_dir."
        )
