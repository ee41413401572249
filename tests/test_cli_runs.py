"""Runs that lie there already: listed, judged, asked; and many of them started by one command."""

import json
import re
import shutil
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from adamode import TrainConfig, Trainer
from adamode.cli.app import app
from adamode.solvers.errors import ArgumentError, CheckpointError
from adamode.train.data import load_data
from adamode.train.evaluation import load_data_of, load_run, probabilities, read_picture
from adamode.train.listing import list_runs
from adamode.train.sweep import Job, plan, run_sweep

runner = CliRunner()
SETTINGS = {"epochs": 1, "train_size": 100, "hidden": 2, "channels": 4, "batch_size": 50}


def call(*arguments):
    return runner.invoke(app, [str(a) for a in arguments])


def plain(text):
    return re.sub(r"\s+", " ", re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", text))


def fit(folder, **settings):
    config = TrainConfig(output_dir=str(folder), **{**SETTINGS, **settings})
    return Trainer(config, quiet=True).fit()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two finished runs of real models, one that failed at once, one that cannot be read, and no run."""
    place = tmp_path_factory.mktemp("runs")
    fit(place, name="adam")
    fit(place, name="node", model="node", seed=3)
    (place / "begun").mkdir()
    shutil.copy(place / "node" / "config.json", place / "begun")
    (place / "begun" / "failure.pt").write_bytes(b"")
    (place / "broken").mkdir()
    (place / "broken" / "config.json").write_text("{")
    (place / "notes").mkdir()
    return place


def test_runs_are_listed_with_their_results_and_the_settings_that_differ(folder):
    result = call("runs", "--output-dir", folder)
    assert result.exit_code == 0, result.output
    finals = {run.name: run.final for run in list_runs(folder)}
    lines = {line.split()[0]: line for line in result.stdout.splitlines()[2:6]}
    assert sorted(lines) == ["adam", "begun", "broken", "node"]
    for name in ("adam", "node"):
        assert "finished" in lines[name]
        assert f"{100 * finals[name]['test_accuracy']:.2f} %" in lines[name]
    assert "failed" in lines["begun"]
    assert "unreadable" in lines["broken"]
    assert "config.json" in result.stderr
    differ = result.stdout.split("settings that differ")[1]
    assert differ.split("\n")[1].split() == ["run", "model", "denominator", "alpha", "beta", "seed"]
    assert (folder / "runs.png").read_bytes().startswith(b"\x89PNG")


def test_runs_as_json_hold_settings_and_rows(folder):
    result = call("runs", "node", "--output-dir", folder, "--json", "-", "--no-picture")
    (run,) = json.loads(result.stdout)["runs"]
    assert run["name"] == "node"
    assert run["config"]["seed"] == 3
    assert run["history"][0]["epoch"] == 1
    assert run["final"]["final"] is True


ROW = {
    "epoch": 1,
    "seconds": 1.0,
    "val_loss": 0.5,
    "val_accuracy": 0.5,
    "nfe_forward": 9.0,
    "nfe_backward": 9.0,
}
DAMAGED = {
    "no_row": (3, "line 2 is no row of metrics"),
    "nothing": ({}, "line 2 has no number for epoch"),
    "no_loss": ({**ROW, "val_loss": None}, "line 2 has no number for val_loss"),
    "no_quality": ({**ROW, "val_accuracy": None}, "line 2 has no number for the validation's quality"),
    "text": ({**ROW, "val_accuracy": "0.5"}, "line 2 has no number for val_accuracy"),
    "final_text": ({"final": True, "parameters": "many"}, "line 2 has no number for parameters"),
}


def test_runs_with_damaged_metrics_are_listed_as_unreadable_beside_the_others(tmp_path):
    for name, rows in {
        **{name: [ROW, row] for name, (row, _) in DAMAGED.items()},
        "good": [ROW, ROW],
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"epochs": 2}')
        (tmp_path / name / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    result = call("runs", "--output-dir", tmp_path, "--picture", tmp_path / "runs.png")
    assert result.exit_code == 0, result.output
    states = {line.split()[0]: line.split()[1] for line in result.stdout.splitlines()[2:9]}
    assert states == {**dict.fromkeys(DAMAGED, "unreadable"), "good": "unfinished"}
    problems = {run.name: run.problem for run in list_runs(tmp_path)}
    for name, (_, said) in DAMAGED.items():
        assert said in problems[name]


def test_a_folder_or_run_that_is_not_there_is_refused(tmp_path, folder):
    result = call("runs", "--output-dir", tmp_path / "nowhere")
    assert result.exit_code == 2
    assert "nowhere" in result.stderr
    result = call("runs", "nod", "--output-dir", folder)
    assert result.exit_code == 2
    assert "did you mean 'node'" in result.stderr
    assert "no runs in" in call("runs", "--output-dir", tmp_path).stdout


def test_evaluate_finds_the_numbers_that_training_reported(folder):
    final = {run.name: run.final for run in list_runs(folder)}["node"]
    result = call("evaluate", "node", "--output-dir", folder, "--json", "-")
    assert result.exit_code == 0, result.stderr
    judged = json.loads(result.stdout)
    assert judged["accuracy"] == final["test_accuracy"]
    assert judged["loss"] == final["test_loss"]
    assert judged["efficacy_forward"] == final["efficacy_forward"]
    text = call("evaluate", folder / "node", "--part", "val", "--weights", "last").stdout
    row = list_runs(folder, ["node"])[0].history[-1]
    assert f"val       accuracy {100 * row['val_accuracy']:.2f} %, loss {row['val_loss']:.4f}" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "is not the folder of a run"),
        (["begun"], "without a checkpoint"),
        (["node", "--part", "tset"], "part='tset' is not one of digits's: did you mean 'test'"),
        (["node", "--weights", "first"], "weights='first'"),
        (["node", "--device", "cuda:77"], "device='cuda:77'"),
    ],
)
def test_evaluate_refuses_what_it_cannot_judge(folder, arguments, words):
    result = call("evaluate", *arguments, "--output-dir", folder)
    assert result.exit_code == 2, result.output
    assert words in plain(result.stderr)


def digit_picture(path, index, *, scale=8, invert=False, mode="L"):
    """A test image of the digits as a large picture."""
    raw = load_data("digits").test.images[index, 0].numpy()
    grey = np.rint(raw / 16 * 255).astype(np.uint8)
    big = np.kron(255 - grey if invert else grey, np.ones((scale, scale), np.uint8))
    Image.fromarray(big).convert(mode).save(path)


@pytest.mark.parametrize(("invert", "mode"), [(False, "L"), (True, "RGB"), (False, "RGBA"), (False, "P")])
def test_a_picture_becomes_the_input_that_the_data_set_has(tmp_path, invert, mode):
    data = load_data("digits")
    digit_picture(tmp_path / "digit.png", 7, invert=invert, mode=mode)
    x = read_picture(tmp_path / "digit.png", data, invert=invert)
    assert (x == data.test[7][0][None]).all()


def test_predict_says_what_the_model_says(folder, tmp_path):
    run = load_run(folder / "adam")
    data = load_data_of(run)  # the training images decide the normalisation, and there are 100
    paths = [tmp_path / f"{index}.png" for index in (7, 11)]
    for path, index in zip(paths, (7, 11), strict=True):
        digit_picture(path, index)
    result = call("predict", folder / "adam", *paths, "--json", "-")
    assert result.exit_code == 0, result.stderr
    for answer, index in zip(json.loads(result.stdout), (7, 11), strict=True):
        expected = probabilities(run, data.test[index][0][None])
        assert answer["probabilities"] == expected
        assert answer["class"] == int(np.argmax(expected))
        assert sum(expected) == pytest.approx(1)
    text = call("predict", folder / "adam", paths[0], "--top", 2).stdout
    assert re.fullmatch(r"\S+7\.png: \d \([\d.]+ %\), \d \([\d.]+ %\)\n", text)


def test_predict_refuses_a_file_that_is_no_picture_before_any_answer(folder, tmp_path):
    digit_picture(tmp_path / "good.png", 1)
    (tmp_path / "bad.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    (tmp_path / "text.png").write_text("not a picture")
    for bad in ("bad.png", "text.png", "missing.png"):
        result = call("predict", folder / "adam", tmp_path / "good.png", tmp_path / bad)
        assert result.exit_code == 2
        assert bad in result.stderr
        assert "cannot be read as a picture" in result.stderr
        assert result.stdout == ""


def test_pictures_are_refused_where_the_data_are_none(tmp_path):
    with pytest.raises(ArgumentError, match="circles has no pictures"):
        read_picture(tmp_path / "any.png", load_data("circles"))


def names(jobs):
    return [job.config.name for job in jobs]


def test_a_sweep_is_every_combination_with_a_name_that_says_which(tmp_path):
    base = {"output_dir": str(tmp_path), "epochs": 1, "dataset": "circles"}
    jobs = plan(base, {"model": ["node", "adamnode"], "seed": [0, 1], "lr": [0.1]})
    assert names(jobs) == [
        "node-circles-seed=0-lr=0.1",
        "node-circles-seed=1-lr=0.1",
        "adamnode-circles-seed=0-lr=0.1",
        "adamnode-circles-seed=1-lr=0.1",
    ]
    assert [job.state for job in jobs] == ["new"] * 4
    assert {job.config.epochs for job in jobs} == {1}
    assert names(plan({**base, "name": "a"}, {"seed": [5]})) == ["a-adamnode-circles-seed=5"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--models", "node,adamnod"], "did you mean 'adamnode'"),
        (["--models", "node,node"], "twice"),
        (["--seeds", "zero"], "seed='zero' must be a whole number"),
        (["--seeds", "1,,2"], "commas"),
        (["--vary", "learning-rate=1"], "SETTING=VALUE"),
        (["--vary", "lr=fast"], "lr='fast' must be a number"),
        (["--vary", "seed=1,2", "--seeds", "3"], "an axis already"),
        (["--vary", "name=a,b"], "cannot be swept over"),
        (["--jobs", "0"], "jobs"),
    ],
)
def test_a_sweep_that_means_nothing_is_refused_before_anything_is_written(tmp_path, arguments, words):
    result = call("sweep", *arguments, "--output-dir", tmp_path / "runs")
    assert result.exit_code == 2, result.output
    assert words in plain(result.stderr)
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_over_a_folder_with_another_run_under_the_name_is_refused(tmp_path):
    config = TrainConfig(output_dir=str(tmp_path), name="node-digits-seed=0", lr=0.5)
    Trainer(config, quiet=True).folder.create(config)
    with pytest.raises(CheckpointError, match=r"holds a run of another configuration \(.*lr: 0\.5 there"):
        plan({"output_dir": str(tmp_path)}, {"model": ["node"], "seed": [0]})


class Stub(Job):
    """A job whose process writes when it began and ended, and fails if its seed is 1."""

    def command(self):
        import sys

        code = (
            "import sys, time, pathlib\n"
            "here = pathlib.Path(sys.argv[1])\n"
            "(here / ('running-' + sys.argv[2])).touch()\n"
            "most = len(list(here.glob('running-*')))\n"
            "time.sleep(0.15)\n"
            "(here / ('running-' + sys.argv[2])).unlink()\n"
            "(here / ('seen-' + sys.argv[2])).write_text(str(most))\n"
            "sys.exit('error: not today' if sys.argv[2] == '1' else 0)\n"
        )
        return [sys.executable, "-S", "-c", code, self.config.output_dir, str(self.config.seed)]


def test_no_more_processes_than_asked_run_at_once_and_a_failure_stops_no_other(tmp_path):
    jobs = [Stub(job.config, job.state) for job in plan({"output_dir": str(tmp_path)}, {"seed": range(5)})]
    jobs[4] = Stub(jobs[4].config, "finished")
    ended = run_sweep(jobs, at_once=2, poll=0.01)
    seen = {path.name: int(path.read_text()) for path in tmp_path.glob("seen-*")}
    assert sorted(seen) == ["seen-0", "seen-1", "seen-2", "seen-3"]  # the finished one was not started
    assert max(seen.values()) <= 2
    assert {e.job.config.seed: (e.status, e.said) for e in ended if e.status} == {1: (1, "error: not today")}


class Sleeps(Job):
    """A job whose process never ends by itself."""

    def command(self):
        import sys

        return [sys.executable, "-S", "-c", "import time; time.sleep(600)"]


def test_ctrl_c_ends_every_process_of_a_sweep(tmp_path):
    jobs = [Sleeps(job.config, job.state) for job in plan({"output_dir": str(tmp_path)}, {"seed": [0, 1]})]
    started = []

    def interrupt(job):
        started.append(job)
        if len(started) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # it returns: the processes have been waited for
        run_sweep(jobs, at_once=2, on_start=interrupt)


def test_a_sweep_ends_with_its_results_and_where_they_are(tmp_path, monkeypatch):
    fit(tmp_path, name="node-digits-seed=0", model="node")
    settings = [x for name, n in SETTINGS.items() for x in (f"--{name.replace('_', '-')}", n)]
    monkeypatch.setattr(Job, "command", lambda job: [sys.executable, "-S", "-c", "raise SystemExit(3)"])
    result = call(
        *("sweep", "--models", "node", "--seeds", "0-1", "--output-dir", tmp_path, "--quiet"), *settings
    )
    assert result.exit_code == 1  # of the second
    lines = result.stdout.splitlines()
    assert lines[0] == "2 runs: 1 finished before, 0 now"
    assert lines[1].split() == ["run", "state", "test", "NFE", "f/b", "seconds"]
    final = list_runs(tmp_path)[0].final
    assert lines[3].startswith("node-digits-seed=0  finished")
    assert f"{100 * final['test_accuracy']:.2f} %" in lines[3]
    assert f"adamode runs --output-dir {tmp_path}" in plain(result.stdout)
    assert not any("seed=1" in line for line in lines)  # it left nothing to tell


@pytest.mark.slow
def test_a_sweep_trains_what_is_not_finished_and_only_that(tmp_path):
    arguments = ["sweep", "--dataset", "circles", "--models", "node,adamnode", "--seeds", "0-1"]
    arguments += ["--epochs", "1", "--jobs", "2", "--output-dir", tmp_path]
    first = call(*arguments)
    assert first.exit_code == 0, first.output
    assert "4 runs: 0 finished before, 4 now" in first.stdout
    shutil.rmtree(tmp_path / "node-circles-seed=1")
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/checkpoint.pt")}
    again = call(*arguments)
    assert "4 runs: 3 finished before, 1 now" in again.stdout
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert {run.state for run in list_runs(tmp_path)} == {"finished"}
