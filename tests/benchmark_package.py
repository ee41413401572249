"""A package in benchmarks/ under a name of its own: it is not installed, and must not be found by path."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


def benchmark_module(package: str, name: str) -> ModuleType:
    """benchmarks/PACKAGE/NAME.py."""
    folder, alias = FOLDER / package, f"{package}_study"
    if alias not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            alias, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        assert spec.loader is not None
        sys.modules[alias] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[alias])
    return importlib.import_module(f"{alias}.{name}")
