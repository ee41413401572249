"""Attempts of a compiled solve as a CUDA graph: one attempt is compiled, and captured n times over."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..errors import first_line
from .graphs import CAPTURES, GraphLoop, Turns
from .programs import Bounds, Form, Programs, Rows, State, several_program


class Refused(Exception):
    """A program made no attempt: it could not be compiled, or its owner has changed."""


class Seen:
    """What a compiled graph was called with, the addresses, and how many tensors it returned."""

    def __init__(self) -> None:
        self.addresses: tuple[int, ...] = ()
        self.returned = 0

    def around(self, inner: Callable[..., Any]) -> Callable[..., Any]:
        """The graph, looked at."""

        def call(*given: Any) -> Any:
            self.addresses = tuple(x.data_ptr() for x in given if isinstance(x, Tensor))
            found = inner(*given)
            self.returned = sum(isinstance(x, Tensor) for x in found)
            return found

        return call


class Attempts:
    """The loop's body over one compiled attempt. The owner is not kept alive, nor are its programs.

    The state is (bounds, j, carry), and with rows a buffer [n, …] for each of what an attempt hands out.
    key: of the program.
    """

    def __init__(self, programs: Programs, key: Hashable, form: Form, calls: Any, owner: Any, bounds: Bounds):
        self.programs, self.owner = weakref.ref(programs), weakref.ref(owner)
        self.key, self.full, self.stacked = key, (key, programs.hooks), isinstance(form, Rows)
        self.form, self.make = form, functools.partial(several_program, form, calls, 1)
        leaves, self.spec = pytree.tree_flatten(bounds)
        self.inputs, self.seen = len(leaves), Seen()
        programs.around[self.full] = self.seen.around

    def first(self, state: State) -> State:
        """An attempt whose program looks at its owner."""
        programs = self.programs()
        assert programs is not None
        found = programs.run(self.key, self.make, *self._arguments(state))
        if found is None:
            raise Refused
        if self.seen.returned > len(found):
            raise RuntimeError("func keeps tensors, which a graph would not")
        return self._after(state, found)

    def body(self, state: State) -> State:
        """One attempt."""
        programs = self.programs()
        assert programs is not None
        program = programs.known[self.full]
        assert program is not None
        return self._after(state, program(*self._arguments(state)))

    def goes_on(self, state: State) -> Tensor:
        """As the form says."""
        return self.form.goes_on(state[self.inputs + 1 :])

    def reads(self) -> Hashable:
        """The memory that the program was given."""
        return self.seen.addresses

    def _arguments(self, state: State) -> tuple[Any, ...]:
        bounds = pytree.tree_unflatten(list(state[: self.inputs]), self.spec)
        carry = state[self.inputs + 1 :]
        return self.owner(), state[self.inputs], bounds, carry[:3] if self.stacked else carry

    def _after(self, state: State, found: Any) -> State:
        """With rows what was found is written at place j."""
        given, j = state[: self.inputs], state[self.inputs]
        if not self.stacked:
            return (*given, j + 1, *found)
        buffers = state[self.inputs + 4 :]
        for buffer, x in zip(buffers, found, strict=True):
            buffer.index_copy_(0, j, x)
        return (*given, j + 1, *(x[0] for x in found[:3]), *buffers)


def several(
    programs: Programs, key: tuple[Any, ...], form: Form, calls: Any, n: int, arguments: tuple[Any, ...]
) -> Any:
    """What `several_program` returns for n attempts in a row: by a graph, where the device has such and the
    attempt can be captured; else by a program in which they are written out."""
    owner, most = arguments[:2]
    place = ("graph", key, programs.hooks)
    if most.device.type in CAPTURES and programs.notes.get(place, place) is not None:
        try:
            return _by_graph(programs, place, form, calls, n, arguments)
        except Refused:
            return None
        except Exception as error:  # see `Programs.run`
            programs.notes[place] = None
            programs.say(
                f"compile=True, sync_every={n}: attempts of {type(owner).__name__} cannot be captured as a "
                f"{most.device.type} graph ({type(error).__name__}: {first_line(error)}); they are written "
                "out one after another in a compiled program, which takes longer to compile and to start."
            )
    return programs.run(key, functools.partial(several_program, form, calls, n), *arguments)


def _by_graph(
    programs: Programs, place: Hashable, form: Form, calls: Any, n: int, arguments: tuple[Any, ...]
) -> State:
    owner, most, bounds, state = arguments
    given = (*pytree.tree_leaves(bounds), most.new_zeros(1, dtype=torch.int64), *state)
    wanted = slice(len(given) - len(state), None)
    if isinstance(form, Rows):
        wanted = slice(len(given), None)
        given += tuple(_unwritten(x, n, *x.shape) for x in state)
        if form.with_stages:
            given += (_unwritten(state[1], n, form.n_stages, *state[1].shape),)
    loop = programs.notes.get(place)
    if loop is None:
        device = ("capture", most.device)
        if device not in programs.notes:
            programs.notes[device] = CAPTURES[most.device.type](most.device)
        one = Attempts(programs, ("captured", place), form, calls, owner, bounds)
        turns = Turns(one.goes_on, one.body, one.first, one.reads)
        loop = GraphLoop(turns, given, programs.notes[device], n=n, wanted=wanted)
        found = loop.advance(given)
        programs.notes[place] = loop
        return found
    return loop.advance(given)


def _unwritten(like: Tensor, *shape: int) -> Tensor:
    """NaN, which takes no memory."""
    return like.new_full((), torch.nan).expand(shape)
