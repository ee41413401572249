"""Compiled programs: `torch.compile(fullgraph=True)`, one for each purpose, shape and dtype, kept while
their owner (a dynamics) lives.

Everything that differs from step to step, from batch to batch and from solve to solve comes in as a
tensor, so nothing is compiled twice. Each program is a function with code of its own: torch counts
what it compiles by code, and gives up after eight.
"""

from __future__ import annotations

import collections
import itertools
import types
import warnings
from collections.abc import Callable, Hashable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from ..errors import AdamodeWarning
from .tanh import tanh_in_programs

Program = Callable[..., Any]
_NUMBER = itertools.count()
SMALL = 2048  # multiplications in a product, below which a loop in the kernel beats a call out of it
PATIENCE = 8  # how often an owner may change what was compiled into a program


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

    own: dict[Any, Callable[..., Any]] = {
        torch.ops.aten.mm.default: _small_product,
        torch.ops.aten.addmm.default: _small_product_plus,
        torch.ops.aten.tanh.default: tanh_in_programs,
    }
    return compile_fx(graph, inputs, decompositions={**select_decomp_table(), **own})


BACKEND: Any = _inductor  # "aot_eager" traces alike, without generating code


class Programs:
    """The programs of one owner, by key.

    notes: what is known of the owner for a key.  broken: a reason why nothing of it is compiled any more.
    """

    _all: ClassVar[Any] = WeakIdKeyDictionary()

    def __init__(self) -> None:
        self.known: dict[Hashable, Program | None] = {}
        self.notes: dict[Hashable, Any] = {}
        self.traces: collections.Counter[Hashable] = collections.Counter()
        self.hooks: tuple[Any, ...] = ()
        self.changes, self.warned, self.broken = 0, False, False

    @classmethod
    def of(cls, owner: Any) -> Programs:
        """The owner's; made at the first call, gone with the owner. To be asked once a solve."""
        if owner not in cls._all:
            cls._all[owner] = cls()
        programs = cls._all[owner]
        programs.hooks = _hooks(owner)
        return programs

    def has(self, key: Hashable) -> bool:
        """Whether this program was compiled."""
        return self.known.get((key, self.hooks)) is not None

    def run(self, key: Hashable, make: Callable[[], Callable[..., Any]], *arguments: Any) -> Any:
        """What the program of this key returns for the arguments; None where the caller must do without.

        make: the function to compile; it must refer to the owner by its arguments alone, or the owner
        would live as long as its programs.
        None: it cannot be compiled (said once, for good); it raised (the uncompiled way raises func's own
        error, or does without); or the owner has changed since, so that notes may be out of date: all is
        forgotten, and the next solve begins anew.
        """
        full = (key, self.hooks)
        first = full not in self.known
        program = None if first else self.known[full]
        if self.broken or (program is None and not first):
            return None
        program = program or self._compiled(make, full)
        before = self.traces[full]
        try:
            found = program(*arguments)
        except Exception as error:  # dynamo, inductor and the C++ compiler raise dozens of unrelated types
            self._say(_refusal(arguments[0], error))
            if first:
                self.known[full] = None
            return None
        if not first and self.traces[full] > before:
            self._forget(arguments[0])
            return None
        self.known[full] = program
        return found

    def _compiled(self, make: Callable[[], Callable[..., Any]], full: Hashable) -> Program:
        backend = torch._dynamo.lookup_backend(BACKEND) if isinstance(BACKEND, str) else BACKEND

        def counted(graph: Any, inputs: Any) -> Any:
            self.traces[full] += 1
            return backend(graph, inputs)

        return torch.compile(_own_code(make()), fullgraph=True, dynamic=False, backend=counted)

    def _forget(self, owner: Any) -> None:
        """The owner is another than it was: an attribute, a mode, what requires gradients."""
        self.changes += 1
        self.known = {key: program for key, program in self.known.items() if program is None}
        self.notes.clear()
        if self.changes > PATIENCE:
            self.broken = True
            self._say(
                f"compile=True: {type(owner).__name__} has changed itself {self.changes} times, an attribute "
                "that it counts its calls with, say, and would be compiled anew each time; it is solved "
                "without compiling. Keep such numbers in a tensor, or leave compile out."
            )

    def _say(self, text: str) -> None:
        if not self.warned or self.broken:
            warnings.warn(text, AdamodeWarning, stacklevel=4)
        self.warned = True


def _hooks(owner: Any) -> tuple[Any, ...]:
    """The forward hooks of a module and its parts: torch.compile does not look whether they have changed."""
    if not isinstance(owner, nn.Module):
        return ()
    parts = [m for m in owner.modules() if m._forward_hooks or m._forward_pre_hooks]
    return tuple((id(m), tuple(m._forward_pre_hooks), tuple(m._forward_hooks)) for m in parts)


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
