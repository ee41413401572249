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
_SILENT = ("CACHE", "EXTENDED_ARG", "NOP", "RESUME")


class Reading(NamedTuple):
    """What one code object, its nested ones included, says and names.

    text: the instructions with their constants, to be compared.
    reads: global names that are read.
    names: names of attributes, and constants that could be names of some.
    imports: (module, level) of import statements.
    writes: the global, the attribute or the outer variable that is written, one of each.
    """

    text: tuple[Any, ...]
    reads: frozenset[str]
    names: frozenset[str]
    imports: frozenset[tuple[str, int]]
    writes: tuple[str, ...]


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
    before: list[Any] = [0, 0]
    for step in dis.get_instructions(code):
        if step.opname in _SILENT:
            continue
        value = step.argval
        if isinstance(value, Code):
            inner = read_code(value)
            text.append((step.opname, inner.text))
            reads |= inner.reads
            names |= inner.names
            imports |= inner.imports
            writes += [x for x in inner.writes if x not in code.co_cellvars + code.co_varnames]
        elif step.opcode in dis.hasconst:
            text.append((step.opname, described(value)))
            names.update(possible_names(value))
        else:
            text.append((step.opname, step.arg))
        if step.opname in _READS:
            reads.add(value)
        elif step.opname == "IMPORT_NAME":
            imports.add((value, before[-2]))
        elif step.opcode in dis.hasname:
            names.add(value)
        if step.opname in _WRITES or (step.opname in _CELL_WRITES and value in code.co_freevars):
            writes.append(value)
        before = [before[-1], value]
    about = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags, code.co_name)
    tables = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    caught = getattr(code, "co_exceptiontable", b"")
    whole = ("code", about, tables, described(caught), tuple(text))
    return Reading(whole, frozenset(reads), frozenset(names), frozenset(imports), tuple(writes))


def possible_names(value: Any) -> Iterator[str]:
    """Texts in a constant that could be names, as ``getattr`` takes them."""
    if isinstance(value, str):
        if value.isidentifier():
            yield value
    elif isinstance(value, (tuple, list, set, frozenset, dict)):
        for part in (*value, *value.values()) if isinstance(value, dict) else value:
            yield from possible_names(part)
