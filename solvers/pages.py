"""Who writes the page of a solve: the solvers know no pages, the public face says who does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Of a solution, a path and a cotangent of y.
Writer = Callable[[Any, "str | os.PathLike[str]", Any], Path]

_loaders: list[Callable[[], Writer]] = []


def set_writer(load: Callable[[], Writer]) -> None:
    """Says where the writer is found; it is loaded when the first page is asked for."""
    _loaders[:] = [load]


def writer() -> Writer:
    """Who writes pages."""
    return _loaders[0]()
