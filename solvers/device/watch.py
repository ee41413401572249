"""Whether anything that was looked at is another than it was: a check that takes microseconds.

A watch remembers which objects stood where, by identity, and the metadata of tensors. It keeps nothing alive
but atoms (numbers, texts) and what stands in classes of libraries; everything else is referred to weakly, and
the end of one is a change.
"""

from __future__ import annotations

import abc
import functools
import operator
import types
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .plain import Incomparable, is_atom

ABSENT = object()
SLOT = types.MemberDescriptorType
CONTAINERS = (tuple, list, dict, set, frozenset, types.MappingProxyType)
# What every module has; the first three are looked into, hooks must be none.
PLUMBING = frozenset(nn.Module().__dict__)
HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def of_module(module: nn.Module) -> list[Any]:
    """Its type, its attributes, and what is registered; hooks by their number."""
    d = module.__dict__
    p, b, m = d["_parameters"], d["_buffers"], d["_modules"]
    found = [id(type(module)), *d, *map(id, d.values())]
    for registered in (p, b, m):
        found.append(len(registered))
        found += registered
        found += map(id, registered.values())
    for name in HOOKS:
        found.append(len(d[name]))
    return found


def of_instance(thing: Any) -> list[Any]:
    """Its type and its attributes."""
    d = thing.__dict__
    return [id(type(thing)), *d, *map(id, d.values())]


def of_namespace(thing: Any) -> list[Any]:
    """All that a class has in its own body, by name."""
    d = thing.__dict__
    return [*d, *map(id, d.values())]


class Objects(list[Any]):
    """Objects, compared by identity without a look into them: half the time of lists of their ids, and an
    eighth where the processor's cache has forgotten them."""

    __hash__ = None

    def __eq__(self, other: Any) -> bool:
        return len(self) == len(other) and all(map(operator.is_, self, other))

    def __ne__(self, other: Any) -> bool:
        return not self == other


def of_body(thing: Any) -> Objects:
    """All that a class has in its own body, in order: for those of libraries, which are large, and live as
    long as the process."""
    return Objects(thing.__dict__.values())


def of_tensor(x: Tensor) -> tuple[Any, ...]:
    """All but its values."""
    return x.requires_grad, x.dtype, x.device, x.shape, x.stride()


def of_function(function: types.FunctionType) -> tuple[Any, ...]:
    """Its code, its defaults, its attributes and what it has closed over."""
    cells = function.__closure__ or ()
    named = function.__kwdefaults__
    return (
        id(function.__code__),
        shape_of(function.__defaults__),
        shape_of(named) if named else 0,
        shape_of(function.__dict__) if function.__dict__ else 0,
        *[id(cell_contents(cell)) for cell in cells],
    )


def cell_contents(cell: Any) -> Any:
    """What a closure's cell holds; `ABSENT` for an empty one."""
    try:
        return cell.cell_contents
    except ValueError:
        return ABSENT


def never_changes(value: Any) -> bool:
    """Whether it is an atom, or one of torch's or Python's own immutable containers of atoms."""
    if type(value) in (tuple, frozenset, torch.Size):
        return all(map(never_changes, value))
    if type(value) in (slice, range):
        return all(map(is_atom, (value.start, value.stop, value.step)))
    return is_atom(value)


def shape_of(value: Any) -> Any:
    """Which objects a container holds, and the containers in it, by identity."""
    if not issubclass(type(value), CONTAINERS):
        return id(value)
    if isinstance(value, (dict, types.MappingProxyType)):
        return tuple((id(k), shape_of(x)) for k, x in value.items())
    return tuple(map(shape_of, value))


class Reader(abc.ABC):
    """Reads off a holder what stands somewhere in it, by identity."""

    @abc.abstractmethod
    def __call__(self, holder: Any) -> Any:
        """What stands there now."""


