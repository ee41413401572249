"""`compile`, `sync_every` and `hand_on_dt` of a training run."""

import re
import signal

import pytest
import torch
from standin import StandIn
from torch._dynamo.utils import counters
from typer.testing import CliRunner

from adamode import AdamodeWarning, ArgumentError, ArgumentTypeError, TrainConfig, models
from adamode.cli.app import app
from adamode.models.fields import MLP
from adamode.solvers.errors import CheckpointError
from adamode.train import Trainer
from adamode.train.checkpoint import load_checkpoint
from adamode.train.data import load_data
from adamode.train.evaluation import judge, load_run
from adamode.train.interrupt import Interrupted
from adamode.train.position import Position

TINY = {
    "model": "node",
    "dataset": "circles",
    "hidden": 3,
    "batch_size": 500,  # two steps an epoch
    "epochs": 1,
    "schedule": "constant",
    "dtype": "float64",
    "method": "bosh3",
    "rtol": 1e-3,
    "atol": 1e-3,
    "name": "run",
}


@pytest.fixture(scope="module", autouse=True)
def no_generated_code():
    """Programs are captured and run as they are: their lowering is test_compile's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("adamode.solvers.device.programs.BACKEND", "eager")
        yield


def config_for(folder, **changes):
    return TrainConfig(output_dir=str(folder), **{**TINY, **changes})


def fit(folder, *, resume=False, **changes):
    return Trainer(config_for(folder, **changes), quiet=True).fit(resume=resume)


def weights(folder):
    return load_checkpoint(folder / "run" / "checkpoint.pt")["model"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return folder, fit(folder)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A run with both options, and how many graphs it compiled."""
    folder, before = tmp_path_factory.mktemp("both"), counters["stats"]["unique_graphs"]
    result = fit(folder, compile=True, sync_every=8)
    return folder, result, counters["stats"]["unique_graphs"] - before


@pytest.mark.parametrize("fast", [{"compile": True}, {"sync_every": 8}, {"compile": True, "sync_every": 8}])
def test_training_gives_the_same_numbers_to_rounding(request, tmp_path, plain, fast):
    if len(fast) == 2:
        fast_folder, result, graphs = request.getfixturevalue("both")
    else:
        before, fast_folder = counters["stats"]["unique_graphs"], tmp_path
        result = fit(tmp_path, **fast)
        graphs = counters["stats"]["unique_graphs"] - before
    assert (graphs > 0) is ("compile" in fast)
    folder, expected = plain
    for row, wanted in zip(result.history, expected.history, strict=True):
        for name in ("train_loss", "val_loss"):
            assert row[name] == pytest.approx(wanted[name], rel=1e-9), name
        # queued attempts past the end are evaluated, too; a compiled way back takes the first stage's VJP
        idle = 0 if "compile" in fast else 3 * 7
        assert 0 <= row["nfe_forward"] - wanted["nfe_forward"] <= idle
        assert 0 <= row["nfe_backward"] - wanted["nfe_backward"] <= 1
    assert result.test_loss == pytest.approx(expected.test_loss, rel=1e-9)
    for name, value in weights(folder).items():
        # Adam divides by the gradient's size, so a small one's rounding shows: measured 4e-13
        torch.testing.assert_close(weights(fast_folder)[name], value, rtol=1e-8, atol=1e-9)


def test_a_saved_run_is_evaluated_as_it_was_tested_and_without_compiling(both):
    folder, result, _ = both
    before = counters["stats"]["unique_graphs"]
    run = load_run(folder / "run")
    assert (run.config.compile, run.config.sync_every) == (True, 8)
    assert run.model.block.settings.sync_every == 8
    data = load_data(run.config.dataset, run.config.data_options())
    assert judge(run, data).loss == pytest.approx(result.test_loss, rel=1e-9)
    assert counters["stats"]["unique_graphs"] == before


@pytest.mark.slow
def test_a_batch_size_is_compiled_once_and_not_for_each_epoch(tmp_path):
    before = counters["stats"]["unique_graphs"]
    fit(tmp_path / "short", compile=True)
    short, before = counters["stats"]["unique_graphs"] - before, counters["stats"]["unique_graphs"]
    fit(tmp_path / "long", compile=True, epochs=3)
    assert 0 < counters["stats"]["unique_graphs"] - before == short


