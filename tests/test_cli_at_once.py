"""What a command refuses, or prints without computing, needs no torch."""

import json
import subprocess
import sys

import pytest

import adamode
import adamode.known
import adamode.models.known
import adamode.train.known
from adamode.inspect.adjoint import GRADIENTS
from adamode.inspect.catalogue import PROBLEMS
from adamode.models import registry
from adamode.models.denominators import _KINDS as DENOMINATORS
from adamode.models.dynamics.adamnode import FORMS
from adamode.models.presets import TASKS
from adamode.models.saturations import _KINDS as SATURATIONS
from adamode.train import data
from adamode.verify.models import CHOICES

COMMANDS = (
    *("train", "evaluate", "predict", "export", "runs", "sweep", "models", "data", "verify", "inspect"),
    *("reproduce", "cache", "cite"),
)
PRINTED = [["--help"], ["--version"], *([command, "--help"] for command in COMMANDS)]
PRINTED += [["cite", "dopri5"], ["cite", "--list"], ["cite", "--format", "text"]]
PRINTED += [["inspect", "--list"], ["data"], ["data", "--json", "-"]]
REFUSED = [
    *(["train", f"--{name}", "nobody"] for name in ("model", "dataset", "method", "schedule", "gradient")),
    *(["train", f"--{name}", "nobody"] for name in ("block", "stepping", "denominator", "amp", "dtype")),
    *(["train", *wrong] for wrong in (("--epochs", "0"), ("--lr", "-1"), ("--seed", "-1"))),
    ["sweep", "--models", "node,nobody"],
    ["sweep", "--vary", "nobody=1"],
    ["sweep", "--vary", "method=nobody"],
    ["models", "--model", "nobody"],
    ["models", "--task", "nobody"],
    ["data", "nobody"],
    ["data", "--download"],
    *(["verify", f"--{name}", "nobody"] for name in ("model", "denominator", "activation", "form")),
    *(["verify", f"--{name}", "nobody"] for name in ("gradient", "suite")),
    ["inspect", "nobody"],
    ["inspect", "--method", "nobody"],
    ["inspect", "--dtype", "nobody"],
    ["inspect", "nobody", "--adjoint"],
    ["inspect", "node"],
    ["inspect", "node", "--adjoint", "--gradient", "nobody"],
    ["inspect", "adamnode", "--adjoint", "--denominator", "nobody"],
    ["reproduce", "nobody"],
    ["reproduce", "fig1", "--scale", "nobody"],
    ["evaluate", "nobody"],
    ["predict", "nobody", "picture.png"],
    ["export", "nobody"],
    ["export", "nobody", "--format", "nobody"],
    ["cite", "nobody"],
    ["cite", "--format", "nobody"],
    ["runs"],
    ["runs", "--output-dir", ".", "nobody"],
    ["cite", "nobody"],
    ["cite", "--format", "nobody"],
    ["nobody"],
]
CALLS = """
import json, sys
from typer.testing import CliRunner
from adamode.cli.app import app
runner, told = CliRunner(), []
for arguments in json.loads(sys.argv[1]):
    found = runner.invoke(app, arguments)
    slow = sorted({"torch", "numpy", "scipy", "sklearn", "matplotlib"} & set(sys.modules))
    told.append((found.exit_code, found.output, slow))
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    done = subprocess.run(
        [sys.executable, "-c", CALLS, json.dumps([*PRINTED, *REFUSED])],
        cwd=tmp_path_factory.mktemp("empty"),
        capture_output=True,
        text=True,
        check=True,
    )
    calls = [" ".join(arguments) for arguments in (*PRINTED, *REFUSED)]
    return dict(zip(calls, json.loads(done.stdout), strict=True))


def test_nothing_that_is_printed_or_refused_imports_torch(told):
    assert {call: slow for call, (_, _, slow) in told.items() if slow} == {}


def test_each_is_printed_or_refused(told):
    statuses = {call: status for call, (status, _, _) in told.items()}
    assert statuses == {
        **{" ".join(arguments): 0 for arguments in PRINTED},
        **{" ".join(arguments): 2 for arguments in REFUSED},
    }


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_what_is_refused_is_said(arguments, told):
    _, output, _ = told[" ".join(arguments)]
    assert any(word.split(",")[-1].split("=")[0] in output for word in arguments[1:] or arguments) or (
        "is not a folder" in output
    )
    assert "Traceback" not in output


def test_the_names_are_those_of_what_they_name():
    known, train, program = adamode.models.known, adamode.train.known, adamode.known
    assert tuple(registry.BLOCKS) == known.MODELS
    assert tuple(TASKS) == known.TASKS
    assert tuple(DENOMINATORS) == known.DENOMINATORS
    assert tuple(SATURATIONS) == known.SATURATIONS
    assert tuple(data.DATASETS) == train.DATASETS
    assert tuple(sorted(data.OWN)) == tuple(sorted(train.OWN))
    assert program.FORMS == FORMS
    assert tuple(CHOICES) == program.GRADIENTS
    assert tuple(GRADIENTS) == program.WALKS_BACK
    assert tuple(PROBLEMS) == program.PROBLEMS


@pytest.mark.parametrize("name", ["inspect", "reproduce", "verify", "models", "train", "solvers", "adjoint"])
def test_every_part_is_an_attribute_and_none_is_imported_unasked(name):
    code = (
        "import sys, adamode\n"
        "assert 'torch' not in sys.modules\n"
        f"assert adamode.{name}.__name__ == 'adamode.{name}'\n"
        f"assert {name!r} in dir(adamode)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_modules_of_a_part_are_attributes_too():
    code = (
        "import adamode\n"
        "adamode.inspect.problem.Problem, adamode.reproduce.catalogue.FIGURES, adamode.models.fields.Scaled\n"
        "for part in (adamode, adamode.inspect, adamode.models):\n"
        "    assert not hasattr(part, 'nobody')\n"
        "    assert not hasattr(part, '__wrapped__')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
