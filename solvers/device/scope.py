"""What of a class or of a module of code counts for a program: what may be read by name."""

from __future__ import annotations

import abc
import argparse
import types
import typing
from typing import Any

from torch import nn

from .origins import OWN, USER, owner_of_class, owner_of_function, owner_of_module

# Bases that call back nothing but what is compared anyway.
QUIET = (object, nn.Module, abc.ABC, typing.Generic, typing.Protocol, argparse.Namespace)
MAKING = ("__init__", "__new__", "__post_init__")
# Names of a class that no call of a method reaches: how instances are made, shown and copied, and what Python
# notes.
ASIDE = frozenset(
    """__init__ __new__ __post_init__ __init_subclass__ __repr__ __str__ extra_repr __reduce__ __reduce_ex__
    __getstate__ __setstate__ __copy__ __deepcopy__ __del__ __dict__ __weakref__ __doc__ __module__
    __qualname__ __annotations__ __annotate__ __annotate_func__ __annotations_cache__ __firstlineno__
    __static_attributes__ __parameters__ __orig_bases__ __abstractmethods__ _abc_impl __match_args__
    __dataclass_fields__ __dataclass_params__ __hash__ __classcell__ __type_params__ __slots__
    __protocol_attrs__ _is_protocol __subclasshook__ _is_runtime_protocol __non_callable_proto_members__
    """.split()  # noqa: SIM905
)
# What every module of code has: where it lies, and how it was read.
IMPORTED = frozenset(
    "__file__ __cached__ __spec__ __loader__ __builtins__ __path__ __doc__".split()  # noqa: SIM905
)
# Builtins whose effect no program has, or which reach what cannot be followed.
REFUSED = frozenset(
    "eval exec globals locals __import__ compile print input open breakpoint id hash".split()  # noqa: SIM905
)
# With these any name may be made up.
REFLECTIVE = frozenset(
    "getattr hasattr vars dir __dict__ attrgetter methodcaller getmembers __getattribute__".split()  # noqa: SIM905
)


class Scope:
    """A class or a module of code that is looked into by name, as names turn up.

    owner: whose it is, as in `origins`.
    making: whether instances of a class may be made by what is reached.
    every: whether all names count, called or not.
    """

    def __init__(self, holder: Any, owner: str):
        self.holder, self.owner = holder, owner
        self.making = False
        self.done: set[str] = set()
        bases = [c for c in holder.__mro__ if owner_of_class(c) != USER] if self.is_class else []
        self._inherited = {name for c in bases for name in vars(c)}
        self.every = owner == USER and any(calls_back(c) for c in bases)

    @property
    def is_class(self) -> bool:
        """A class, and no module of code."""
        return isinstance(self.holder, type)

    def counts(self, name: str, names: set[str], called: frozenset[str]) -> bool:
        """Whether this name may be read by the user's code, which reads ``names``, or ours (``called``)."""
        if not self.is_class:
            wanted = name in names or (self.owner == USER and name == "__getattr__")
            return wanted and name not in IMPORTED
        if name in ASIDE:
            return self.making and name in MAKING and self.owner == USER
        if self.owner != USER or self.every or name in self._inherited:
            return True
        return name in names or name in called or name.startswith("__")

    def enters(self, value: Any) -> bool:
        """Whether a name of a library is of interest: a function that is the user's, or a part of its own."""
        kind = type(value)  # `isinstance` would wake up what torch loads, or finds fault with, when touched
        if kind is types.FunctionType:
            return owner_of_function(value) == USER
        inside = issubclass(kind, types.ModuleType) and not self.is_class
        return inside and owner_of_module(value.__name__) == self.owner


def calls_back(cls: type) -> bool:
    """Whether it is a class of a library that may call any method of what derives from it."""
    return cls not in QUIET and owner_of_class(cls) not in (USER, OWN)
