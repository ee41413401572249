"""A trained model as a torch.export program, and the fixed steps that stand in for its adaptive solve."""

import io
import itertools
import json
import math
import os
import re

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import adamode
from adamode import TrainConfig, Trainer
from adamode.cli.app import app
from adamode.models import create, defaults, names
from adamode.models.export import FixedSteps, with_fixed_steps
from adamode.solvers.errors import ArgumentError, ArgumentTypeError
from adamode.solvers.methods import METHODS
from adamode.train import export as train_export
from adamode.train.evaluation import LoadedRun, load_data_of, load_run
from adamode.train.export import choose_steps, traced

runner = CliRunner()
BLOCKS = names()
CURVED = {"hidden": 4, "activation": "tanh", "t": (0.0, 8.0)}  # so that few steps are not enough


def call(*arguments):
    return runner.invoke(app, [str(a) for a in arguments])


def plain(text):
    return re.sub(r"\s+", " ", re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", text))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run, and a copy of it whose checkpoint is cut off."""
    place = tmp_path_factory.mktemp("runs")
    settings = {"epochs": 1, "train_size": 60, "hidden": 2, "channels": 4, "batch_size": 30}
    Trainer(TrainConfig(output_dir=str(place), name="adam", **settings), quiet=True).fit()
    (place / "cut").mkdir()
    for name in ("config.json", "checkpoint.pt"):
        content = (place / "adam" / name).read_bytes()
        (place / "cut" / name).write_bytes(content[: len(content) // 2] if name.endswith("pt") else content)
    return place


@pytest.fixture(scope="module")
def exported(folder):
    files = {"--output": folder / "program.pt2", "--json": folder / "told.json"}
    result = call("export", folder / "adam", *itertools.chain(*files.items()))
    assert result.exit_code == 0, result.output
    return {**json.loads((folder / "told.json").read_text()), "text": result.stdout}


def test_the_program_gives_the_models_answers_for_batches_of_any_size(folder, exported):
    program = torch.export.load(folder / "program.pt2").module()
    run = load_run(folder / "adam")
    fixed = with_fixed_steps(run.model, exported["chosen"]["steps"])
    data = load_data_of(run)
    for size in (1, 5, 40):
        x = data.test.__getitems__(list(range(size)))[0]
        with torch.no_grad():
            got = program(x)
            assert torch.allclose(got, fixed(x), rtol=0, atol=1e-6)
            adaptive = run.model(x)
        assert got.shape == (size, 10)
        assert (got - adaptive).abs().max() < 3 * exported["chosen"]["bound"]
        assert got.abs().max() > 20 * exported["chosen"]["bound"]  # so that the line above can fail


def test_what_was_reached_is_reported_and_kept_in_the_file(folder, exported):
    chosen = exported["chosen"]
    assert chosen["evaluations"] == 6 * chosen["steps"]  # dopri5
    assert chosen["difference"] <= chosen["bound"]
    assert exported["reloaded"] < 1e-6
    assert 0 < exported["adaptive"] <= chosen["difference"]
    extra = {"adamode.json": ""}
    torch.export.load(folder / "program.pt2", extra_files=extra)
    kept = json.loads(extra["adamode.json"])
    assert (kept["model"], kept["method"], kept["input"]) == ("adamnode", "dopri5", ["batch", 1, 8, 8])
    assert {name: kept[name] for name in chosen} == chosen


@pytest.mark.slow
def test_a_number_of_steps_is_taken_as_given_and_the_file_lies_in_the_run(folder):
    result = call("export", "adam", "--steps", 1, "--output-dir", folder)
    assert result.exit_code == 0, result.output
    assert "steps 1 of dopri5, 6 evaluations of f" in plain(result.stdout)
    assert "(more --steps come nearer)" in result.stdout
    assert (folder / "adam" / "model.pt2").exists()


def test_a_number_of_steps_is_taken_as_given_and_measured(folder):
    run = load_run(folder / "adam")
    with torch.no_grad():
        chosen = choose_steps(run.model, load_data_of(run).val.__getitems__(list(range(20)))[0], steps=1)
    assert (chosen.steps, chosen.evaluations, chosen.samples, chosen.converged) == (1, 6, 20, False)
    assert chosen.difference > chosen.bound


def test_steps_and_differences_are_printed(exported):
    chosen, text = exported["chosen"], plain(exported["text"])
    assert f"steps {chosen['steps']} of dopri5" in text
    assert f"differs by {chosen['difference']:.3g} at most on {chosen['samples']} validation" in text
    assert "reloaded in batches of 1, 3, " in text


def test_a_failed_write_leaves_the_old_file_and_says_so(folder, exported, tmp_path, monkeypatch):
    (tmp_path / "old.pt2").write_text("old")

    def full(source, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(train_export, "traced", lambda *_: program)
    program = (folder / "program.pt2").read_bytes()
    result = call("export", folder / "adam", "--output", tmp_path / "old.pt2", "--quiet")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "No space left on device" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["old.pt2"]
    assert (tmp_path / "old.pt2").read_text() == "old"


def cheap_program():
    """Some program that is not the run's model."""
    return traced(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), torch.zeros(2, 1, 8, 8), {})


def test_a_program_that_reads_back_differently_is_not_written(folder, tmp_path, monkeypatch):
    program = cheap_program()
    monkeypatch.setattr(train_export, "traced", lambda *_: program)
    result = call("export", folder / "adam", "--output", tmp_path / "x.pt2")
    assert result.exit_code == 2
    assert "read back, differs" in plain(result.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "is not the folder of a run"),
        (["cut"], "cannot be read"),
        (["adam", "--output", "no/such/folder/x.pt2"], "in a folder that exists"),
        (["adam", "--output", "."], "must be a file"),
        (["adam", "--steps", "0"], "--steps"),
        (["adam", "--weights", "first"], "weights='first'"),
    ],
)
def test_what_cannot_be_exported_is_refused(folder, arguments, words):
    result = call("export", *arguments, "--output-dir", folder)
    assert result.exit_code == 2, result.output
    assert words in plain(result.stderr)


class Growth(nn.Module):
    """z' = cos(t) z(1 + sin²z): nonlinear and non-autonomous."""

    def forward(self, t, z):
        return torch.cos(t) * z * (1 + torch.sin(z) ** 2), None


@pytest.mark.parametrize("method", METHODS)
def test_equal_steps_have_the_order_of_their_method(method):
    z0 = torch.tensor([[0.5, -0.3]], dtype=torch.float64)
    exact = adamode.solve(
        lambda t, z: Growth()(t, z)[0], z0, torch.tensor([0.0, 2.0]).double(), rtol=1e-13, atol=1e-14
    ).y[-1]

    def error(n):
        steps = FixedSteps(Growth(), METHODS[method], 0.0, 2.0, n)
        return float((steps(z0) - exact).abs().max())

    n = 64 if METHODS[method].order < 4 else 16 if METHODS[method].order < 7 else 6
    assert math.log2(error(n) / error(2 * n)) > METHODS[method].order - 0.5


@pytest.mark.parametrize("model", BLOCKS)
def test_equal_steps_meet_the_adaptive_solve_of_every_model(model, float64):
    more = {"shift": 0.5} if "shift" in defaults(model, "circles") else {}
    whole = create(model, "circles", rtol=1e-9, atol=1e-9, **CURVED, **more).eval()
    x = torch.randn(3, 2)
    with torch.no_grad():
        adaptive = whole(x)
        coarse, fine = ((with_fixed_steps(whole, n)(x) - adaptive).abs().max() for n in (1, 64))
    assert fine < 1e-5
    assert not coarse < 1e-3  # far off, or NaN


def test_steps_are_doubled_until_the_tolerance_is_met(float64):
    model = create("node", "circles", rtol=1e-7, atol=1e-7, **CURVED).eval()
    x = torch.randn(8, 2)
    with torch.no_grad():
        chosen = choose_steps(model, x)
        half = choose_steps(model, x, steps=chosen.steps // 2)
    assert chosen.difference <= chosen.bound or chosen.converged
    assert half.difference > half.bound


def test_a_model_that_needs_too_many_steps_is_refused(float64, monkeypatch):
    monkeypatch.setattr(train_export, "MOST_STEPS", 2)
    model = create("node", "circles", rtol=1e-9, atol=1e-9, **CURVED).eval()
    with torch.no_grad(), pytest.raises(ArgumentError, match=r"2 equal steps are still .* --steps"):
        choose_steps(model, torch.randn(8, 2))


def test_the_identity_has_no_steps():
    model = create("node", "circles", block="identity").eval()
    assert with_fixed_steps(model, 3) is model
    assert choose_steps(model, torch.randn(2, 2)).steps == 0


def test_series_and_other_modules_are_refused():
    with pytest.raises(ArgumentError, match="time series has no fixed graph"):
        with_fixed_steps(create("node", "silverbox"), 2)
    with pytest.raises(ArgumentTypeError, match="a str"):
        with_fixed_steps("adamnode", 2)
    plain_module = nn.Linear(2, 2)
    assert with_fixed_steps(plain_module, 2) is plain_module  # nothing in it is solved
    for steps, error in ((0, ArgumentError), (True, ArgumentTypeError), (2.0, ArgumentTypeError)):
        with pytest.raises(error, match="steps="):
            with_fixed_steps(create("node", "circles"), steps)


def test_a_run_of_a_time_series_is_refused_before_its_data_are_looked_for(tmp_path, monkeypatch):
    config = TrainConfig(model="node", dataset="silverbox", data_dir=str(tmp_path / "nowhere"))
    run = LoadedRun(config, create("node", "silverbox").eval(), 1, torch.device("cpu"))
    monkeypatch.setattr("adamode.train.evaluation.load_run", lambda *_, **__: run)
    monkeypatch.setattr("adamode.cli.export.check_run", lambda *_: None)
    result = call("export", tmp_path, "--output", tmp_path / "x.pt2")
    assert result.exit_code == 2, result.output
    assert "a model of a time series has no fixed graph" in plain(result.stderr)


def test_a_field_that_looks_at_its_values_is_refused_with_the_reason():
    class Branching(nn.Module):
        def forward(self, t, h):
            return h if h.sum() > 0 else -h

    block = with_fixed_steps(adamode.NODE(Branching()), 2)
    with pytest.raises(ArgumentError, match=r"torch\.export cannot trace this model"):
        traced(block, torch.ones(2, 3), {})


class OwnField(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, t, h):
        return torch.tanh(self.layer(h)) * (1 + t)


def test_a_field_of_ones_own_is_stepped_without_graphs():
    block, h0 = adamode.AdamNODE(OwnField()).eval(), torch.randn(5, 3)
    fixed = with_fixed_steps(block, 8)
    assert torch.allclose(fixed(h0), block(h0), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(fixed(h0), h0, rtol=1e-2, atol=1e-2)
    assert {id(p) for p in fixed.parameters()} == {id(p) for p in block.parameters()}


@pytest.mark.slow
def test_a_field_of_ones_own_is_traced_from_python():
    fixed, h0 = with_fixed_steps(adamode.AdamNODE(OwnField()).eval(), 8), torch.randn(5, 3)
    with torch.no_grad():
        again = torch.export.load(io.BytesIO(traced(fixed, torch.ones(2, 3), {}))).module()
        assert torch.allclose(again(h0), fixed(h0), rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "task"),
    [*itertools.product(BLOCKS, ("digits", "spiral")), ("adamnode", "mnist"), ("anode", "cifar10")],
)
def test_every_model_can_be_traced(model, task):
    whole = create(model, task).eval()
    shape = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "cifar10": (3, 32, 32), "spiral": (2,)}[task]
    with torch.no_grad():
        fixed = with_fixed_steps(whole, 2)
        again = torch.export.load(io.BytesIO(traced(fixed, torch.randn(2, *shape), {}))).module()
        for size in (1, 3):
            x = torch.randn(size, *shape)
            assert torch.allclose(again(x), fixed(x), rtol=1e-5, atol=1e-5)