class Names(Reader):
    """Reads some names of a namespace: a module's, a class's, or that of a function's globals."""

    def __init__(self, names: Sequence[str], find: Callable[[Any], Any] = vars):
        self.names, self.find = tuple(names), find

    def __call__(self, holder: Any) -> tuple[int, ...]:
        """The identities, by name."""
        get = self.find(holder).get
        return tuple([id(get(name, ABSENT)) for name in self.names])


class Held(Reader):
    """Reads a container by name out of a namespace: what it holds."""

    def __init__(self, name: Any, find: Callable[[Any], Any] = vars):
        self.name, self.find = name, find

    def __call__(self, holder: Any) -> Any:
        """As `shape_of`."""
        return shape_of(self.find(holder)[self.name])


class Wrapped(Reader):
    """Reads the functions in a property, a static or a class method, by its name in a class."""

    def __init__(self, name: str):
        self.name = name

    def __call__(self, holder: Any) -> tuple[int, ...]:
        """The functions' identities."""
        return tuple(map(id, functions_in(holder.__dict__[self.name])))


def functions_in(wrapper: Any) -> tuple[Any, ...]:
    """The functions that a property, a static or a class method is made of; none for anything else."""
    if isinstance(wrapper, property):
        return tuple(f for f in (wrapper.fget, wrapper.fset, wrapper.fdel) if f is not None)
    if isinstance(wrapper, (staticmethod, classmethod)):
        return (wrapper.__func__,)
    if isinstance(wrapper, functools.cached_property):
        return (wrapper.func,)
    return ()


class Cell(Reader):
    """Reads a container in the closure of a function, by its number there: what it holds."""

    def __init__(self, number: int):
        self.number = number

    def __call__(self, holder: Any) -> Any:
        """As `shape_of`."""
        return shape_of(cell_contents(holder.__closure__[self.number]))


def all_attributes(thing: Any) -> Any:
    """The attributes of an object, those in slots too."""
    slots = [name for c in type(thing).__mro__ for name, x in vars(c).items() if type(x) is SLOT]
    held = {name: getattr(thing, name) for name in slots if hasattr(thing, name)}
    return held | getattr(thing, "__dict__", {}) if held else vars(thing)


def global_names(function: Any) -> Any:
    """The globals of a function."""
    return function.__globals__


class Watch:
    """Places, and what stood there."""

    def __init__(self) -> None:
        self._places: list[tuple[weakref.ref[Any], Callable[[Any], Any], Any]] = []
        self._gone: list[Any] = []
        self._refs: dict[int, Any] = {}
        self._atoms: dict[int, Any] = {}

    def place(self, holder: Any, read: Callable[[Any], Any]) -> None:
        """Remembers what ``read`` gives for the holder.

        Raises: Incomparable for a holder that takes no weak references.
        """
        self.mind(holder)
        try:
            self._places.append((weakref.ref(holder), read, read(holder)))
        except TypeError:
            raise Incomparable(f"a {type(holder).__name__}, which takes no weak references") from None

    def mind(self, value: Any) -> None:
        """Sees to it that no other object can have the identity of this one unnoticed."""
        if id(value) in self._refs or id(value) in self._atoms:
            return
        if never_changes(value):
            self._atoms[id(value)] = value
        elif issubclass(type(value), CONTAINERS):
            parts = value.items() if isinstance(value, (dict, types.MappingProxyType)) else value
            for part in parts:
                self.mind(part)
        else:
            try:
                self._refs[id(value)] = weakref.ref(value, self._gone.append)
            except TypeError:  # a property, say: its owner is watched for it
                return

    def holds(self, frozen: Any, parts: Iterable[Any]) -> bool:
        """Keeps alive a thing that cannot change, unless a part of it can."""
        if not all(map(never_changes, parts)):
            return False
        self._atoms[id(frozen)] = frozen
        return True

    def same(self) -> bool:
        """Whether all is as it was."""
        if self._gone:
            return False
        try:
            for ref, read, before in self._places:
                if read(ref()) != before:
                    return False
        except (AttributeError, KeyError, IndexError, TypeError):  # the place itself, or its holder, is gone
            return False
        return True
