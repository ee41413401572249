import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from standin import StandIn
from typer.testing import CliRunner

from adamode.cli.app import app
from adamode.cli.options import SETTINGS
from adamode.train import TrainConfig

runner = CliRunner()


@pytest.fixture
def standin(monkeypatch):
    """The command trains a stand-in: these tests are about the command."""
    monkeypatch.setattr("adamode.train.build.models.create", lambda name, task, **settings: StandIn())


def train(folder, *arguments):
    return runner.invoke(app, ["train", "--output-dir", str(folder), "--epochs", "2", *arguments])


def plain(text):
    """Help without frames, colours and line breaks."""
    return re.sub(r"\s+", " ", re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", text))


def test_the_real_model_trains_and_leaves_a_run(tmp_path):
    result = runner.invoke(
        app, ["train", "--output-dir", str(tmp_path), "--epochs", "1", "--batch-size", "256"]
    )
    assert result.exit_code == 0, result.stderr
    run = tmp_path / "adamnode-digits"
    assert (run / "plots" / "training.png").read_bytes().startswith(b"\x89PNG")
    epoch, final = (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())
    # dopri5 with the first step's probe: 1 + 1 + 6 a step; the backward pass has at least 6 a step
    assert epoch["nfe_forward"] >= 8
    assert epoch["nfe_backward"] >= 6
    assert final["final"] is True
    assert final["test_accuracy"] > 0.1  # better than guessing after five steps
    assert f"accuracy {100 * final['test_accuracy']:.2f} %" in result.stdout


def test_the_identity_block_solves_nothing_and_has_no_efficacy(tmp_path):
    result = train(tmp_path, "--block", "identity")
    assert result.exit_code == 0, result.stderr
    rows = (tmp_path / "adamnode-digits-identity" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[0])["nfe_forward"] == 0
    assert json.loads(rows[-1])["efficacy_forward"] is None
    assert "nothing is solved" in result.stdout


def test_settings_reach_the_model(tmp_path, monkeypatch):
    seen = {}

    def create(name, task, **settings):
        seen.update(settings, name=name, task=task)
        return StandIn()

    monkeypatch.setattr("adamode.train.build.models.create", create)
    arguments = "--rtol 1e-4 --atol 1e-6 --gradient backsolve --denominator softplus --block identity"
    assert train(tmp_path, *arguments.split()).exit_code == 0
    assert type(seen.pop("gradient")).__name__ == "Backsolve"
    assert seen == {
        "name": "adamnode",
        "task": "digits",
        "rtol": 1e-4,
        "atol": 1e-6,
        "method": "dopri5",
        "stepping": "shared",
        "state_unit": 1.0,
        "field_scale": 1.0,
        "field_gain": 1.0,
        "denominator": "softplus",
        "alpha": 0.0474,
        "beta": 0.95,
        "hidden": 16,
        "channels": 8,
        "block": "identity",
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--model adamnod", ["model='adamnod'", "did you mean 'adamnode'"]),
        ("--dataset digit", ["dataset='digit'", "did you mean 'digits'"]),
        ("--method dopri4", ["method='dopri4'", "did you mean", "'dopri5'"]),
        ("--gradient discreet", ["gradient='discreet'", "did you mean 'discrete'"]),
        ("--denominator exat", ["denominator='exat'", "did you mean 'exact'"]),
        ("--batch-size 0", ["batch_size=0", "at least 1"]),
        ("--epochs 0", ["epochs=0"]),
        ("--rtol 0", ["rtol=0.0", "above 0"]),
        ("--rtol nan", ["rtol=nan"]),
        ("--atol -1", ["atol=-1.0"]),
        ("--rtol 1e-30", ["rtol"]),
        ("--lr inf", ["lr=inf"]),
        ("--seed -1", ["seed=-1"]),
        ("--name a/b", ["name='a/b'"]),
        ("--device cuda:77", ["device='cuda:77'"]),
        ("--resume", ["no run at"]),
        ("--config nowhere.toml", ["nowhere.toml"]),
        ("--batch-size many", ["batch-size"]),
        ("--no-such-option", ["no-such-option"]),
    ],
)
def test_a_wrong_call_says_why_writes_nothing_and_exits_with_2(tmp_path, arguments, words):
    result = train(tmp_path / "runs", *arguments.split())
    assert result.exit_code == 2, result.output
    assert all(word in plain(result.stderr) for word in words), result.stderr
    assert list(tmp_path.iterdir()) == []


def test_another_configuration_in_the_folder_is_refused_with_2(tmp_path, standin):
    assert train(tmp_path, "--quiet").exit_code == 0
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    result = train(tmp_path, "--lr", "0.5")
    assert result.exit_code == 2
    assert "lr: " in result.stderr
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_corrupt_checkpoint_is_refused_with_2(tmp_path, standin):
    assert train(tmp_path, "--quiet").exit_code == 0
    (tmp_path / "adamnode-digits" / "checkpoint.pt").write_bytes(b"PK but not really")
    result = train(tmp_path, "--resume")
    assert result.exit_code == 2
    assert "checkpoint.pt" in result.stderr


