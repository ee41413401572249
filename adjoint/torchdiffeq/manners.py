"""torchdiffeq's manners: errors that are AssertionErrors too, in the forward and the backward pass."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

from ...solvers.errors import (
    AdamodeWarning,
    ArgumentError,
    ArgumentTypeError,
    DynamicsError,
    FaceArgumentError,
    FaceDynamicsError,
    FaceSolverError,
    FaceTypeError,
    NotRepeatableError,
    ReconstructionError,
    SolverError,
)

TWINS: dict[type[Exception], type[Exception]] = {
    SolverError: FaceSolverError,
    ArgumentTypeError: FaceTypeError,
    ArgumentError: FaceArgumentError,
    DynamicsError: FaceDynamicsError,
}


@contextlib.contextmanager
def face() -> Iterator[None]:
    """Raises this project's errors as their twins that derive from AssertionError as well."""
    try:
        yield
    except AssertionError:
        raise
    except tuple(TWINS) as error:
        twin = next(twin for kind, twin in TWINS.items() if isinstance(error, kind))
        raise twin(*error.args) from error


_warned: set[str] = set()


def warn_once(kind: str, text: str) -> None:
    """One AdamodeWarning of a kind a process: programs that work today must go on working."""
    if kind not in _warned:
        _warned.add(kind)
        warnings.warn(text, AdamodeWarning, stacklevel=3)


def warn_instead(error: ReconstructionError | NotRepeatableError) -> None:
    """An error of the backward pass, as a warning."""
    warn_once(type(error).__name__, str(error))
