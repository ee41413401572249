"""The rules of the house: who imports whom, how long things are, what is public and documented."""

from __future__ import annotations

import ast
import configparser
import functools
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from import_graph import LAYERS, LIBRARY, ROOT, circles, import_graph, module_name, room_graph

import adamode

TESTS = sorted((ROOT / "tests").rglob("*.py"))
MAX_FILE, MAX_FUNCTION = 400, 60
# train/ computes, adamode/ shows; solvers/ and adjoint/ need torch alone.
FOREIGN = {
    "solvers": {"matplotlib", "typer", "tqdm", "sklearn", "torchvision", "torchdiffeq"},
    "adjoint": {"matplotlib", "typer", "tqdm", "sklearn", "torchvision", "torchdiffeq"},
    "models": {"matplotlib", "typer", "tqdm", "sklearn", "torchvision", "torchdiffeq"},
    "train": {"matplotlib", "typer", "click", "torchdiffeq"},
    "adamode": {"torchdiffeq"},  # reproduce/machinery/theirs.py asks for it by name, as what is compared with
}


@functools.cache
def source(path):
    """A file's text and its syntax tree."""
    text = path.read_text(encoding="utf-8")
    return text, ast.parse(text)


def functions_of(tree):
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def offenders(rule, paths):
    """Everything that a rule (path, text, tree) → words finds wrong in the files, each behind its file."""
    return [f"{path.relative_to(ROOT)}: {said}" for path in paths for said in rule(path, *source(path))]


def imported_modules(path, tree):
    """Absolute names of all modules that a file imports, and the relative level of each."""
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module, node.level
            if node.module is None:  # from .. import models
                yield from ((f"{module}.{alias.name}", node.level) for alias in node.names)


def layer_of(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LAYERS else "adamode"


def arrows_broken(path, text, tree):
    here, broken = layer_of(module_name(path)), []
    for module, level in imported_modules(path, tree):
        if module.split(".")[0] == "adamode":
            if level == 0:
                broken.append(f"{module}: imports inside the project are relative")
            # `from .. import models` names the bare package too; its parts are looked at instead
            there = layer_of(module)
            if module != "adamode" and LAYERS.index(there) > LAYERS.index(here):
                broken.append(f"{module}: {here} must not know {there}")
        elif module.split(".")[0] in FOREIGN[here]:
            broken.append(f"{module}: not in {here}/")
    return broken


def test_imports_point_one_way():
    assert offenders(arrows_broken, LIBRARY) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("solvers/x.py", "from ..adjoint.solve import solve"),
        ("solvers/x.py", "from .. import models"),
        ("models/fields/x.py", "from ...train.config import TrainConfig"),
        ("train/x.py", "from ..plotting import draw_run"),
        ("train/x.py", "import matplotlib.pyplot as plt"),
        ("adjoint/x.py", "from adamode.solvers import step"),
    ],
)
def test_a_wrong_import_is_seen(file, line):
    assert arrows_broken(ROOT / file, line, ast.parse(line))


def circles_in(sources):
    """Circles between modules and between rooms."""
    graph = import_graph(sources)
    return sorted({*circles(graph), *circles(room_graph(graph))})


def test_imports_make_no_circle():
    assert circles_in({path: source(path)[0] for path in LIBRARY}) == []


@pytest.mark.parametrize(
    ("file", "line", "circle"),
    [
        # between rooms: each of the two modules knows another module of the other room
        (
            "solvers/methods/stability.py",
            "from ..march import output",
            "adamode.solvers.methods → adamode.solvers.march",
        ),
        # between modules of one room, wherever the import stands
        (
            "solvers/step/field.py",
            "def f():\n    from .clocks import ONE\n",
            "clocks → adamode.solvers.step.field",
        ),
        ("solvers/step/field.py", "if TYPE_CHECKING:\n    from . import clocks\n", "clocks"),
        ("adjoint/recording.py", "from .engine import problem", "adamode.adjoint.recording →"),
    ],
)
def test_a_circle_of_imports_is_seen(file, line, circle):
    sources = {path: source(path)[0] for path in LIBRARY}
    sources[ROOT / file] += line
    assert any(circle in found for found in circles_in(sources))


def test_the_bare_package_makes_no_circle():
    sources = {path: source(path)[0] for path in LIBRARY}
    sources[ROOT / "solvers" / "status.py"] += "from .. import __version__\n"
    assert circles_in(sources) == []


