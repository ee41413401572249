"""Checks of numbers at the door of the models."""

from __future__ import annotations

from typing import Any

from ..solvers.errors import ArgumentError, ArgumentTypeError


def check_sizes(*, least: int = 1, **sizes: Any) -> None:
    """Raises ArgumentTypeError, ArgumentError for a size that is not a whole number ≥ least."""
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise ArgumentTypeError(f"{name}={value!r} must be a whole number.")
        if value < least:
            raise ArgumentError(f"{name}={value!r} must be a whole number ≥ {least}.")


def check_widths(owner: str, /, **sizes: Any) -> None:
    """Raises ArgumentError, which names the owner, for sizes of its layers that are not whole numbers ≥ 1."""
    try:
        check_sizes(**sizes)
    except (ArgumentError, ArgumentTypeError) as error:
        raise ArgumentError(f"{owner}: {error}") from None


def number(name: str, value: Any) -> float:
    """The value as a float; ArgumentTypeError unless it is a Python number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ArgumentTypeError(f"{name}={value!r} is a {type(value).__name__}; give a Python number.")
    return float(value)
