"""Native programs: a function of an owner and tensors, exported once, built by AOTInductor, loaded by any
later process.

The owner's parameters and buffers are inputs of the program, so that it goes on when they change; all else
that the owner is stands in the program's fingerprint. Nothing is guarded at a call but that fingerprint.
"""

from __future__ import annotations

import contextlib
import re
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn.utils import stateless
from torch.utils import _pytree as pytree

from .decompositions import own_decompositions

Function = Callable[..., Any]  # (owner, *arguments) → a list of tensors
_BUILDING = threading.Lock()  # torch's tables are changed while a program is built
# What a loop of no turn gives shares memory with what it began from, which torch 2.14 does not know: it must
# write nothing into memory that it takes for free.
OPTIONS = {"allow_buffer_reuse": False, "inplace_buffers": False}


def values_of(owner: nn.Module) -> dict[str, Tensor]:
    """The owner's parameters and buffers, by name: the first inputs of its programs."""
    return {**dict(owner.named_parameters()), **dict(owner.named_buffers())}


class _Traced(nn.Module):
    """The function with everything that is a tensor as an argument, for `torch.export`."""

    function: Function
    owner: nn.Module
    form: Any

    def __init__(self, function: Function, owner: nn.Module, form: Any):
        super().__init__()
        self.__dict__.update(function=function, owner=owner, form=form)  # the owner is no part of it

    def forward(self, *flat: Tensor) -> Any:
        """The function's value, a list of tensors."""
        values, *arguments = pytree.tree_unflatten(flat, self.form)
        with stateless._reparametrize_module(self.owner, values, tie_weights=True):
            return list(self.function(self.owner, *arguments))


def exported(function: Function, owner: nn.Module, arguments: Sequence[Any]) -> Any:
    """The function's graph, of the shapes of the arguments; its inputs are the owner's values and they."""
    from torch.export import _trace

    flat, form = pytree.tree_flatten((values_of(owner), *arguments))
    # While it exports, torch puts other functions in place of Python's max and min. What traces a loop's turn
    # runs them wrongly: max(384, 1) is 1 there. No size of ours is symbolic, so Python's own are right.
    own_max = mock.patch.object(_trace, "_override_builtin_ops", contextlib.nullcontext)
    with torch.no_grad(), own_max, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its tracing
        return torch.export.export(_Traced(function, owner, form), tuple(flat), strict=False)


def build(function: Function, owner: nn.Module, arguments: Sequence[Any], path: Path) -> None:
    """Writes the function's program, compiled, to a path that ends in .pt2.

    arguments: examples.
    Raises whatever torch.export, inductor and the C++ compiler raise: dozens of unrelated types.
    """
    with torch.no_grad(), _BUILDING, _small_parts_written_out():
        graph = exported(function, owner, arguments)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch._inductor.aoti_compile_and_package(graph, package_path=str(path), inductor_configs=OPTIONS)
    _refuse_double_frees(path)


@contextlib.contextmanager
def _small_parts_written_out() -> Iterator[None]:
    """Inductor with our decompositions. It takes none as an argument where it compiles ahead of time; what it
    makes there is in no cache of its own that another program could meet."""
    from torch._inductor import compile_fx
    from torch._inductor.decomposition import select_decomp_table

    table = {**select_decomp_table(), **own_decompositions()}
    with mock.patch.object(compile_fx, "select_decomp_table", return_value=table):
        yield


def _refuse_double_frees(path: Path) -> None:
    """RuntimeError where the native code frees a handle at each turn of a loop that it made once before it:
    torch 2.14 writes that for a view, of its base's form, that a loop captures."""
    with zipfile.ZipFile(path) as package:
        sources = [name for name in package.namelist() if name.endswith(".wrapper.cpp")]
        for name in sources:
            freed = re.findall(r"RAIIAtenTensorHandle\((tmp_\w+)\)", package.read(name).decode())
            if len(freed) != len(set(freed)):
                raise RuntimeError("a loop of the program captures a view, which its code frees twice")
    if not sources:
        raise RuntimeError("the program has no source, so it cannot be looked at")


class Values:
    """The owner's parameters and buffers as a list, without a walk through its modules: for as long as its
    modules hold the same dictionaries, which its fingerprint watches."""

    def __init__(self, owner: nn.Module):
        names = values_of(owner)
        self.places = [_place(owner, name) for name in names]

    def now(self) -> list[Tensor]:
        """In the order of `values_of`."""
        return [holder[name] for holder, name in self.places]


def _place(owner: nn.Module, name: str) -> tuple[dict[str, Any], str]:
    """The dictionary that holds a parameter or buffer, and its name there."""
    *path, last = name.split(".")
    module = owner.get_submodule(".".join(path))
    return (module._parameters if last in module._parameters else module._buffers), last


class Native:
    """A program that was loaded."""

    def __init__(self, path: Path):
        # What torch._inductor.aoti_load_package makes, without the 1.5 s that its imports take.
        self.runner = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1)

    def __call__(self, owner: nn.Module, values: list[Tensor], *arguments: Any) -> list[Tensor]:
        """What the function returns for the owner's values and the arguments, as a list."""
        found: list[Tensor] = self.runner.boxed_run([*values, *_leaves(arguments)])
        return found


def _leaves(arguments: Any) -> list[Tensor]:
    """The tensors in tuples and lists, in order."""
    found: list[Tensor] = []
    for argument in arguments:
        if isinstance(argument, Tensor):
            found.append(argument)
        else:
            found += _leaves(argument)
    return found