def test_the_same_command_again_prints_the_result_and_trains_nothing(tmp_path, standin):
    first = train(tmp_path, "--quiet")
    again = train(tmp_path, "--quiet")
    assert again.exit_code == 0
    assert "finished already" in again.stdout
    assert again.stdout.endswith(first.stdout)


def test_a_run_that_fails_exits_with_1_and_names_the_batch(tmp_path, monkeypatch):
    from standin import Explodes

    monkeypatch.setattr("adamode.train.build.models.create", lambda name, task, **settings: Explodes(3))
    result = train(tmp_path)
    assert result.exit_code == 1
    assert "batch 3" in result.stderr


def test_ctrl_c_before_training_starts_exits_with_130(tmp_path, monkeypatch):
    def interrupted(name, task, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("adamode.train.build.models.create", interrupted)
    result = train(tmp_path)
    assert result.exit_code == 130
    assert "saved" not in result.stderr


def test_quiet_prints_the_result_only(tmp_path, standin):
    result = train(tmp_path, "--quiet")
    assert result.stderr == ""
    assert result.stdout.startswith("test ")


def test_options_win_over_the_toml_file(tmp_path, standin):
    TrainConfig(seed=3, lr=0.5, epochs=9).to_toml(tmp_path / "run.toml")
    assert train(tmp_path, "--config", str(tmp_path / "run.toml"), "--lr", "0.25").exit_code == 0
    config = json.loads((tmp_path / "adamnode-digits" / "config.json").read_text())
    assert (config["seed"], config["lr"], config["epochs"]) == (3, 0.25, 2)


def test_help_shows_the_defaults_that_the_configuration_has():
    text = plain(runner.invoke(app, ["train", "--help"], env={"COLUMNS": "200"}).stdout)
    config = TrainConfig()
    shown = {
        option.replace("-", "_"): default
        for option, default in re.findall(r"--([a-z-]+) <[^>]*> (?:(?!--).)*?\[default: \((.*?)\)\]", text)
    }
    recipe = ("epochs", "batch_size", "lr", "schedule", "clip", "rtol", "atol", "hidden", "channels")
    recipe = (*recipe, "method", "dtype", "state_unit", "field_scale", "field_gain", "alpha", "beta")
    recipe = (*recipe, "normalise")
    expected = {
        k: f"digits: {v}" if k in recipe else str(v)
        for k, v in config.to_dict().items()
        if v is not False and v != ""
    }
    said = {
        "name": "MODEL-DATASET",
        "data_dir": "$ADAMODE_DATA",
        "gamma": "hbnode: 0.0635",
        "xi": "ghbnode: 2.13",
        "damping": "learned",
        "train_size": "all",
        "val_size": "all",
        "test_size": "all",
        "split": "split, else seed 0",
        "inputs": "u, u1 …",
        "outputs": "y, y1 …",
        "sizes": "the data's",
    }
    assert shown == expected | said


def test_every_setting_of_the_configuration_is_an_option():
    assert {setting.name for setting in SETTINGS} == {field.name for field in dataclasses.fields(TrainConfig)}
    for setting in SETTINGS:
        value = getattr(TrainConfig(), setting.name)
        assert isinstance(value, setting.kind), setting.name


def start(folder):
    """The real program in a process of its own, waited for until it has saved something."""
    command = [sys.executable, "-m", "adamode", "train", "--output-dir", str(folder), "--epochs", "100000"]
    process = subprocess.Popen(
        [*command, "--checkpoint-every", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    checkpoint = folder / "adamnode-digits" / "checkpoint.pt"
    for _ in range(12_000):  # a bound against hanging, not a measurement; it trains until it is stopped
        if checkpoint.exists() or process.poll() is not None:
            return process, checkpoint
        time.sleep(0.05)
    process.kill()
    raise AssertionError("the program saved nothing within ten minutes")


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
def test_ctrl_c_ends_the_program_cleanly_with_a_checkpoint(tmp_path):
    from adamode.train.checkpoint import load_checkpoint

    process, checkpoint = start(tmp_path)
    process.send_signal(signal.SIGINT)
    try:
        _, stderr = process.communicate(timeout=600)  # against hanging; a busy machine is slow
    finally:
        process.kill()  # of a process that has ended: nothing
    assert process.returncode == 130, stderr
    assert "interrupted. The checkpoint is saved; go on with --resume." in stderr
    assert "Traceback" not in stderr
    assert load_checkpoint(checkpoint)["batch"] + load_checkpoint(checkpoint)["epoch"] > 0
    assert Path(tmp_path / "adamnode-digits" / "config.json").exists()
