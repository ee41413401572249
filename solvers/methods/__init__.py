"""The methods by name. One file each: citation, tableau, interpolant."""

from __future__ import annotations

from ..errors import ArgumentError, nearest
from ..tableau import Tableau
from .dopri5 import DOPRI5

METHODS: dict[str, Tableau] = {tableau.name: tableau for tableau in (DOPRI5,)}


def get_method(name: str, argument: str = "method") -> Tableau:
    """The tableau called ``name``; an unknown name is an ArgumentError that offers the nearest."""
    if not isinstance(name, str) or name not in METHODS:
        raise ArgumentError(f"{argument}={name!r} is not a known method: {nearest(name, METHODS)}")
    return METHODS[name]
