"""Plain values, and a text for each that is equal where the values are: across processes, too."""

from __future__ import annotations

import collections
import hashlib
import sys
from collections.abc import Callable
from typing import Any

import torch


class Incomparable(Exception):
    """Something that a program may depend on and that cannot be compared with what it was.

    reason: what it is, where, as part of a sentence.
    """

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


_TORCH = (torch.dtype, torch.device, torch.layout, torch.memory_format)
ATOMS = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), type(NotImplemented), *_TORCH)
_ATOMS = frozenset(ATOMS)


def is_atom(value: Any) -> bool:
    """Whether it is a number, a text, None or one of torch's own constants: nothing that can change."""
    return type(value) in _ATOMS or _is_numpy_scalar(value)


def _is_numpy_scalar(value: Any) -> bool:
    """np.float64(2.0) and the like, also where numpy is not there."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and issubclass(type(value), (numpy.number, numpy.bool_))


def described(value: Any, other: Callable[[Any], Any] | None = None) -> Any:
    """The value as nested tuples of texts and numbers, with its type: True is not 1, −0.0 not 0.0.

    other: describes what is neither an atom nor a container of them.
    Raises: Incomparable for such a thing where ``other`` is not given.
    """
    kind = type(value)
    if kind in (float, complex):
        return kind.__name__, *(x.hex() for x in ((value.real, value.imag) if kind is complex else (value,)))
    if kind in _TORCH:
        return "torch", str(value)
    if kind in _ATOMS:
        return kind.__name__, value if kind in (str, bytes, int, bool) else 0
    if kind in (tuple, list, torch.Size):
        return kind.__name__, *(described(x, other) for x in value)
    if kind in (dict, collections.OrderedDict):
        return kind.__name__, *((described(k, other), described(x, other)) for k, x in value.items())
    if kind in (set, frozenset):
        # Of plain values alone: the order of other things differs from process to process.
        return kind.__name__, *sorted(map(described, value), key=repr)
    if kind in (slice, range):
        return kind.__name__, *(described(x, other) for x in (value.start, value.stop, value.step))
    if _is_numpy_scalar(value):
        return "numpy", str(value.dtype), described(value.item())
    if other is None:
        raise Incomparable(f"a {kind.__name__}")
    return other(value)


def digest(*parts: Any) -> str:
    """64 hexadecimal digits of plain values, the same in every process.

    Raises: Incomparable for a part that is no plain value.
    """
    return hashlib.sha256(repr(described(parts)).encode()).hexdigest()
