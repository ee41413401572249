"""benchmarks/adjoints as a package of another name: it is not installed, and must not be found by path."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks" / "adjoints"
NAME = "adjoint_study_package"


def module(name: str) -> ModuleType:
    """One of its modules."""
    if NAME not in sys.modules:
        where = [str(FOLDER)]
        spec = importlib.util.spec_from_file_location(
            NAME, FOLDER / "__init__.py", submodule_search_locations=where
        )
        assert spec is not None
        assert spec.loader is not None
        sys.modules[NAME] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[NAME])
    return importlib.import_module(f"{NAME}.{name}")
