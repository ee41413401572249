"""Values of settings that were filled in, told apart from those that a caller gave.

`dataclasses.replace` hands every value of an object to the new one. A filled-in value says so by its type,
and is filled in anew there: another model then has its own defaults, and what was asked for stays.
"""

# A record beside the values, such as a hidden argument with the names that were given, would not do. Where 20
# epochs were filled in, replace(config, epochs=20) asks for them, and hands over what replace(config) does.

from __future__ import annotations

from typing import Any


class _Whole(int):
    """A whole number that nobody asked for."""

    def __reduce__(self) -> tuple[Any, ...]:
        return int, (int(self),)  # a file has the number alone


class _Real(float):
    """A number that nobody asked for."""

    def __reduce__(self) -> tuple[Any, ...]:
        return float, (float(self),)


class _Text(str):
    """A text that nobody asked for."""

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (str.__str__(self),)


_KINDS: dict[type, Any] = {int: _Whole, float: _Real, str: _Text}


def filled(value: Any) -> Any:
    """The value, as one that was filled in; what is no int, float or str stays as it is."""
    return _KINDS[type(value)](value) if type(value) in _KINDS else value


def is_filled(value: Any) -> bool:
    """Whether `filled` has made it."""
    return isinstance(value, (_Whole, _Real, _Text))


def plain(value: Any) -> Any:
    """The value as int, float or str."""
    return next((kind(value) for kind, own in _KINDS.items() if isinstance(value, own)), value)
