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
from .fast_tanh import tanh_in_programs

Program = Callable[..., Any]
_NUMBER = itertools.count()
SMALL = 2048  # multiplications in a product, below which a loop in the kernel beats a call out of it


def _small_product(a: Tensor, b: Tensor) -> Tensor:
    """a b as a sum: inductor then makes one kernel of everything around it (a whole attempt, say)."""
    if a.device.type != "cpu" or a.shape[0] * a.shape[1] * b.shape[1] > SMALL:
        return NotImplemented
    return (a[:, :, None] * b[None]).sum(1)


def _small_product_plus(c: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    found = NotImplemented if beta != 1 or alpha != 1 else _small_product(a, b)
    return found if found is NotImplemented else found + c


def _inductor(graph: Any, inputs: Any) -> Any:
    """torch.compile's default backend, small products and float32's tanh written out."""
    from torch._inductor.compile_fx import compile_fx
    from torch._inductor.decomposition import select_decomp_table

    own = {
        torch.ops.aten.mm.default: _small_product,
        torch.ops.aten.addmm.default: _small_product_plus,
        torch.ops.aten.tanh.default: tanh_in_programs,
    }
    return compile_fx(graph, inputs, decompositions={**select_decomp_table(), **own})


BACKEND: Any = _inductor  # "aot_eager" traces alike, without generating code


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
