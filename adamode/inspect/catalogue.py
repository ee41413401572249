"""Problems by name, and the user's own by ``module:name`` or ``file.py:name``."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from ..solvers.errors import AdamodeError, ArgumentError, nearest
from .detest import DETEST
from .famous import FAMOUS
from .known import check_problem
from .problem import Problem

PROBLEMS: dict[str, Problem] = {problem.name: problem for problem in (*FAMOUS, *DETEST)}


def find_problem(
    name: str,
    y0: Sequence[float] | None = None,
    t_end: float | None = None,
    t_start: float = 0.0,
    *,
    loaded: Any = None,
) -> Problem:
    """The problem called name; y0 and t_end replace its own where given.

    name: of the catalogue, or ``module:name``, which is a Problem, a function without arguments that returns
        one, or, with y0 and t_end, a function f(t, y).
    loaded: what ``module:name`` names, where the module has been run already.
    Raises ArgumentError for an unknown name (with the nearest), an import that fails, anything else.
    """
    if ":" in name:
        found = _own(name, load_named(name) if loaded is None else loaded, y0, t_end, t_start)
    else:
        check_problem(name)
        found = PROBLEMS[name]
    start = found.span[0]
    end = found.span[1] if t_end is None else t_end
    if y0 is None and end == found.span[1]:
        return found
    if y0 is not None and len(y0) != len(found.y0):
        raise ArgumentError(f"y0 has {len(y0)} numbers; {found.name} has {len(found.y0)} components.")
    closed = found.solution if y0 is None else None  # it belongs to the problem's own start
    return dataclasses.replace(found, y0=found.y0 if y0 is None else y0, span=(start, end), solution=closed)


def load_named(name: str) -> Any:
    """What ``module:name`` or ``file.py:name`` names; ArgumentError where it is not there."""
    place, _, attribute = name.rpartition(":")
    module = _load(place)
    thing = getattr(module, attribute, None)
    if thing is None:
        public = [key for key in vars(module) if not key.startswith("_")]
        raise ArgumentError(f"{place} has no {attribute!r}: {nearest(attribute, public)}")
    return thing


def _own(name: str, thing: Any, y0: Sequence[float] | None, t_end: float | None, t_start: float) -> Problem:
    place, _, attribute = name.rpartition(":")
    if isinstance(thing, Problem):
        return thing
    if not callable(thing):
        raise ArgumentError(f"{name} is a {type(thing).__name__}; it must be a Problem or a function.")
    if y0 is not None:
        if t_end is None:
            raise ArgumentError(f"{name} with y0 needs an end of time too (--t-end).")
        return Problem(attribute, thing, y0, (t_start, t_end), place)
    try:
        made = thing()
    except TypeError as error:
        raise ArgumentError(
            f"{name} could not be called without arguments ({error}). Where it is f(t, y), give its "
            "start and end: --y0 1,0 --t-end 10."
        ) from error
    if not isinstance(made, Problem):
        raise ArgumentError(
            f"{name}() returned a {type(made).__name__}; it must return an adamode.inspect.problem.Problem."
        )
    return made


@contextmanager
def _current_folder_first() -> Iterator[None]:
    """The console script does not look for modules in the current folder; ``python -m`` does."""
    before = list(sys.path)
    sys.path.insert(0, os.getcwd())
    try:
        yield
    finally:
        sys.path[:] = before


def _load(place: str) -> ModuleType:
    """The module, or the file where place ends in .py. It runs, as on any import."""
    try:
        with _current_folder_first():
            if not place.endswith(".py"):
                return importlib.import_module(place)
            spec = importlib.util.spec_from_file_location(Path(place).stem, place)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    except AdamodeError:
        raise
    except Exception as error:  # the user's module may fail in any way
        raise ArgumentError(
            f"problem: {place!r} could not be imported ({type(error).__name__}: {error}). It must be "
            "a file NAME.py, or a module installed or in this folder."
        ) from error
