"""What a type checker and an editor see of the public face is what there is at run time."""

import ast
import dataclasses
import importlib.machinery
import importlib.util
import subprocess
import sys
import typing
from pathlib import Path

import pytest
import torch
from import_graph import LIBRARY, module_name

import adamode
from adamode.adjoint import arguments as request
from adamode.models.denominators import DENOMINATORS, DenominatorName
from adamode.solvers.step.controller import Choices

ROOT = Path(__file__).resolve().parent.parent
FACE = ROOT / "adamode" / "__init__.py"


def loaded(path, name):
    loader = importlib.machinery.SourceFileLoader(name, str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


def under(tree, test):
    """The statements under `if <test>:` at the top of a module."""
    return [node for top in tree.body if isinstance(top, ast.If) and ast.unparse(top.test) == test
            for node in top.body]  # fmt: skip


def static_exports(tree):
    """Names that a checker sees, {name: module}, and sub-packages."""
    found, packages = {}, set()
    for node in under(tree, "TYPE_CHECKING"):
        assert isinstance(node, ast.ImportFrom)
        assert node.level == 1
        for alias in node.names:
            if node.module is None:
                assert alias.asname == alias.name, f"{alias.name} is not re-exported without `as`"
                packages.add(alias.name)
            else:
                found[alias.name] = node.module
    return found, packages


def test_a_checker_sees_the_names_that_are_loaded_when_first_used():
    names, packages = static_exports(ast.parse(FACE.read_text(encoding="utf-8")))
    assert names == adamode._EXPORTS
    assert sorted(names) == adamode.__all__
    assert packages == set(adamode._PACKAGES)
    for name in (*names, *packages):
        assert getattr(adamode, name) is not None
        assert name in dir(adamode)


def test_the_list_of_names_is_written_out_since_a_checker_computes_none():
    lists = [node for node in ast.parse(FACE.read_text(encoding="utf-8")).body
             if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"]  # fmt: skip
    assert [ast.literal_eval(node.value) for node in lists] == [adamode.__all__]


def lookups(nodes):
    """How often `__getattr__` is bound among these nodes: defined, or assigned."""
    found = [n.name for n in nodes if isinstance(n, ast.FunctionDef)]
    found += [n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    return found.count("__getattr__")


LAZY = [path for path in LIBRARY if path.name == "__init__.py" and "when_used" in path.read_text("utf-8")]


@pytest.mark.parametrize("face", LAZY, ids=module_name)
def test_no_checker_sees_the_lazy_lookup_which_would_make_every_name_an_any(face):
    tree = ast.parse(face.read_text(encoding="utf-8"))
    hidden = under(tree, "not TYPE_CHECKING")
    hidden += [n for top in tree.body if isinstance(top, ast.If) and ast.unparse(top.test) == "TYPE_CHECKING"
               for n in top.orelse]  # fmt: skip
    assert lookups([n for top in hidden for n in ast.walk(top)]) == lookups([*ast.walk(tree)]) == 1


def signatures(file, name):
    """{argument: (annotation, default)} of the overloads and of the function itself, the last."""
    found = []
    for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            given = [*node.args.args, *node.args.kwonlyargs]
            values = [None] * len(node.args.args) + node.args.kw_defaults
            found.append(
                {
                    a.arg: (ast.unparse(a.annotation), None if v is None else ast.unparse(v))
                    for a, v in zip(given, values, strict=True)
                }
            )
    return found


@pytest.mark.parametrize(
    ("file", "name", "differ"),
    [
        ("adjoint/solve.py", "solve", {"stepping", "dt0", "compact"}),
        ("adjoint/torchdiffeq/odeint.py", "odeint", {"event_fn"}),
        ("adjoint/torchdiffeq/odeint.py", "odeint_adjoint", {"event_fn"}),
    ],
)
def test_the_signatures_of_one_function_are_alike_but_for_what_tells_them_apart(file, name, differ):
    *overloads, own = signatures(file, name)
    assert len(overloads) == 2
    for one in overloads:
        assert list(one) == list(own)
        assert {argument for argument in own if one[argument] != own[argument]} <= differ


def test_every_choice_that_a_checker_knows_is_one_that_is_taken():
    y0, t = torch.ones(2, 1), torch.tensor([0.0, 0.1])
    for name, kind in (("stepping", request.Stepping), ("save", request.Save), ("norm", request.NormName)):
        for choice in typing.get_args(kind):
            adamode.solve(lambda t, y: -y, y0, t, **{name: choice})
    assert typing.get_args(DenominatorName) == DENOMINATORS
    assert set(Choices.__annotations__) == {field.name for field in dataclasses.fields(adamode.PID)}
    for field, made in (("keep", adamode.Discrete), ("norm", adamode.Backsolve)):
        for choice in typing.get_args(typing.get_type_hints(made)[field]):
            assert getattr(made(**{field: choice}), field) == choice


def test_what_a_users_file_says_is_so_at_run_time():
    user = loaded(ROOT / "tests" / "typed" / "right.py", "right")
    assert user.end_of(1e-6, None).shape == (2,)
    steps, status, numbers = user.shared()
    assert (type(steps), status) == (int, "SUCCESS")
    assert all(isinstance(number, float) for number in numbers)
    assert user.per_sample()[0] > 0
    assert user.pytree().shape == (3, 2)
    assert user.stiff().shape == (2,)
    for adjoint in (True, False):
        assert user.torchdiffeq_face(adjoint).shape == (3, 2)
    assert user.blocks(lambda t, h: -h).shape == (3, 2)
    assert user.failing() is not None
    assert user.settings(2).config.epochs == 2


def test_a_mistake_that_no_checker_names_and_an_error_elsewhere_are_told():
    types = loaded(ROOT / ".ci" / "types", "types_of_the_face")
    source = (ROOT / "tests" / "typed" / "wrong.py").read_text(encoding="utf-8").splitlines()
    planted = [n for n, line in enumerate(source, 1) if line.endswith("# wrong")]
    assert len(planted) > 50
    lines = [f"wrong.py:{n}: error: as planted  [misc]" for n in planted]
    assert types.faults(lines) == []
    (told,) = types.faults(lines[1:])
    assert told.startswith(f"wrong.py:{planted[0]}: not named: adamode.no_such_name")
    elsewhere = "adamode/solvers/march/host.py:7: error: Incompatible types  [assignment]"
    unplanted = f"wrong.py:{planted[0] - 1}:3 - error: as pyright has it"
    assert types.faults([*lines, elsewhere, unplanted]) == [elsewhere, unplanted]


def checked_by(checker):
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed; .ci/run runs mypy (pip install -e '.[dev]')")
    there = subprocess.run([sys.executable, "-m", checker, "--version"], capture_output=True, check=False)
    if there.returncode:
        pytest.skip(f"{checker} does not start here: pyright fetches a Node when first used")
    command = [sys.executable, str(ROOT / ".ci" / "types"), "--checker", checker]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_checkers_pass_the_package_and_a_users_file_and_name_every_planted_mistake(checker):
    result = checked_by(checker)
    assert (result.stdout.strip(), result.returncode) == ("types: nothing wrong", 0), (
        result.stdout + result.stderr
    )
