"""Memory that is used again by the next solve of the same form.

What a solve writes for its way back is a few megabytes, and asking the system for them anew costs as much as
half the solve: 1.6 of 3.9 ms where 4 MB are written (three blocks of 256 × 8, two layers of 64, 24 stages).
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Hashable
from typing import Any

KEPT = 2  # pieces that nobody uses, of all forms together


class _Idle:
    """A piece that nobody uses."""

    def __init__(self, form: Hashable, memory: Any):
        self.form, self.memory = form, memory


_idle: collections.deque[_Idle] = collections.deque(maxlen=KEPT)


def _found(form: Hashable) -> Any:
    """An idle piece of this form, idle no more; None where there is none."""
    for piece in tuple(_idle):
        if piece.form == form:
            try:
                _idle.remove(piece)
            except ValueError:  # another thread was first
                continue
            return piece.memory
    return None


class Lease:
    """A piece of memory, for as long as this object lives.

    form: two pieces of one form can stand for each other.
    make: makes one where none is idle.
    """

    def __init__(self, form: Hashable, make: Callable[[], Any]):
        self.form = form
        found = _found(form)
        self.memory = make() if found is None else found

    def __del__(self, idle: collections.deque[_Idle] = _idle) -> None:
        """Back to the idle ones; the oldest of them is let go."""
        if hasattr(self, "memory"):
            idle.append(_Idle(self.form, self.memory))


def forget() -> None:
    """Lets all idle pieces go."""
    _idle.clear()
