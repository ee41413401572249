"""The benchmarks under a name of their own: they are not installed, and must not be found by path."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


ALIAS = "benchmarks_study"


def benchmark_module(package: str, name: str) -> ModuleType:
    """benchmarks/PACKAGE/NAME.py."""
    if ALIAS not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            ALIAS, FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
        )
        assert spec is not None
        assert spec.loader is not None
        sys.modules[ALIAS] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[ALIAS])
    return importlib.import_module(".".join(filter(None, (ALIAS, package, name))))
