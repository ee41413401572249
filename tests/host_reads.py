"""Counts what makes a GPU wait: every way in which the host reads a tensor's value."""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2", "argwhere")


class _Dispatched(TorchDispatchMode):
    def __init__(self, found: collections.Counter):
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if name in WAITING:
            self.found[name] += 1
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
            self.found["boolean index"] += len(masks)
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def host_reads() -> Iterator[collections.Counter]:
    """A counter by kind. Not seen by the dispatcher, so wrapped: tolist, numpy, cpu, __array__.

    tolist reads one tensor at once however many entries it has; inside it nothing else is counted.
    """
    found: collections.Counter = collections.Counter()
    names = ("tolist", "numpy", "cpu", "__array__")
    originals = {name: getattr(Tensor, name) for name in names}

    def wrapped(name: str) -> Any:
        def call(self: Tensor, *args: Any, **kwargs: Any) -> Any:
            before = found.copy()
            result = originals[name](self, *args, **kwargs)
            found.clear()
            found.update(before)
            found[name] += 1
            return result

        return call

    for name in names:
        setattr(Tensor, name, wrapped(name))
    try:
        with _Dispatched(found):
            yield found
    finally:
        for name, original in originals.items():
            setattr(Tensor, name, original)