def too_long(path, text, tree):
    lines = len(text.splitlines())
    if lines > MAX_FILE:
        yield f"{lines} lines"
    for node in functions_of(tree):
        first = node.body[0]
        doc = 0 if ast.get_docstring(node) is None else first.end_lineno - first.lineno + 1
        lines = node.end_lineno - node.lineno + 1 - doc
        if lines > MAX_FUNCTION:
            yield f"{node.name} has {lines} lines"


def test_files_and_functions_stay_short():
    assert offenders(too_long, LIBRARY) == []


MAX_PARAMETERS = 7
# What users call with keywords: the command line's options, and functions with many defaults.
PUBLIC_FACES = {
    *("evaluate", "export", "inspect", "predict", "reproduce", "sweep", "verify"),
    *("odeint", "odeint_adjoint", "solve", "verify_models"),
}


def too_wide(path, text, tree):
    for node in functions_of(tree):
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        names = [a.arg for a in arguments if a.arg not in ("self", "cls")]
        if len(names) > MAX_PARAMETERS and node.name not in PUBLIC_FACES:
            yield f"{node.name} (line {node.lineno}) has {len(names)} parameters"


def test_functions_take_few_parameters():
    paths = [*LIBRARY, *sorted((ROOT / "benchmarks").rglob("*.py"))]
    assert offenders(too_wide, paths) == []


LEAST_DOCSTRING = 12
EQUATIONS = {"detest.py", "famous.py"}  # their docstrings are the equations, which `Problem.equation` reads


def says_nothing(path, text, tree):
    """Docstrings that are too short to say anything: leave a private one out, write a public one."""
    if path.name in EQUATIONS:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            doc = ast.get_docstring(node)
            if doc is not None and len(doc) < LEAST_DOCSTRING:
                yield f"{node.name} (line {node.lineno}): {doc!r}"


def test_docstrings_say_something():
    paths = [*LIBRARY, *sorted((ROOT / "benchmarks").rglob("*.py"))]
    assert offenders(says_nothing, paths) == []


def swallowed_and_starred(path, text, tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield f"bare except in line {node.lineno}"
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            yield f"star import in line {node.lineno}"


def test_no_bare_except_and_no_star_import():
    assert offenders(swallowed_and_starred, LIBRARY + TESTS) == []


def cut_by_hand(path, text, tree):
    """First lines of what an error says that `errors.first_line` has not cut: some errors say none."""
    for handler in ast.walk(tree):
        if isinstance(handler, ast.ExceptHandler) and handler.name is not None:
            lines = re.escape(f"str({handler.name})") + r"(\.strip\(\))?\.(splitlines|split|partition)\("
            if re.search(lines, ast.unparse(handler)):
                yield f"str({handler.name}) is cut below line {handler.lineno}: first_line({handler.name})"


def test_what_errors_say_is_cut_in_one_way():
    assert offenders(cut_by_hand, LIBRARY) == []


def untyped(path, text, tree):
    for node in functions_of(tree):
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        bare = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
        if node.returns is None and node.name != "__init__":
            bare.append("return")
        if bare:
            yield f"{node.name} (line {node.lineno}): {', '.join(bare)}"


def test_every_argument_and_result_in_the_library_has_a_type():
    assert offenders(untyped, LIBRARY) == []


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (too_long, "\n" * (MAX_FILE + 1)),
        (too_long, "def f():\n" + "    pass\n" * MAX_FUNCTION),
        (says_nothing, 'def f():\n    """The hook."""\n'),
        (too_wide, "class A:\n    def f(self, a, b, c, d, *, e, f, g, h): ...\n"),
        (swallowed_and_starred, "try:\n    f()\nexcept:\n    pass\n"),
        (swallowed_and_starred, "from math import *\n"),
        (cut_by_hand, "try:\n    f()\nexcept OSError as e:\n    say(str(e).strip().splitlines()[0])\n"),
        (untyped, "def f(x) -> None: ...\n"),
        (untyped, "class A:\n    async def f(self, *, x: int): ...\n"),
    ],
)
def test_an_offender_is_seen(rule, text):
    assert len(list(rule(ROOT / "solvers" / "x.py", text, ast.parse(text)))) == 1