@pytest.mark.parametrize(
    ("values", "error", "text"),
    [
        ({"compile": "yes"}, ArgumentTypeError, "compile='yes'"),
        ({"compile": 1}, ArgumentTypeError, "compile=1"),
        ({"sync_every": 0}, ArgumentError, "sync_every=0 must be at least 1"),
        ({"sync_every": 1.5}, ArgumentTypeError, "sync_every=1.5"),
        ({"sync_every": True}, ArgumentTypeError, "sync_every=True"),
        ({"hand_on_dt": 1}, ArgumentTypeError, "hand_on_dt=1"),
        ({"hand_on_dt": True, "stepping": "per_sample"}, ArgumentError, "hand_on_dt=True.*its own step size"),
    ],
)
def test_bad_values_are_refused_by_name(values, error, text):
    with pytest.raises(error, match=text):
        TrainConfig(**values)


def test_they_survive_toml_and_are_off_by_default(tmp_path):
    config = TrainConfig(compile=True, sync_every=8, hand_on_dt=True)
    config.to_toml(tmp_path / "run.toml")
    assert TrainConfig.from_toml(tmp_path / "run.toml") == config
    default = TrainConfig()
    assert (default.compile, default.sync_every, default.hand_on_dt) == (False, 1, False)


def test_the_command_takes_them_and_its_help_names_them(tmp_path, monkeypatch):
    monkeypatch.setattr("adamode.train.build.models.create", lambda name, task, **settings: StandIn())
    options = ["--compile", "--sync-every", "8", "--hand-on-dt"]
    folder = ["--output-dir", str(tmp_path), "--name", "run", "--epochs", "1", "--quiet"]
    result = CliRunner().invoke(app, ["train", *folder, *options])
    assert result.exit_code == 0, result.stderr
    config = load_checkpoint(tmp_path / "run" / "checkpoint.pt")["config"]
    assert (config["compile"], config["sync_every"], config["hand_on_dt"]) == (True, 8, True)
    for command in ("train", "sweep"):
        shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).stdout
        shown = re.sub(r"\x1b\[[0-9;]*m", "", shown)
        assert all(flag in shown for flag in ("--compile", "--sync-every", "--hand-on-dt"))


@pytest.mark.parametrize("task", ["digits", "circles"])
@pytest.mark.parametrize("name", models.names())
def test_every_registered_block_takes_them(name, task):
    settings = models.create(name, task, compile=True, sync_every=3).block.settings
    assert (settings.compile, settings.sync_every) == (True, 3)
    assert settings.arguments()["compile"] is True
    with pytest.raises(ArgumentTypeError, match="compile='yes'"):
        models.create(name, task, compile="yes")
    with pytest.raises(ArgumentError, match="sync_every=0"):
        models.create(name, task, sync_every=0)


def test_a_block_that_cannot_be_compiled_says_why_and_goes_on_without():
    with pytest.warns(AdamodeWarning, match="compile=True does nothing here: every batch brings an input"):
        model = models.create("node", "silverbox", compile=True, sync_every=2)
    assert (model.block.settings.compile, model.block.settings.sync_every) == (False, 2)


def test_a_resumed_run_may_compile_and_queue_otherwise(tmp_path, plain):
    fit(tmp_path)
    result = fit(tmp_path, resume=True, epochs=2, compile=True, sync_every=8)
    expected = fit(tmp_path / "long", epochs=2)
    assert result.history[1]["train_loss"] == pytest.approx(expected.history[1]["train_loss"], rel=1e-9)


def test_a_resumed_run_must_hand_on_as_before(tmp_path):
    fit(tmp_path)
    with pytest.raises(CheckpointError, match="hand_on_dt: False there, True asked for"):
        fit(tmp_path, resume=True, epochs=2, hand_on_dt=True)


@pytest.fixture
def solves(monkeypatch):
    """The `LastSolve` of each training batch and of each other pass, in order."""
    seen = {"batches": [], "others": []}
    step, evaluate = Trainer._train_step, Trainer._evaluate

    def stepped(self, part):
        step(self, part)
        seen["batches"].append(self.model.last_stats)

    def evaluated(self, model, data, stop):
        sums = evaluate(self, model, data, stop)
        seen["others"].append(model.last_stats)
        return sums

    monkeypatch.setattr(Trainer, "_train_step", stepped)
    monkeypatch.setattr(Trainer, "_evaluate", evaluated)
    return seen


