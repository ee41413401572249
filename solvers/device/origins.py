"""Whose a piece of code is: the user's, which is compared, or a library's, which has a version.

Ours counts as a library whose version is the bytes of its sources, and so does all of site-packages but
torch.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import sys
import sysconfig
import types
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .plain import Incomparable

USER = "user"
OWN = "own"
_ROOT = Path(__file__).resolve().parents[2]
_LAYERS = ("solvers", "adjoint", "models")
_PATHS = {name: os.path.realpath(path) for name, path in sysconfig.get_paths().items()}
_SITE = tuple({_PATHS[name] + os.sep for name in ("purelib", "platlib")})
_STANDARD = tuple({_PATHS[name] + os.sep for name in ("stdlib", "platstdlib")})
_TORCH = os.path.realpath(os.path.dirname(torch.__file__)) + os.sep
# What of the standard library gives the same for the same arguments; time, random, os, … do not.
PURE = frozenset(
    """__future__ _collections_abc abc builtins cmath collections contextlib copy dataclasses enum fractions
    functools itertools _functools _operator math numbers operator re string types typing warnings
    """.split()  # noqa: SIM905
)


@functools.lru_cache(maxsize=4096)
def owner_of_file(path: str) -> str:
    """Whose a source file is: USER, OWN, "torch", "standard", or a folder or file in site-packages."""
    if path.startswith("<frozen "):
        return "standard"
    if path.startswith("<"):  # a cell of a notebook, an exec
        return USER
    real = os.path.realpath(path)
    if real.startswith(_TORCH):
        return "torch"
    if any(real.startswith(str(_ROOT / layer) + os.sep) for layer in _LAYERS):
        return OWN
    for site in (*_SITE, *(s for s in _site_folders(real))):
        if real.startswith(site):
            return site + real[len(site) :].split(os.sep)[0]
    return "standard" if real.startswith(_STANDARD) else USER


def _site_folders(real: str) -> list[str]:
    """Folders of other environments that a path file leads to."""
    found = re.match(r".*?[/\\](?:site|dist)-packages[/\\]", real)
    return [found.group()] if found else []


def owner_of_module(name: str) -> str:
    """As `owner_of_file`, of a module by its name."""
    module = sys.modules.get(name)
    path = getattr(module, "__file__", None)
    if isinstance(path, str):
        return owner_of_file(path)
    if name.split(".")[0] in ("torch", "torch_C"):
        return "torch"
    return "standard" if name.split(".")[0] in sys.stdlib_module_names else USER


def owner_of_class(cls: type) -> str:
    """As `owner_of_file`; a class made at run time, which its name does not lead back to, is the user's."""
    there: Any = sys.modules.get(cls.__module__)
    for part in cls.__qualname__.split("."):
        there = getattr(there, "__dict__", {}).get(part)
    return owner_of_module(cls.__module__) if there is cls else USER


def owner_of_function(function: types.FunctionType) -> str:
    """As `owner_of_file`; what was made of a text, by ``dataclass`` say, is its module's."""
    path = function.__code__.co_filename
    generated = path.startswith("<") and not path.startswith("<frozen ")
    return owner_of_module(str(function.__module__)) if generated else owner_of_file(path)


class Sources(NamedTuple):
    """digest: of all .py files.  names: what stands behind a dot anywhere in them."""

    digest: str
    names: frozenset[str]


@functools.cache
def sources_of(owner: str) -> Sources:
    """Of OWN, or of a folder or file in site-packages; read once a process.

    Raises: Incomparable where there are no sources.
    """
    roots = [_ROOT / layer for layer in _LAYERS] if owner == OWN else [Path(owner)]
    files = sorted(f for root in roots for f in ([root] if root.is_file() else root.rglob("*.py")))
    if not files:
        raise Incomparable(f"the sources of {owner} cannot be read")
    total, names = hashlib.sha256(), set()
    for file in files:
        try:
            text = file.read_bytes()
        except OSError as error:
            raise Incomparable(f"the sources of {owner} cannot be read: {error}") from None
        total.update(f"{file.relative_to(roots[0].parent)} {len(text)}\n".encode())
        total.update(text)
        if owner == OWN:
            names.update(re.findall(rb"\.([A-Za-z_]\w*)", text))
    return Sources(total.hexdigest(), frozenset(name.decode() for name in names))


def version_of(owner: str) -> Any:
    """What stands for the code of a library in a fingerprint."""
    if owner == "torch":
        return "torch", str(torch.__version__), torch.version.git_version
    if owner == "standard":
        return "python", sys.version
    return os.path.basename(owner), sources_of(owner).digest


def must_be_pure(module: types.ModuleType, where: str) -> None:
    """Raises Incomparable for a module that has chance, or the time, say, or files.

    torch's own chance is an operation of the program; every other one would be a constant in it.
    """
    full = module.__name__
    name = full.split(".")[0]
    standard = owner_of_module(full) == "standard" and name not in PURE
    if standard or full.startswith("numpy.random"):
        raise Incomparable(f"{where} uses {name}, whose results no program can follow")
