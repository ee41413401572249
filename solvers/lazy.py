"""Names of a package, and whole modules, that are imported when they are first used (PEP 562)."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any


def when_used(
    package: str, exports: Mapping[str, str], parts: Collection[str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The ``__getattr__`` and ``__dir__`` of a package whose names come from its modules.

    package: its ``__name__``.
    exports: {name: the module in the package that has it}.
    parts: the modules that are attributes too, and listed; None: any module of the package, unlisted, as it
        is an attribute where the package imports it at once.
    """

    def is_part(name: str) -> bool:
        if parts is not None:
            return name in parts
        own = name.isidentifier() and not name.startswith("_")
        return own and importlib.util.find_spec(f"{package}.{name}") is not None

    def get(name: str) -> Any:
        module = sys.modules[package]
        if name in exports:
            value = getattr(importlib.import_module(f".{exports[name]}", package), name)
            setattr(module, name, value)
            return value
        if is_part(name):
            return importlib.import_module(f".{name}", package)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *exports, *(parts or ())})

    return get, names


class Later:
    """A module that is imported when something of it is first asked for.

    For a module whose functions need torch and whose names do not: a list of them is printed at once.
    """

    def __init__(self, module: str):
        self._module = module

    def __reduce__(self) -> tuple[type[Later], tuple[str]]:
        return Later, (self._module,)  # of its own: what was asked for may not be pickled

    def __dir__(self) -> list[str]:
        return dir(importlib.import_module(self._module))

    def __getattr__(self, name: str) -> Any:
        if name == "_module":  # of an object not made yet
            raise AttributeError(name)
        value = getattr(importlib.import_module(self._module), name)
        setattr(self, name, value)  # the next time it is an ordinary attribute
        return value
