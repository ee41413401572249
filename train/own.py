"""Functions of one's own by name, "package.module:function": a model's builder, or a field's."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from ..solvers.checks import check_call
from ..solvers.errors import ArgumentError, nearest
from .known import is_own as is_own

Maker = Callable[[int, int], Any]


def resolve(text: str, argument: str) -> Any:
    """What "package.module:name" names; the current folder is searched too, last.

    argument: of a setting, for the messages.
    Raises: ArgumentError for a text of another form, what cannot be imported, is not there or not callable.
    """
    module_name, _, name = text.partition(":")
    if not module_name or not name:
        raise ArgumentError(f"{argument}={text!r} must be package.module:function.")
    if "<" in name:
        raise ArgumentError(
            f"{argument}={text!r} is a function that was made inside another, so nothing can import it. Move "
            "it to the top of a module; or, from Python, load_run(folder, build=…)."
        )
    found: Any = _module(module_name, text, argument)
    for part in name.split("."):
        if not hasattr(found, part):
            known = [n for n in vars(found) if not n.startswith("_")]
            raise ArgumentError(
                f"{argument}={text!r}: {module_name} was imported and has no {part!r}: {nearest(part, known)}"
            )
        found = getattr(found, part)
    if not callable(found):
        raise ArgumentError(
            f"{argument}={text!r} is a {type(found).__name__}, which cannot be called; name a function or "
            "a class."
        )
    return found


def _module(name: str, text: str, argument: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # last, so that it hides nothing; what is imported later may lie there too
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever the user's own module raises
        raise ArgumentError(
            f"{argument}={text!r}: {name} cannot be imported ({type(error).__name__}: {error}). Call from "
            "the folder that holds it, or put that folder into PYTHONPATH."
        ) from error


def name_of(function: Callable[..., Any]) -> str:
    """The text that `resolve` makes this function of, as far as it can: one made inside another is told so.

    A function of the program that runs is named by its file.
    """
    inner = getattr(function, "func", None)  # a partial has no name of its own
    named = function if hasattr(function, "__qualname__") else inner or type(function)
    module = str(getattr(named, "__module__", "") or "__main__")
    if module == "__main__":
        main = sys.modules["__main__"]
        spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        module = spec.name if spec is not None else Path(file).stem if file else module
    name = str(getattr(named, "__qualname__", type(function).__qualname__))
    return f"{module}:{name if named is function else f'<{name}>'}"


def built(text: str, config: Any, argument: str = "model") -> nn.Module:
    """What a builder of one's own makes of a configuration. Raises: ArgumentError, also for no module."""
    return made_by(resolve(text, argument), config, f"{argument}={text!r}")


def made_by(build: Callable[[Any], Any], config: Any, what: str) -> nn.Module:
    """What a builder makes of a configuration that does not name it: it may build one of ours.

    what: the builder, for the message. Raises: ArgumentError where it is no module.
    """
    check_call(build, what, "build(config)", objects=True)
    plain = dataclasses.replace(config, build="") if config.build else config
    return checked_module(build(plain), what)


def checked_module(found: object, what: str) -> nn.Module:
    """``found``; ArgumentError unless it is an `nn.Module`."""
    if not isinstance(found, nn.Module):
        raise ArgumentError(
            f"{what} returned a {type(found).__name__}; a builder takes the configuration and returns an "
            "nn.Module, from a batch of inputs to its outputs."
        )
    return found


def own_field(text: str) -> Maker:
    """Makes the field that "package.module:name" names, from the channels that it sees and gives.

    The name's first argument called t or time: the function is f(t, h) itself, and learns nothing. Else it is
    called, with as many of (channels in, channels out) as it needs, and returns a module f(t, h).
    Raises: ArgumentError, as `resolve`.
    """
    found = resolve(text, "field")
    if isinstance(found, nn.Module) or _takes_time(found):
        return lambda channels_in, channels_out: found

    def make(channels_in: int, channels_out: int) -> Any:
        needed = _needed(found)
        if needed > 2:
            raise ArgumentError(
                f"field={text!r} needs {needed} arguments; it is called with at most two, the channels that "
                "it sees and those that it gives, or is f(t, h) itself, with a first argument called t."
            )
        made = found(*(channels_in, channels_out)[:needed])
        if not isinstance(made, nn.Module):
            raise ArgumentError(
                f"field={text!r} returned a {type(made).__name__}; it must return an nn.Module f(t, h), or "
                "be f(t, h) itself, with a first argument called t."
            )
        return made

    return make


def _takes_time(function: Any) -> bool:
    names = list(_parameters(function))
    return bool(names) and names[0] in ("t", "time")


def _needed(function: Any) -> int:
    """How many arguments a function cannot do without."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds and p.default is p.empty for p in _parameters(function).values())


def _parameters(function: Any) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # written in C
        return {}
