"""The native programs of one owner: found, built and loaded, once each."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from ..errors import AdamodeWarning, first_line
from . import native
from .fingerprint import Incomparable, fingerprint, stable_key
from .packages import store
from .surroundings import settings

Program = Callable[..., Any]
Alike = Callable[[Program, Program, tuple[Any, ...]], bool]
MODE = "native"  # "plain": the functions run as they are; "off": there is no program


class Natives:
    """The programs of one owner.

    known: by key, which holds the owner's fingerprint; None: there is none, and will be none.
    notes: what is known of an owner for a key.
    """

    _all: ClassVar[Any] = WeakIdKeyDictionary()

    def __init__(self) -> None:
        self.known: dict[Hashable, Program | None] = {}
        self.notes: dict[Hashable, Any] = {}
        self.warned = False

    @classmethod
    def of(cls, owner: nn.Module) -> Natives:
        """The owner's; made at the first call, gone with the owner."""
        found: Natives | None = cls._all.get(owner)
        if found is None:
            cls._all[owner] = found = cls()
        return found

    def find(
        self,
        key: tuple[Any, ...],
        make: Callable[[], Program],
        owner: nn.Module,
        arguments: tuple[Any, ...],
        alike: Alike,
    ) -> Program | None:
        """The program of this key, called with the owner, its values and such arguments; None where there is
        none.

        key: plain values: the owner's fingerprint, the names of its methods, what else a program depends on.
        make: the function that it is made of.
        alike: whether a program that was built or loaded does what its function does.
        """
        if key not in self.known:
            self.known[key] = self._made(key, make, owner, arguments, alike)
        return self.known[key]

    def _made(
        self,
        key: tuple[Any, ...],
        make: Callable[[], Program],
        owner: nn.Module,
        arguments: tuple[Any, ...],
        alike: Alike,
    ) -> Program | None:
        try:
            function = make()
            if MODE == "plain":
                return plain(function)
            build = functools.partial(native.build, function, owner, arguments)
            about = {"model": type(owner).__name__, "for": [str(part) for part in key[2:]]}
            path = store().make(stable_key(owner, key[1], key[2:]), about, build)
            if path is None or comparable(owner, key[1]) != key[0]:
                return None  # nothing can be written, or func has changed itself
            program = native.Native(path)
        except Exception as error:  # torch.export, inductor, the C++ compiler: dozens of unrelated types
            self.say(owner, f"{type(error).__name__}: {first_line(error)}")
            return None
        with torch.no_grad():
            if alike(program, plain(function), arguments):
                return program
        self.say(owner, "its first step is another than that of func, which may draw random numbers")
        return None

    def say(self, owner: nn.Module, reason: str) -> None:
        """Why there is no program; once for an owner."""
        if not self.warned:
            self.warned = True
            warnings.warn(
                f"compile=True: {type(owner).__name__} cannot be made one native program ({reason}); its "
                "attempts are compiled one by one.",
                AdamodeWarning,
                stacklevel=6,
            )


def plain(function: Program) -> Program:
    """The function, called as a program is: (owner, its values, *arguments)."""

    def called(owner: nn.Module, values: list[Tensor], *arguments: Any) -> Any:
        return function(owner, *arguments)

    return called


def comparable(owner: nn.Module, entries: tuple[str, ...]) -> tuple[Any, ...] | None:
    """The owner's fingerprint, and torch's settings; None where something in reach of the entries cannot be
    compared."""
    try:
        return fingerprint(owner, entries), settings()
    except Incomparable:
        return None


def near(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    """Whether tensors are equal but for rounding: 1e4 units of the largest finite entry, since sums of other
    orders go through several layers and stages. What is not finite is so in both."""
    size = max(float(x.nan_to_num(0.0, 0.0, 0.0).abs().amax()) for x in expected if x.numel())
    for x, y in zip(found, expected, strict=True):
        off = torch.where((x == y) | (x.isnan() & y.isnan()), torch.zeros_like(x), (x - y).abs())
        if x.numel() and not float(off.amax()) <= 1e4 * torch.finfo(expected[0].dtype).eps * size:
            return False
    return True
