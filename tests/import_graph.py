"""Who imports whom in the library: between modules, and between rooms."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("solvers", "adjoint", "models", "train", "adamode")  # each may import those before it
LIBRARY = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))

Graph = Mapping[str, set[str]]


def module_name(path: Path) -> str:
    """The package that a file is imported as: train/data/card.py is adamode.train.data.card."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "adamode" else ("adamode", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """A layer's sub-package, or the module itself where it lies at the top of its layer."""
    parts = module.split(".")
    return ".".join(parts[: 3 if len(parts) > 1 and parts[1] in LAYERS else 2])


def imports_in(path: Path, tree: ast.AST, modules: Mapping[str, Path]) -> Iterator[str]:
    """The modules that a file imports anywhere: at the top, in functions, under TYPE_CHECKING.

    `from ..solvers import errors` imports the module errors; `from ..solvers import __doc__` the package.
    """
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = parts[: len(parts) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                whole = f"{module}.{alias.name}"
                yield whole if whole in modules else module


parsed = functools.cache(ast.parse)  # of a text: spoilt copies of the library differ in one file


def import_graph(sources: Mapping[Path, str]) -> dict[str, set[str]]:
    """Each module of the library and what of the library it imports. The bare package adamode, whose public
    names stand for all layers, is no arrow."""
    modules = {module_name(path): path for path in sources}
    graph = {}
    for name, path in modules.items():
        found = set(imports_in(path, parsed(sources[path]), modules)) & set(modules)
        graph[name] = found - {name, "adamode"}
    return graph


def room_graph(graph: Graph) -> dict[str, set[str]]:
    """The same between rooms."""
    rooms: dict[str, set[str]] = {room_of(module): set() for module in graph}
    for module, found in graph.items():
        rooms[room_of(module)] |= {room_of(other) for other in found} - {room_of(module)}
    return rooms


def circles(graph: Graph) -> list[str]:
    """A circle of imports, a → b → a, for each module from which one can be reached."""
    found, none_ahead = [], set[str]()

    def walk(node: str, way: list[str]) -> bool:
        if node in way:
            found.append(" → ".join([*way[way.index(node) :], node]))
            return True
        if node in none_ahead:
            return False
        if any(walk(other, [*way, node]) for other in sorted(graph[node])):
            return True
        none_ahead.add(node)
        return False

    for node in sorted(graph):
        walk(node, [])
    return found
