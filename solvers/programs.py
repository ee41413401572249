"""Compiled programs: `torch.compile(fullgraph=True)`, one for each purpose, shape and dtype, kept while
their owner (a dynamics) lives.

Everything that differs from step to step, from batch to batch and from solve to solve comes in as a
tensor, so nothing is compiled twice. Each program is a function with code of its own: torch counts
what it compiles by code, and gives up after eight.
"""

from __future__ import annotations

import itertools
import types
import warnings
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from .errors import AdamodeWarning

Program = Callable[..., Any]
_NUMBER = itertools.count()
BACKEND = "inductor"  # torch.compile's default; "aot_eager" traces alike, without generating code


class Programs:
    """The programs of one owner, by key; None where it could not be compiled. notes: what is known of it."""

    _all = WeakIdKeyDictionary()

    def __init__(self) -> None:
        self.known: dict[Hashable, Program | None] = {}
        self.notes: dict[Hashable, Any] = {}

    @classmethod
    def of(cls, owner: Any) -> Programs:
        """The owner's; made at the first call, gone with the owner."""
        if owner not in cls._all:
            cls._all[owner] = cls()
        return cls._all[owner]

    def run(self, key: Hashable, make: Callable[[], Callable[..., Any]], *arguments: Any) -> Any:
        """What the program of this key returns for the arguments; None where it cannot be compiled.

        make: the function to compile; it must refer to the owner by its arguments alone, or the owner
        would live as long as its programs.
        The first failure warns, once for the owner; afterwards the caller goes on without.
        """
        if key in self.known:
            program = self.known[key]
            try:
                return None if program is None else program(*arguments)
            except torch._dynamo.exc.FailOnRecompileLimitHit:  # the owner itself changed many times
                del self.known[key]
        program = torch.compile(_own_code(make()), fullgraph=True, dynamic=False, backend=BACKEND)
        try:
            found = program(*arguments)
        except Exception as error:  # dynamo, inductor and the C++ compiler raise dozens of unrelated types
            if not any(known is None for known in self.known.values()):
                warnings.warn(_refusal(arguments[0], error), AdamodeWarning, stacklevel=2)
            self.known[key] = None
            return None
        self.known[key] = program
        return found


def _own_code(function: Callable[..., Any]) -> Callable[..., Any]:
    code = function.__code__.replace(co_name=f"{function.__name__}_{next(_NUMBER)}")
    return types.FunctionType(
        code, function.__globals__, code.co_name, function.__defaults__, function.__closure__
    )


def _refusal(owner: Any, error: Exception) -> str:
    first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return (
        f"compile=True: {type(owner).__name__} cannot be compiled ({type(error).__name__}: {first[:190]}); "
        "it is solved without compiling. Use tensor operations only in func, without .item() and branches on "
        "values, or leave compile out."
    )


def signature(*tensors: Tensor | None) -> tuple[Hashable, ...]:
    """What a program is compiled for: shape, strides, dtype and device of each tensor."""
    return tuple(None if x is None else (tuple(x.shape), x.stride(), x.dtype, x.device) for x in tensors)