def test_every_list_of_names_is_importable_and_the_public_one_sorted():
    for path in LIBRARY:
        if path.name == "__main__.py":
            continue
        module = importlib.import_module(module_name(path))
        names = getattr(module, "__all__", [])
        assert [name for name in names if not hasattr(module, name)] == [], module.__name__
        assert len(set(names)) == len(names), module.__name__
    assert adamode.__all__ == sorted(adamode.__all__)


def test_every_public_name_is_documented():
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    missing = [name for name in adamode.__all__ if not re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`", text)]
    assert missing == []
    undocumented = [name for name in adamode.__all__ if not getattr(adamode, name).__doc__]
    assert undocumented == []


def test_no_two_test_files_share_a_name():
    names = [path.name for path in TESTS if path.name not in ("__init__.py", "__main__.py")]  # of packages
    assert sorted(set(names)) == sorted(names)


def test_every_package_is_installed():
    """setup.cfg lists each folder with an __init__.py, or a plain install would lack it."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = set(setup["options"]["packages"].split())
    found = {module_name(path) for path in LIBRARY if path.name == "__init__.py"}
    assert listed == found


def test_one_version_is_written_in_two_places_alike():
    listed = re.search(r"^version = (.*)$", (ROOT / "setup.cfg").read_text(), re.MULTILINE)
    assert listed.group(1) == adamode.__version__


def test_no_file_says_work_to_be_done():
    words = re.compile("|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X")))
    assert offenders(lambda path, text, tree: words.findall(text), LIBRARY + TESTS) == []


@pytest.fixture(scope="module")
def plain_install(tmp_path_factory):
    """What a plain, not editable, install puts into site-packages, as a folder on the path."""
    site = tmp_path_factory.mktemp("site")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "adamode", site / "adamode", ignore=ignore)
    for layer in LAYERS[:-1]:
        shutil.copytree(ROOT / layer, site / "adamode" / layer, ignore=ignore)
    return site


# The finder of an editable install would hide the trap: it finds adamode.solvers from anywhere.
WITHOUT_FINDER = (
    "import runpy, sys\n"
    "sys.meta_path[:] = [f for f in sys.meta_path if 'ditable' not in getattr(f, '__name__', '')]\n"
)
PROGRAM = "sys.argv[0] = 'adamode'\nrunpy.run_module('adamode', run_name='__main__')\n"
WHERE = "import adamode.solvers.step.runge_kutta as m; print(m.__file__)\n"


def run_python(code, *arguments, cwd, site):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,  # against hanging; a busy machine is slow
    )


@pytest.mark.parametrize("in_root", [True, False], ids=["in the root", "elsewhere"])
def test_a_plain_install_works_in_the_root_and_elsewhere(plain_install, tmp_path, in_root):
    cwd = ROOT if in_root else tmp_path
    code = WITHOUT_FINDER + WHERE + PROGRAM
    result = run_python(code, "train", "--epochs", "0", cwd=cwd, site=plain_install)
    # In the root the folder there comes first on the path, and its neighbours with it.
    assert Path(result.stdout.strip()).is_relative_to(ROOT if in_root else plain_install)
    assert result.returncode == 2, result.stderr
    assert "epochs=0" in result.stderr


def test_the_trap_is_there_without_the_search_beside_the_folder(plain_install, tmp_path):
    """The control of the test above: the bare folder alone cannot be imported from."""
    shutil.copytree(ROOT / "adamode", tmp_path / "adamode")
    result = run_python(WITHOUT_FINDER + WHERE, cwd=tmp_path, site=plain_install)
    assert "No module named 'adamode.solvers'" in result.stderr


def test_pytest_and_torchrun_started_in_the_root_find_the_package(plain_install, tmp_path):
    collect = "sys.argv = ['pytest', '-q', '--collect-only', 'tests/test_tableaus.py']\n"
    pytest_module = WITHOUT_FINDER + collect + "runpy.run_module('pytest', run_name='__main__')\n"
    result = run_python(pytest_module, cwd=ROOT, site=plain_install)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "no tests" not in result.stdout
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "1", "-m", "adamode", "--version"]
    torchrun = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(plain_install), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,  # against hanging; a busy machine is slow
    )
    assert torchrun.returncode == 0, torchrun.stderr
    assert adamode.__version__ in torchrun.stdout