def before_the_steps(stats, every=1):
    """Evaluations of a bosh3 solve that no step made: f at the start, and the first step's probe."""
    return stats.nfe - 3 * every * -(-stats.n_steps // every)


@pytest.mark.parametrize("speed", [{}, {"sync_every": 4}, {"compile": True}])
def test_handing_on_saves_one_evaluation_a_batch_and_evaluation_never_does_it(tmp_path, solves, speed):
    fit(tmp_path, epochs=2, hand_on_dt=True, **speed)
    every = speed.get("sync_every", 1)
    first, *later = batches = solves["batches"]
    assert len(batches) == 2 * 2
    assert before_the_steps(first, every) == 2
    for last, stats in zip(batches, later, strict=False):
        assert before_the_steps(stats, every) == 1
        assert stats.dt_first == pytest.approx(last.dt_last, rel=1e-12)
    assert [before_the_steps(stats, every) for stats in solves["others"]] == [
        2
    ] * 3  # validations and the test
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt")["dt"] == batches[-1].dt_last


def test_nothing_is_handed_on_by_default(tmp_path, solves):
    fit(tmp_path)
    assert [before_the_steps(stats) for stats in solves["batches"]] == [2] * 2
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt")["dt"] is None


def test_the_pieces_of_a_batch_all_start_with_what_the_batch_before_handed_on(tmp_path, monkeypatch):
    seen = []
    original = models.NODE.forward

    def watched(self, h0):
        h = original(self, h0)
        seen.append((self.training, self.last_stats))
        return h

    monkeypatch.setattr(models.NODE, "forward", watched)
    fit(tmp_path, hand_on_dt=True, accumulate=2)
    pieces = [stats for training, stats in seen if training][2:]  # without the rehearsal's two
    assert [before_the_steps(stats) for stats in pieces] == [2, 2, 1, 1]
    assert pieces[2].dt_first == pieces[3].dt_first == pieces[1].dt_last


def stopped_at(monkeypatch, number):
    """From now on Ctrl-C is pressed before the training step of that number, counted from 1."""
    calls, step = [], Trainer._train_step

    def counted(self, part):
        calls.append(part)
        if len(calls) == number:
            signal.raise_signal(signal.SIGINT)
        step(self, part)

    monkeypatch.setattr(Trainer, "_train_step", counted)


def stop_and_resume(folder, monkeypatch):
    with monkeypatch.context() as patch:
        stopped_at(patch, 3)  # the first of the second epoch
        with pytest.raises(Interrupted):
            fit(folder, epochs=2, hand_on_dt=True)
    kept = load_checkpoint(folder / "run" / "checkpoint.pt")
    assert (kept["epoch"], kept["batch"]) == (1, 1)
    return fit(folder, resume=True, epochs=2, hand_on_dt=True)


def test_a_resumed_run_is_bit_equal_with_the_step_size_handed_on(tmp_path, monkeypatch):
    whole = fit(tmp_path / "whole", epochs=2, hand_on_dt=True)
    resumed = stop_and_resume(tmp_path / "stopped", monkeypatch)
    times = ("seconds", "peak_memory_mib")
    rows = [[{k: v for k, v in r.items() if k not in times} for r in x.history] for x in (whole, resumed)]
    assert rows[0] == rows[1]
    assert resumed.test_loss == whole.test_loss
    ends = [load_checkpoint(tmp_path / name / "run" / "checkpoint.pt") for name in ("whole", "stopped")]
    assert ends[0]["dt"] == ends[1]["dt"]
    assert all(torch.equal(ends[0]["model"][name], ends[1]["model"][name]) for name in ends[0]["model"])


def test_a_step_size_that_a_checkpoint_lost_would_be_seen(tmp_path, monkeypatch):
    whole = fit(tmp_path / "whole", epochs=2, hand_on_dt=True)
    read = Position.from_checkpoint
    monkeypatch.setattr(Position, "from_checkpoint", lambda state: read({**state, "dt": None}))
    resumed = stop_and_resume(tmp_path / "stopped", monkeypatch)
    assert resumed.history[1]["train_loss"] != whole.history[1]["train_loss"]


def test_a_model_of_ones_own_with_a_block_is_handed_its_step_size_too(tmp_path):
    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.block = models.NODE(MLP(2, (3,)), method="bosh3")
            self.head = torch.nn.Linear(2, 2)

        def forward(self, x):
            return self.head(self.block(x))

        @property
        def last_stats(self):
            return self.block.last_stats

    trainer = Trainer(config_for(tmp_path, hand_on_dt=True), build=lambda config: Own(), quiet=True)
    trainer.fit()
    assert trainer.position.dt > 0
    assert trainer.model.block.settings.dt0 is None
