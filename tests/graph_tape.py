"""A graph without a GPU: operators that were recorded, repeated on the tensors they were recorded with.

As in a CUDA graph nothing of Python is repeated, what is captured is not done, and a read of a value inside a
capture is refused. What was made inside is NaN until a replay makes it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from virtual_device import READS

from adamode.solvers.device.graphs import Capture


def tensors(tree: Any) -> list[Tensor]:
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor)]


def memory(x: Tensor) -> int:
    """Of the numbers, where they are elsewhere."""
    return getattr(x, "data_", x).untyped_storage()._cdata


def in_any_mode(operation: Callable[[], Any]) -> Callable[[], Any]:
    """A graph knows no modes: what was made in one is written in any."""

    def repeat() -> None:
        with torch.inference_mode():
            operation()

    return repeat


class Recording(TorchDispatchMode):
    """What runs under it, as `operations`, each to be done again."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Callable[[], Any]] = []
        self.before: list[tuple[Tensor, Tensor]] = []
        self.made: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        if name in READS:
            raise RuntimeError(f"{name}: operation not permitted when stream is capturing")
        given = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
        written = [given[a.name] for a in func._schema.arguments if a.alias_info and a.alias_info.is_write]
        self.before += [(x, x.clone()) for x in written]
        found = func(*args, **kwargs)
        if written:
            self.operations.append(in_any_mode(lambda: func(*args, **kwargs)))
        elif outs := [x for x in tensors(found) if memory(x) not in map(memory, tensors((args, kwargs)))]:
            self.made += outs  # a view needs no repetition

            def repeat() -> None:
                for out, x in zip(outs, tensors(func(*args, **kwargs)), strict=True):
                    out.copy_(x)

            self.operations.append(in_any_mode(repeat))
        return found

    def undo(self) -> None:
        """Nothing of it was done."""
        for x, was in reversed(self.before):
            x.copy_(was)
        for x in self.made:
            if x.is_floating_point():
                x.fill_(torch.nan)
        self.before, self.made = [], []

    def replay(self) -> None:
        """All of it, again."""
        for operation in self.operations:
            operation()


class Tape(Capture):
    """log: what was asked of it: "warm", "capture", "replay", "loop"."""

    def __init__(self, device: Any = None, conditional: bool = False):
        self.conditional = conditional
        self.log: list[str] = []
        self.taken = False
        self.recording: Recording | None = None

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        assert not self.taken
        self.taken = True
        try:
            yield
        finally:
            self.taken = False

    def warm(self, work: Callable[[], None]) -> None:
        self.log.append("warm")
        work()

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        self.log.append("capture")
        recording = self.recording = Recording()
        try:
            # Under a mode torch.compile would compile anew what it has compiled.
            with torch.compiler.set_stance("force_eager"), recording:
                work()
        finally:
            recording.undo()
            self.recording = None

        def replay() -> None:
            assert self.taken
            self.log.append("replay")
            recording.replay()

        return replay

    def loop(self, goes_on: Callable[[], Tensor], work: Callable[[], None]) -> None:
        recording, parts = self.recording, []
        outer, results = recording.operations, []
        for part in (lambda: results.append(goes_on()), work):
            recording.operations = []
            part()
            parts.append(recording.operations)
        recording.operations = outer

        def turns() -> None:
            while [one() for one in parts[0]] and float(results[0].sum()):
                for one in parts[1]:
                    one()

        recording.operations.append(turns)
        self.log.append("loop")
