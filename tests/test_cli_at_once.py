"""What a command refuses, or prints without computing, needs no torch."""

import json
import subprocess
import sys

import pytest

import adamode
import adamode.inspect.known
import adamode.known
import adamode.models.known
import adamode.train.known
from adamode.inspect.adjoint import GRADIENTS
from adamode.inspect.catalogue import PROBLEMS
from adamode.models import registry
from adamode.models.denominators import _KINDS as DENOMINATORS
from adamode.models.dynamics.adamnode import FORMS
from adamode.models.presets import BY_TASK
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
PRINTED += [["runs", "--output-dir", "there", "--no-picture", *more] for more in ([], ["b"], ["--json", "-"])]
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
def place(tmp_path_factory):
    """A folder with one of two runs, as training leaves their settings and metrics."""
    place = tmp_path_factory.mktemp("place")
    row = {"epoch": 1, "train_loss": 1.0, "val_loss": 0.5, "val_accuracy": 0.75, "seconds": 2.0}
    row |= {"train_accuracy": 0.5, "nfe_forward": 20.0, "nfe_backward": 22.0}
    final = {"final": True, "test_loss": 0.5, "test_accuracy": 0.7, "parameters": 3}
    final |= {"efficacy_forward": 0.04, "efficacy_backward": 0.03}
    for name, lines in {"a": [row], "b": [row, final]}.items():
        run = place / "there" / name
        run.mkdir(parents=True)
        settings = {"model": "node", "epochs": 2, "seed": len(lines), "name": name, "versions": {}}
        (run / "config.json").write_text(json.dumps(settings))
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return place


@pytest.fixture(scope="module")
def told(place):
    done = subprocess.run(
        [sys.executable, "-c", CALLS, json.dumps([*PRINTED, *REFUSED])],
        cwd=place,
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


def test_the_list_of_runs_is_whole(told):
    _, output, _ = told["runs --output-dir there --no-picture"]
    lines = {line.split()[0]: line.split() for line in output.splitlines() if line[:2] in ("a ", "b ")}
    assert output.splitlines()[2].split()[:5] == ["a", "unfinished", "1/2", "75.00", "%"]
    assert output.splitlines()[3].split()[:7] == ["b", "finished", "1/2", "70.00", "%", "75.00", "%"]
    assert lines["b"] == ["b", "2"]  # the settings that differ: a run's name decides no number
    assert "seed" in output
    _, output, _ = told["runs --output-dir there --no-picture --json -"]
    assert [run["config"]["seed"] for run in json.loads(output)["runs"]] == [1, 2]


def test_a_picture_of_runs_needs_no_torch_either(place):
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from adamode.cli.app import app\n"
        "done = CliRunner().invoke(app, ['runs', '--output-dir', 'there', '--picture', 'runs.png'])\n"
        "assert done.exit_code == 0, done.output\n"
        "assert not {'torch', 'scipy', 'sklearn'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=place, check=True)
    assert (place / "runs.png").read_bytes().startswith(b"\x89PNG")


def test_the_names_are_those_of_what_they_name():
    known, train, program = adamode.models.known, adamode.train.known, adamode.known
    assert tuple(registry.BLOCKS) == known.MODELS
    assert tuple(BY_TASK) == known.TASKS
    assert tuple(DENOMINATORS) == known.DENOMINATORS
    assert tuple(SATURATIONS) == known.SATURATIONS
    assert tuple(data.DATASETS) == train.DATASETS
    assert tuple(sorted(data.OWN)) == tuple(sorted(train.OWN))
    assert program.FORMS == FORMS
    assert tuple(CHOICES) == program.GRADIENTS
    assert tuple(GRADIENTS) == adamode.inspect.known.WALKS_BACK
    assert tuple(PROBLEMS) == adamode.inspect.known.PROBLEMS


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


FIRST_LINES = """
import json, sys
import torch
with_torch = set(sys.modules)
from typer.testing import CliRunner
from adamode.cli.app import app
import adamode.train.trainer
told = []
def say(text, **_):
    more = set(sys.modules) - with_torch
    slow = {"scipy", "sklearn", "matplotlib", "torchvision", "torch._dynamo"} & more
    told.append((text.split()[0], sorted(slow)))
    if text.startswith("data"):
        raise KeyboardInterrupt
adamode.train.trainer.say = say
CliRunner().invoke(app, ["train"])
print(json.dumps(told))
"""


def test_training_says_what_it_trains_on_before_it_imports_more_than_torch(tmp_path):
    """The optimiser brings torch's compiler; scikit-learn and torchvision take as long as torch."""
    done = subprocess.run(
        [sys.executable, "-c", FIRST_LINES], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [["run", []], ["data", []]]
