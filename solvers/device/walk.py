"""Walks from an owner through all that its methods can reach."""

from __future__ import annotations

import builtins
import dataclasses
import enum
import functools
import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .bytecode import possible_names, read_code
from .origins import (
    OWN,
    USER,
    must_be_pure,
    owner_of_class,
    owner_of_function,
    owner_of_module,
    sources_of,
    version_of,
)
from .plain import Incomparable, described
from .scope import MAKING, QUIET, REFLECTIVE, REFUSED, Scope, calls_back
from .surroundings import device_facts
from .watch import (
    ABSENT,
    CONTAINERS,
    HOOKS,
    PLUMBING,
    Cell,
    Held,
    Names,
    Watch,
    Wrapped,
    all_attributes,
    cell_contents,
    functions_in,
    global_names,
    never_changes,
    of_body,
    of_function,
    of_instance,
    of_module,
    of_namespace,
    of_tensor,
    shape_of,
)

HEAP = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement, mostly
TENSORS = (Tensor, nn.Parameter, nn.Buffer)
BUILTINS = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)


class Walk:
    """One walk. Every object that is met gets a number, and a fact: what is known of it.

    owner, entries: as in `fingerprint`.
    watch: is told of every place that was looked at, also where the walk ends in a refusal.
    """

    def __init__(self, owner: nn.Module, entries: Sequence[str], watch: Watch):
        self.owner, self.watch = owner, watch
        self._facts: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._seen: list[Any] = []  # for as long as the walk takes: a number is of one object
        self._names = set(entries)  # of attributes that the user's code may read
        self._called: frozenset[str] = frozenset()  # … that ours may
        self._reflective = False
        self._makers: set[int] = set()  # functions that make an instance, and may write to it
        self._writer = ""  # a function that writes into something
        self._writable: list[tuple[str, str]] = []  # containers outside of functions: (name, where)
        self._open: dict[int, Scope] = {}
        self._later: list[tuple[str, str]] = []
        self._inputs = {id(x) for x in (*owner.parameters(), *owner.buffers())}
        self._registered = {id(m) for m in owner.modules()}

    def facts(self) -> Any:
        """All facts, plain and in an order that is the same in every process."""
        self._value(self.owner, "func")
        before = -1
        while before != (before := self._size()):
            for each in list(self._open.values()):
                self._look_into(each)
        for name, reason in self._later:
            if self._may_read(name):
                raise Incomparable(reason)
        for name, where in self._writable if self._writer else ():
            if self._may_read(name):
                raise Incomparable(f"{self._writer} writes into something, which could be {where}")
        return tuple(self._facts)

    def _size(self) -> int:
        making = sum(each.making for each in self._open.values())
        return len(self._names) + len(self._facts) + len(self._called) + making + self._reflective

    def _may_read(self, name: str) -> bool:
        return name in self._names or name in self._called or hasattr(nn.Module, name)

    # -- values -------------------------------------------------------------------------------------------

    def _value(self, value: Any, where: str) -> Any:
        """The value in a fact; other things than plain ones get facts of their own."""
        self.watch.mind(value)
        self._names.update(possible_names(value))
        return described(value, lambda thing: self._thing(thing, where))

    def _named(self, holder: Any, name: str, value: Any, read: Callable[[Any], Any], where: str) -> Any:
        """The value that stands somewhere by name; a container there is watched by what it holds."""
        if isinstance(value, CONTAINERS) and not never_changes(value):
            self.watch.place(holder, read)
        if isinstance(value, (list, dict, set)):
            self._writable.append((name, where))
        return self._value(value, where)

    def _thing(self, value: Any, where: str) -> Any:
        """A thing that is no plain value: its number; it is looked at when first met."""
        self.watch.mind(value)
        if isinstance(value, type):
            return self._class(value, making=True)
        if id(value) in self._numbers:
            return "see", self._numbers[id(value)]
        look = next((look for kinds, look in self._kinds() if isinstance(value, kinds)), self._instance)
        number = self._numbers[id(value)] = len(self._facts)
        self._facts.append(None)
        self._seen.append(value)
        self._facts[number] = look(value, where)
        return "see", number

    def _kinds(self) -> Any:
        return (
            (Tensor, self._tensor),
            (nn.Module, self._module),
            (types.FunctionType, self._function),
            (types.MethodType, self._method),
            (types.ModuleType, self._namespace),
            (BUILTINS, self._builtin),
            (functools.partial, self._partial),
            (enum.Enum, self._member),
            (torch._ops.OpOverload | torch._ops.OpOverloadPacket, lambda value, where: ("op", str(value))),
            (
                type(functools.cache(len)),
                lambda value, where: ("cache", self._value(value.__wrapped__, where)),
            ),
            (tuple, self._named_tuple),
        )

    def _tensor(self, x: Tensor, where: str) -> Any:
        if id(x) not in self._inputs:
            raise Incomparable(f"{where} is a tensor that is neither a parameter nor a buffer")
        self.watch.place(x, type)  # one that has no shape yet turns into another type when it gets one
        if type(x) not in TENSORS or x.layout is not torch.strided or x.is_conj() or x.is_neg():
            raise Incomparable(f"{where} is no plain tensor ({type(x).__name__}, {x.layout})")
        self.watch.place(x, of_tensor)
        device = device_facts(x.device)
        return "tensor", type(x).__name__, described((*of_tensor(x)[:2], device, x.shape, x.stride()))

    def _method(self, value: Any, where: str) -> Any:
        return "method", self._value(value.__func__, where), self._value(value.__self__, where)

    def _partial(self, value: Any, where: str) -> Any:
        self.watch.place(value, lambda partial: shape_of(partial.keywords))
        parts = (value.func, value.args, value.keywords)
        return "partial", type(value).__name__, *(self._value(part, where) for part in parts)

    def _member(self, value: Any, where: str) -> Any:
        return "member", self._class(type(value)), value.name, self._value(value.value, where)

    def _named_tuple(self, value: Any, where: str) -> Any:
        if not hasattr(type(value), "_fields") or type(value).__bases__ != (tuple,):
            raise Incomparable(f"{where} is a {type(value).__name__}")
        return "fields", self._class(type(value)), *(self._value(x, where) for x in value)

    def _builtin(self, value: Any, where: str) -> Any:
        holder = getattr(value, "__self__", None)
        module = getattr(value, "__module__", None)
        if module in sys.modules:
            must_be_pure(sys.modules[module], where)
        home = getattr(value, "__objclass__", None)
        bound = None if isinstance(holder, types.ModuleType | type) else self._value(holder, where)
        return "builtin", str(module), getattr(home, "__qualname__", ""), value.__qualname__, bound

    def _instance(self, thing: Any, where: str) -> Any:
        """An object of a class written in Python that has all it knows in attributes."""
        cls = type(thing)
        roots = [c for c in cls.__mro__ if c.__bases__ == (object,)]
        python = all("__weakref__" in vars(c) or "__slots__" in vars(c) for c in roots if c not in QUIET)
        frozen = dataclasses.is_dataclass(thing) and cls.__dataclass_params__.frozen
        if not python or roots == [] or cls is object:
            raise Incomparable(f"{where} is a {cls.__name__}")
        held = all_attributes(thing)
        if hasattr(thing, "__dict__"):
            self.watch.place(thing, of_instance)
        elif not self.watch.holds(thing, held.values()):
            raise Incomparable(f"{where} is a {cls.__name__}, which takes no weak references")
        if not frozen and (not hasattr(thing, "__dict__") or held is not vars(thing)):
            raise Incomparable(f"{where} is a {cls.__name__}, which has __slots__")
        return "object", self._class(cls), self._attributes(thing, held, where)

    # -- modules ------------------------------------------------------------------------------------------

    def _module(self, module: nn.Module, where: str) -> Any:
        self.watch.place(module, of_module)
        d = module.__dict__
        if id(module) not in self._registered and _has_tensors(module):
            raise Incomparable(f"{where} is a module with tensors that func has not registered as its own")
        if any(d[name] for name in HOOKS):
            raise Incomparable(f"{where} has hooks")
        if "_orig_mod" in d["_modules"] or d.get("_compiled_call_impl") is not None:
            raise Incomparable(f"{where} is compiled by torch.compile")
        cls = self._class(type(module))
        own = {name: x for name, x in d.items() if name not in PLUMBING or name == "training"}
        registered = (d["_parameters"], d["_buffers"], d["_modules"])
        parts = [
            tuple((name, self._value(x, f"{where}.{name}")) for name, x in part.items())
            for part in registered
        ]
        return "module", cls, self._attributes(module, own, where), *parts

    def _attributes(self, thing: Any, held: dict[str, Any], where: str) -> Any:
        """Attributes by name. What cannot be compared matters only where the name can be read."""
        found = []
        strict = any(map(calls_back, type(thing).__mro__))
        for name in sorted(held):
            self.watch.mind(held[name])
            try:
                value = self._named(thing, name, held[name], Held(name, all_attributes), f"{where}.{name}")
                found.append((name, value))
            except Incomparable as refused:
                if strict:
                    raise
                self._later.append((name, refused.reason))
        return tuple(found)

    # -- code ---------------------------------------------------------------------------------------------

    def _function(self, function: types.FunctionType, where: str) -> Any:
        self.watch.place(function, of_function)
        owner = owner_of_function(function)
        here = function.__qualname__
        cells = tuple(self._cell(function, i, name) for i, name in enumerate(function.__code__.co_freevars))
        if owner != USER:
            self._use(owner)
            must_be_pure(sys.modules[function.__module__], where)
            return "function", function.__module__, here, version_of(owner), cells
        said = read_code(function.__code__)
        lasting = said.outer + (() if id(function) in self._makers else said.writes)
        if lasting:
            raise Incomparable(f"{here} writes {lasting[0]}, which outlives the call")
        self._writer = self._writer or (here if said.stores_items else "")
        self._names |= said.names
        self._reflective |= not REFLECTIVE.isdisjoint(said.names | said.reads)
        given = (function.__defaults__, function.__kwdefaults__, function.__dict__)
        plain = [self._value(x, f"a default of {here}") for x in given]
        for name, level in sorted(said.imports):
            plain.append(self._imported(function, name, level))
        return "code", said.text, *plain, cells, self._globals(function, sorted(said.reads))

    def _cell(self, function: types.FunctionType, i: int, name: str) -> Any:
        held = cell_contents(function.__closure__[i])  # type: ignore[index]
        if isinstance(held, type) and name == "__class__":  # of `super`: that makes no instances
            return self._class(held)
        if held is ABSENT:
            return None
        self._names.add(name)
        return self._named(function, name, held, Cell(i), f"{name} in {function.__qualname__}")

    def _globals(self, function: types.FunctionType, names: list[str]) -> Any:
        self.watch.place(function, Names(names, global_names))
        found, space = [], function.__globals__
        for name in names:
            if name in space:
                self._names.add(name)
                where, read = f"{name} in {function.__qualname__}", Held(name, global_names)
                found.append((name, self._named(function, name, space[name], read, where)))
            elif name in REFUSED:
                raise Incomparable(f"{function.__qualname__} calls {name}")
            else:
                found.append((name, "builtin" if hasattr(builtins, name) else "absent"))
        return tuple(found)

    def _imported(self, function: types.FunctionType, name: str, level: int) -> Any:
        package = function.__globals__.get("__package__") or ""
        try:
            full = importlib.util.resolve_name("." * level + name, package)
            module = importlib.import_module(full)
        except ImportError as error:
            raise Incomparable(f"{function.__qualname__} imports {name}: {error}") from None
        if not level and "." in full:
            self._value(sys.modules[full.split(".")[0]], full)
        return self._value(module, full)

    def _namespace(self, module: types.ModuleType, where: str) -> Any:
        owner = owner_of_module(module.__name__)
        must_be_pure(module, where)
        self._open[id(module)] = Scope(module, owner)
        self._use(owner)
        return "names of", module.__name__, None if owner == USER else version_of(owner)

    def _class(self, cls: type, *, making: bool = False) -> Any:
        """A class by its number; its members are facts of their own."""
        if id(cls) not in self._numbers:
            self._numbers[id(cls)] = number = len(self._facts)
            self._facts.append(None)
            self._seen.append(cls)
            owner = owner_of_class(cls)
            self._use(owner)
            self.watch.mind(cls)
            bases = tuple(self._class(c) for c in cls.__bases__ if c is not object)
            version = None if owner == USER else version_of(owner)
            self._facts[number] = ("class", cls.__module__, cls.__qualname__, version, bases)
            if cls.__flags__ & HEAP:
                self._open[id(cls)] = Scope(cls, owner)
                self.watch.place(cls, of_namespace if owner == USER else of_body)
        for c in cls.__mro__ if making else ():
            if id(c) in self._open:
                self._open[id(c)].making = True
        return "see", self._numbers[id(cls)]

    def _use(self, owner: str) -> None:
        """Code of ours may call what the user's classes have by the names in our sources."""
        if owner == OWN:
            self._called = sources_of(OWN).names

    def _look_into(self, each: Scope) -> None:
        """Facts of those names of a class or a module of code that are new since the last look."""
        space = vars(each.holder)
        every = self._reflective and each.owner == USER
        names, called = (set(space), frozenset()) if every else (self._names, self._called)
        fresh = [n for n in sorted(space) if n not in each.done and each.counts(n, names, called)]
        if not fresh:
            return
        each.done.update(fresh)
        found = []
        for name in fresh:
            value = space[name]
            self.watch.mind(value)
            where = f"{each.holder.__name__}.{name}"
            if each.is_class and name in MAKING:
                self._makers.add(id(value))
            if each.owner == USER:
                try:
                    found.append((name, self._member_of(each.holder, name, where)))
                except Incomparable as refused:
                    if not self._reflective:
                        raise
                    self._later.append((name, refused.reason))
            elif each.enters(value):
                found.append((name, self._value(value, where)))
        if not isinstance(each.holder, type):
            self.watch.place(each.holder, Names(fresh))
        if found:
            self._facts.append(("members", self._numbers[id(each.holder)], tuple(found)))

    def _member_of(self, holder: Any, name: str, where: str) -> Any:
        value = vars(holder)[name]
        parts = functions_in(value)
        if not parts:
            return self._named(holder, name, value, Held(name), where)
        if isinstance(holder, type):
            self.watch.place(holder, Wrapped(name))
        return type(value).__name__, *(self._value(part, where) for part in parts)


def _has_tensors(module: nn.Module) -> bool:
    return any(True for found in (module.parameters(), module.buffers()) for _ in found)
