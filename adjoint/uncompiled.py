"""A solve under the user's torch.compile: one clean graph break, not a trace through the loop.

torch._dynamo takes seconds to import, so it is asked only where it is there already: while it compiles.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

Function = TypeVar("Function", bound=Callable[..., Any])
_found: dict[str, Callable[..., Any]] = {}


def uncompiled(function: Function) -> Function:
    """The same function, run outside the graph where a caller is being compiled."""
    name = f"{function.__name__}_{len(_found)}"
    _found[name] = function
    here = sys.modules[__name__]

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return getattr(here, name)(*args, **kwargs)
        return function(*args, **kwargs)

    return cast("Function", call)  # wraps' own type forgets the argument names


def __getattr__(name: str) -> Callable[..., Any]:
    """The function of that name with compilation disabled; dynamo asks for it while it traces."""
    if name not in _found:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import torch._dynamo

    disabled = torch._dynamo.disable(_found[name])
    globals()[name] = disabled
    return disabled
