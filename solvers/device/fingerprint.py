"""What a program of an owner depends on, without making the program.

Two uses. A digest that is equal in another process exactly where the program would be: of the code that can
be reached, and of all values that this code sees. And a check, at every solve, that nothing of it has
changed.

Values of parameters and buffers do not count: they are inputs of a program.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

from .plain import Incomparable, digest
from .surroundings import machine, settings
from .walk import Walk
from .watch import Watch

__all__ = ["Incomparable", "fingerprint", "stable_key"]


class _Known(NamedTuple):
    """digest: of the owner; None where there is none, for this reason.  watch: until when it holds."""

    digest: str | None
    reason: str
    watch: Watch


_KNOWN: Any = WeakIdKeyDictionary()


def fingerprint(owner: Any, entries: Sequence[str]) -> str:
    """A digest of all that a program of the owner depends on, its surroundings left out.

    owner: an `nn.Module`.
    entries: names of the methods that the program calls: ``forward``, ``vjp``, …
    The digest is made once, and again when something has changed; else a call takes microseconds.
    Raises: Incomparable where something in reach cannot be compared; the text says what.
    """
    known = _KNOWN.get(owner)
    entries = tuple(entries)
    found = None if known is None else known.get(entries)
    if found is None or not found.watch.same():
        found = _look(owner, entries)
        if known is None:
            _KNOWN[owner] = known = {}
        known[entries] = found
    if found.digest is None:
        raise Incomparable(found.reason)
    return found.digest


def _look(owner: Any, entries: tuple[str, ...]) -> _Known:
    watch = Watch()
    try:
        if not isinstance(owner, nn.Module):
            raise Incomparable(f"{type(owner).__name__} is no nn.Module")
        return _Known(digest(Walk(owner, entries, watch).facts()), "", watch)
    except Incomparable as refused:
        return _Known(None, refused.reason, watch)
    except RecursionError:
        return _Known(None, "values that hold themselves, or are nested too deep", watch)
    except Exception as error:  # what an object of the user's raises when it is looked at can be anything
        return _Known(None, f"something that raises {type(error).__name__} when looked at: {error}", watch)


def stable_key(owner: Any, entries: Sequence[str], *more: Any) -> str:
    """The name of a program in the store: equal in another process where the program would be the same.

    more: plain values: the method, shapes and dtypes of the state, what else the program is made for.
    Raises: Incomparable.
    """
    return digest(fingerprint(owner, entries), machine(), settings(), more)
