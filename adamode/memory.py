"""Memory of tensors in a computation: on the CPU by the storages that live, counted apart from the engine.

A GPU's process holds the context of CUDA and the workspaces of its libraries too; this is the tensors alone.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MIB = 2**20
Made = TypeVar("Made")
_LIFT = torch.ops.aten.lift_fresh.default  # what torch.tensor(…) made a moment ago


class LiveStorage(TorchDispatchMode):
    """Inside, every storage that an operation makes is counted until it is freed, each once.

    now, peak: bytes, above what lived before.  A storage is counted when an operation returns a tensor on
    it and was given none on it: views and operations in place add nothing, and nothing that lived before
    counts. A backward pass on the CPU runs in the thread that asked for it, so its operations are seen,
    those of a `torch.autograd.Function` written in Python too. Not seen: workspaces inside one operation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, tuple[weakref.ref[Any], int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs the operation and counts what it returns."""
        result = func(*args, **(kwargs or {}))
        given = set() if func is _LIFT else {id(storage) for storage in _storages((args, kwargs))}
        for storage in _storages(result):
            key = id(storage)
            if key in self._alive:
                self._resized(storage)
            elif key not in given:
                self._born(storage)
        self.peak = max(self.peak, self.now)
        return result

    def _born(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()

        def died(_: Any, key: int = key) -> None:
            self.now -= self._alive.pop(key)[1]

        # Torch keeps one Python object for a storage as long as the storage lives, so its id is the
        # storage's, and the reference dies with it.
        self._alive[key] = weakref.ref(storage, died), size
        self.now += size

    def _resized(self, storage: torch.UntypedStorage) -> None:
        reference, size = self._alive[id(storage)]
        self.now += storage.nbytes() - size
        self._alive[id(storage)] = reference, storage.nbytes()


def _storages(tree: Any) -> Iterator[torch.UntypedStorage]:
    for leaf in tree_leaves(tree):
        if isinstance(leaf, Tensor) and leaf.layout == torch.strided:
            yield leaf.untyped_storage()


def peak_of(step: Callable[[], Any], device: torch.device) -> int:
    """Bytes that lived at most during step(), above what lived before it."""
    return metered(step, device)[1]


def metered(step: Callable[[], Made], device: torch.device) -> tuple[Made, int]:
    """(What step() gives, its `peak_of`): on the CPU by `LiveStorage`, on CUDA by torch's allocator."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        made = step()
        torch.cuda.synchronize(device)
        return made, torch.cuda.max_memory_allocated(device) - before
    with LiveStorage() as meter:
        made = step()
    return made, meter.peak


def parameter_bytes(model: torch.nn.Module) -> int:
    """Bytes of the model's parameters and buffers."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())
