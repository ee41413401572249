"""Which path a dynamics takes, and that it is what the engine then does."""

import json
import re
import warnings

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from adamode import NODE, AdamodeWarning, models, solve
from adamode.cli.app import app
from adamode.models.dynamics import AdamODE, NeuralODE, SecondOrderODE
from adamode.models.explain import explain
from adamode.models.fields import MLP, Conv, Driven, Linear, Scaled
from adamode.models.fields.own import OwnField
from adamode.solvers.device.programs import Programs


class Own(nn.Module):
    """A module of a user's."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, t, h):
        return torch.tanh(self.layer(h))


def decay(t, h):
    return -h


def compiled(module):
    return torch.compile(module, backend="eager")


@pytest.mark.parametrize(
    ("dynamics", "names", "vjp", "last", "reason"),
    [
        (NeuralODE(MLP(2, (4,))), ("NeuralODE", "MLP"), "hand-written", False, ""),
        (NeuralODE(Conv(2, 4)), ("NeuralODE", "Conv"), "hand-written", True, ""),
        (SecondOrderODE(MLP(4, (4,), out_dim=2)), ("SecondOrderODE", "MLP"), "hand-written", False, ""),
        (
            NeuralODE(Driven(Linear(3, out_dim=2))),
            ("NeuralODE", "Driven(Linear)"),
            "hand-written",
            False,
            "input",
        ),
        (NeuralODE(Own()), ("NeuralODE", "Own"), "autograd", False, ""),
        (NeuralODE(decay), ("NeuralODE", "decay"), "autograd", False, "autograd differentiates decay"),
        (
            AdamODE(compiled(Own()), alpha=0.1, beta=0.1, eps=1e-3),
            ("AdamODE", "torch.compile(Own)"),
            "autograd",
            False,
            "",  # its code becomes a part of the program
        ),
        (
            NeuralODE(compiled(MLP(2, (4,)))),  # its hand-written VJP is hidden by the wrapper
            ("NeuralODE", "torch.compile(MLP)"),
            "autograd",
            False,
            "",
        ),
    ],
)
def test_the_path_is_told_by_types(dynamics, names, vjp, last, reason):
    found = explain(dynamics)
    assert (found.dynamics, found.field) == names
    assert (found.vjp, found.channels_last) == (vjp, last)
    if reason:
        assert re.search(reason, found.not_compiled)
    else:
        assert found.not_compiled == ""


@pytest.mark.parametrize("make", [lambda: MLP(2, (3,)), Own, lambda: compiled(Own()), lambda: decay])
def test_what_is_said_of_compiling_is_what_solve_does(make, monkeypatch):
    monkeypatch.setattr("adamode.solvers.device.programs.BACKEND", "eager")  # whether it is captured is asked
    dynamics = NeuralODE(make()).double()
    y0, t = torch.ones(1, 3, 2, dtype=torch.float64, requires_grad=True), torch.tensor([0.0, 1.0])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AdamodeWarning)
        options = {"method": "bosh3", "rtol": 1e-2, "atol": 1e-2, "dt0": 0.5}
        solve(dynamics, y0, t.double(), compile=True, **options).y.sum().backward()
    programs = Programs.of(dynamics).known
    if explain(dynamics).not_compiled:
        assert all(program is None for program in programs.values())
        assert "cannot be compiled" in str(caught[0].message)
    else:
        assert programs
        assert None not in programs.values()
        assert not caught


def test_a_block_says_it_once_when_made_and_never_again():
    with pytest.warns(AdamodeWarning, match="compile=True does nothing here: .*autograd") as caught:
        block = models.NODE(decay, compile=True)
    assert len(caught) == 1
    assert caught[0].filename == __file__  # the line that made the block
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        block(torch.ones(3, 2, requires_grad=True)).sum().backward()


def test_every_registered_model_is_explained_as_it_is_built():
    result = CliRunner().invoke(app, ["models", "--explain", "--json", "-"])
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)
    assert [(row["task"], row["model"]) for row in rows] == [
        (task, model) for task in models.tasks() for model in models.names() if task in models.tasks(model)
    ]
    for row in rows:
        start = {"start": "learned"} if "start" in models.defaults(row["model"], row["task"]) else {}
        built = models.create(row["model"], row["task"], **start).block.dynamics
        assert row["dynamics"] == type(built).__name__
        assert row["vjp"] == "hand-written"
        assert row["channels_last"] is (row["task"] in ("digits", "mnist", "cifar10"))
        assert bool(row["not_compiled"]) is row["task"].startswith("silverbox")


def test_what_is_around_a_field_has_the_path_of_that_field():
    def own(t, h):
        return -h

    told = explain(NODE(Scaled(OwnField(own, 3, 3), scale=2.0)).dynamics)
    assert (told.field, told.vjp) == ("Scaled(own)", "autograd")
    assert "autograd differentiates own" in told.not_compiled
    told = explain(NODE(Scaled(OwnField(Own(), 2, 2))).dynamics)
    assert (told.field, told.vjp, told.not_compiled) == ("Scaled(Own)", "autograd", "")
    told = explain(NODE(Scaled(MLP(3, (4,)))).dynamics)
    assert (told.field, told.vjp, told.not_compiled) == ("Scaled(MLP)", "hand-written", "")


def test_the_page_names_the_path_of_the_chosen_model():
    arguments = ["models", "--explain", "--model", "sonode", "--task", "digits"]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "100"})
    assert result.exit_code == 0, result.stderr
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines == [
        "sonode on digits",
        "dynamics SecondOrderODE, VJP hand-written",
        "field Scaled(Conv), VJP hand-written (the fast path)",
        "state channels-last for images",
        "compile attempts and steps back become compiled programs, one for each batch size",
    ]
    driven = CliRunner().invoke(app, ["models", "--explain", "--model", "node", "--task", "silverbox"]).stdout
    assert "field     Driven(Linear), VJP hand-written" in driven
    assert "compile   does nothing: every batch" in driven


def test_one_model_alone_in_the_table():
    result = CliRunner().invoke(app, ["models", "--model", "node", "--task", "spiral"])
    assert [line.split()[:2] for line in result.stdout.splitlines()[1:]] == [["spiral", "node"]]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--model", "nodde"), "did you mean 'node'"),
        (("--explain", "--model", "nodde"), "did you mean 'node'"),
        (("--explain", "--task", "minst"), "did you mean 'mnist'"),
        (("--explain", "--match-parameters", "1000"), "--match-parameters 1000"),
    ],
)
def test_a_wrong_call_is_status_2_and_says_why(arguments, text):
    result = CliRunner().invoke(app, ["models", *arguments])
    assert result.exit_code == 2
    assert text in result.stderr


def test_the_help_has_a_line_for_it():
    shown = CliRunner().invoke(app, ["models", "--help"], env={"COLUMNS": "200"}).stdout
    assert "--explain" in shown
    assert "which path each model takes" in shown
