"""What a function's code says, read off its bytecode: equal for two codes that compute alike.

Comments, docstrings, annotations of variables, file names and line numbers are left out.
"""

from __future__ import annotations

import dis
import functools
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

from .plain import described

Code = types.CodeType

_READS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_WRITES = ("STORE_GLOBAL", "DELETE_GLOBAL", "STORE_ATTR", "DELETE_ATTR")
_CELL_WRITES = ("STORE_DEREF", "DELETE_DEREF")
_CHANGERS = frozenset(  # methods of containers; of tensors none
    "append appendleft extend insert remove discard pop popleft popitem update setdefault clear".split()  # noqa: SIM905
)
_OUTSIDE = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_ATTR")
_SILENT = ("CACHE", "EXTENDED_ARG", "NOP", "RESUME")


class Reading(NamedTuple):
    """What one code object, its nested ones included, says and names.

    text: the instructions with their constants, to be compared.
    reads: global names that are read.
    names: names of attributes, and constants that could be names of some.
    imports: (module, level) of import statements.
    writes: globals and attributes that are written, containers of such a name that are changed.
    outer: variables of the function around it that are written.
    stores_items: whether x[i] = … is in it.
    """

    text: tuple[Any, ...]
    reads: frozenset[str]
    names: frozenset[str]
    imports: frozenset[tuple[str, int]]
    writes: tuple[str, ...]
    outer: tuple[str, ...]
    stores_items: bool


@functools.lru_cache(maxsize=4096)
def read_code(code: Code) -> Reading:
    """What the code says. Codes are compared by value, so an equal one is read once.

    Raises: Incomparable for a constant that cannot be described.
    """
    text: list[Any] = []
    reads: set[str] = set()
    names: set[str] = set()
    imports: set[tuple[str, int]] = set()
    writes: list[str] = []
    outer: list[str] = []
    stores_items = False
    before: list[tuple[str, Any]] = [("", 0), ("", 0)]
    for step in dis.get_instructions(code):
        if step.opname in _SILENT:
            continue
        name, value = step.opname, step.argval
        if name == "KW_NAMES":  # Python 3.11 and 3.12: a constant, which dis does not look up
            value = code.co_consts[step.arg or 0]
        if isinstance(value, Code):
            inner = read_code(value)
            text.append((name, inner.text))
            reads |= inner.reads
            names |= inner.names
            imports |= inner.imports
            writes += inner.writes
            outer += [x for x in inner.outer if x in code.co_freevars]
            stores_items |= inner.stores_items
        elif step.opcode in dis.hasconst:
            text.append((name, described(value)))
            names.update(possible_names(value))
        else:
            text.append((name, step.arg))
        if name in _READS:
            reads.add(value)
        elif name == "IMPORT_NAME":
            imports.add((value, before[-2][1]))
        elif step.opcode in dis.hasname:
            names.add(value)
        changed = step.opcode in dis.hasname and value in _CHANGERS and _is_outside(before[-1], code)
        if name in _WRITES or changed:
            writes.append(before[-1][1] if changed else value)
        if name in _CELL_WRITES and value in code.co_freevars:
            outer.append(value)
        stores_items |= name in ("STORE_SUBSCR", "DELETE_SUBSCR", "STORE_SLICE")
        before = [before[-1], (name, value)]
    about = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags, code.co_name)
    tables = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    caught = getattr(code, "co_exceptiontable", b"")
    whole = ("code", described((about, tables, caught)), tuple(text))
    return Reading(
        whole,
        frozenset(reads),
        frozenset(names),
        frozenset(imports),
        tuple(writes),
        tuple(outer),
        stores_items,
    )


def _is_outside(step: tuple[str, Any], code: Code) -> bool:
    """Whether an instruction puts a global, an attribute or a variable of a function outside on the stack."""
    name, value = step
    return name in _OUTSIDE and (name != "LOAD_DEREF" or value in code.co_freevars)


def possible_names(value: Any) -> Iterator[str]:
    """Texts in a constant that could be names, as ``getattr`` takes them."""
    if isinstance(value, str):
        if value.isidentifier():
            yield value
    elif isinstance(value, (tuple, list, set, frozenset, dict)):
        for part in (*value, *value.values()) if isinstance(value, dict) else value:
            yield from possible_names(part)
