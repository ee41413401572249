import dataclasses
import os
import random
import signal
import time
import traceback
import warnings
from pathlib import Path

import killed_run
import pytest
import torch
from standin import build_standin

from adamode.solvers.errors import CheckpointError
from adamode.train import TrainConfig, Trainer
from adamode.train.checkpoint import BEST_KEYS, load_checkpoint
from adamode.train.data import load_data
from adamode.train.data.card import FileRecord
from adamode.train.interrupt import Interrupted
from adamode.train.runs import RunFolder

TIMES_AND_MEMORY = ("seconds", "peak_memory_mib")


def config_for(folder, **changes):
    return TrainConfig(output_dir=str(folder), **{**killed_run.SETTINGS, **changes})


def train(folder, *, resume=False, on_epoch=None, **changes):
    config = config_for(folder, **changes)
    return Trainer(config, build=build_standin, quiet=True, on_epoch=on_epoch).fit(resume=resume)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    train(folder)
    return folder / "run"


def comparable(value):
    """A nested value without times and memory, tensors as their exact bytes."""
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, dict):
        skip = (*TIMES_AND_MEMORY, "output_dir")
        return {key: comparable(item) for key, item in value.items() if key not in skip}
    if isinstance(value, list | tuple):
        return [comparable(item) for item in value]
    return value


def metrics(run):
    return comparable(RunFolder(run).read_metrics())


def assert_equal_bit_for_bit(run, other):
    assert metrics(run) == metrics(other)
    best = [comparable(load_checkpoint(folder / "best.pt", BEST_KEYS)) for folder in (run, other)]
    assert best[0] == best[1]
    assert comparable(load_checkpoint(run / "checkpoint.pt")) == comparable(
        load_checkpoint(other / "checkpoint.pt")
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork is POSIX's")
@pytest.mark.parametrize(
    ("moment", "number", "position_kept", "rows_kept"),
    [  # checkpoints: after 7 and 14 steps and at the end of each epoch
        ("half-written", 4, (1, 7), 1),
        ("before-rename", 2, (0, 14), 0),
        ("before-metrics", 1, (2, 0), 1),
    ],
)
def test_a_run_killed_while_saving_goes_on_as_if_nothing_had_happened(
    tmp_path, uninterrupted, moment, number, position_kept, rows_kept
):
    child = forked(lambda: killed_run.main(str(tmp_path), moment, number))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    run = tmp_path / "run"
    kept = load_checkpoint(run / "checkpoint.pt")
    assert (kept["epoch"], kept["batch"]) == position_kept
    assert len(RunFolder(run).read_metrics()) == rows_kept
    epochs = []
    train(tmp_path, resume=True, on_epoch=lambda record: epochs.append(record.row["epoch"]))
    assert epochs[0] == kept["epoch"] + 1
    assert_equal_bit_for_bit(run, uninterrupted)
    assert not list(run.glob(".*.part"))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork is POSIX's")
def test_twenty_kills_at_random_moments_change_no_bit(tmp_path, uninterrupted):
    """A forked process is killed after a random time and the next one goes on, until 20 were killed."""
    rng, kills, runs = random.Random(0), 0, 0
    while kills < 20:
        folder = tmp_path / str(runs)
        child = fork_training(folder, tmp_path / "steps.txt")
        time.sleep(rng.uniform(0.0, 0.6))
        finished, _ = os.waitpid(child, os.WNOHANG)
        if not finished:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            kills += 1
            continue
        assert_equal_bit_for_bit(folder / "run", uninterrupted)
        runs += 1
    folder = tmp_path / str(runs)
    os.waitpid(fork_training(folder, tmp_path / "steps.txt"), 0)
    assert_equal_bit_for_bit(folder / "run", uninterrupted)
    # only work since the last checkpoint is done again: at most 7 steps for a kill
    steps = len((tmp_path / "steps.txt").read_text())
    assert (runs + 1) * 60 <= steps <= (runs + 1) * 60 + 20 * 7


def forked(act):
    """The number of a process that does it and ends; no second import of torch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads about
        child = os.fork()
    if child == 0:
        try:
            act()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    return child


def fork_training(folder, steps):
    def act():
        original = Trainer._train_step

        def counted(self, part):
            with open(steps, "a") as file:
                file.write(".")
            original(self, part)

        Trainer._train_step = counted
        train(folder, resume=(folder / "run").exists())

    return forked(act)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_stopped_between_two_steps_repeats_none(tmp_path, uninterrupted, monkeypatch, number):
    calls = []
    original = Trainer._train_step

    def counted(self, part):
        calls.append(len(part[1]))
        if len(calls) == 25:  # in the second epoch of 20 steps, and not at a periodic checkpoint
            signal.raise_signal(number)
        original(self, part)

    monkeypatch.setattr(Trainer, "_train_step", counted)
    with pytest.raises(Interrupted) as stop:
        train(tmp_path)
    assert stop.value.signum == number
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt")["batch"] == 5
    train(tmp_path, resume=True)
    assert len(calls) == 3 * 20
    assert_equal_bit_for_bit(tmp_path / "run", uninterrupted)


@pytest.fixture(params=["heard", "ignored"])
def begun_with(request):
    """How the process began: a script's background job ignores SIGINT."""
    handler = signal.default_int_handler if request.param == "heard" else signal.SIG_IGN
    before = signal.signal(signal.SIGINT, handler)
    yield handler
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_while_validating_loses_nothing(tmp_path, uninterrupted, monkeypatch, begun_with):
    original, before = Trainer._evaluate, begun_with

    def interrupted(self, *arguments):
        assert signal.getsignal(signal.SIGINT) is not before
        signal.raise_signal(signal.SIGINT)
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_evaluate", interrupted)
        with pytest.raises(Interrupted):
            train(tmp_path)
    assert signal.getsignal(signal.SIGINT) is before
    train(tmp_path, resume=True)
    assert_equal_bit_for_bit(tmp_path / "run", uninterrupted)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_finished_run_can_be_made_longer_and_equals_a_long_one(tmp_path):
    train(tmp_path / "long", schedule="constant")
    train(tmp_path / "short", schedule="constant", epochs=1)
    assert train(tmp_path / "short", schedule="constant", resume=True).trained
    assert_equal_bit_for_bit(tmp_path / "short" / "run", tmp_path / "long" / "run")


def test_a_run_whose_step_sizes_have_come_down_cannot_be_made_longer(tmp_path):
    train(tmp_path, epochs=1)
    with pytest.raises(CheckpointError, match="epochs: 1 there, 3 asked for"):
        train(tmp_path, resume=True)


def test_a_finished_run_is_read_and_not_trained_again(tmp_path, uninterrupted):
    first = train(tmp_path)
    (tmp_path / "run" / "metrics.jsonl").unlink()  # as after a kill between checkpoint and metrics
    for resume in (False, True):
        again = train(tmp_path, resume=resume, on_epoch=lambda record: pytest.fail("it was trained again"))
        assert dataclasses.replace(again, trained=True) == first
        assert not again.trained
    assert metrics(tmp_path / "run") == metrics(uninterrupted)


def test_after_fit_the_model_has_the_tested_weights(tmp_path):
    weights = []
    for _ in range(2):  # trained, then read
        trainer = Trainer(config_for(tmp_path), build=build_standin, quiet=True)
        trainer.fit()
        best = load_checkpoint(tmp_path / "run" / "checkpoint.pt")["best"]["model"]
        weights.append(comparable(trainer.model.state_dict()))
        assert weights[-1] == comparable(best)


def stop_after_first_epoch(folder):
    def stop(record):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(folder, on_epoch=stop)


def contents(folder):
    return {p: p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("changes", "resume", "words"),
    [
        ({"lr": 0.5}, False, ["lr: 0.01 there, 0.5 asked for"]),
        ({"lr": 0.5, "seed": 4}, True, ["lr: 0.01 there, 0.5", "seed: 0 there, 4"]),
        ({"epochs": 9}, False, ["epochs: 3 there, 9"]),
        ({}, False, ["unfinished", "1 of 3", "--resume"]),
    ],
)
def test_a_folder_that_holds_something_else_is_refused_untouched(tmp_path, changes, resume, words):
    stop_after_first_epoch(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(CheckpointError) as refusal:
        train(tmp_path, resume=resume, **changes)
    assert all(word in str(refusal.value) for word in words)
    assert contents(tmp_path) == before


def test_a_run_cannot_be_made_shorter_than_it_is(tmp_path):
    train(tmp_path, schedule="constant")
    with pytest.raises(CheckpointError, match="epochs=2"):
        train(tmp_path, schedule="constant", epochs=2, resume=True)


def test_resume_without_a_run_is_refused_and_writes_nothing(tmp_path):
    with pytest.raises(CheckpointError, match="no run at"):
        train(tmp_path, resume=True)
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_folder_is_refused_untouched(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("precious")
    with pytest.raises(CheckpointError, match="not the folder of a run"):
        train(tmp_path)
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_checkpoint_is_refused_untouched(tmp_path, damage):
    stop_after_first_epoch(tmp_path)
    path = tmp_path / "run" / "checkpoint.pt"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt"):
        train(tmp_path, resume=True)
    assert contents(tmp_path) == before


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    stop_after_first_epoch(tmp_path)
    config = config_for(tmp_path)
    other = Trainer(config, build=lambda config: torch.nn.Linear(3, 3), quiet=True)
    with pytest.raises(CheckpointError, match="does not fit this model"):
        other.fit(resume=True)


def test_a_checkpoint_of_other_data_under_the_same_name_is_refused(tmp_path, monkeypatch):
    stop_after_first_epoch(tmp_path)
    before = contents(tmp_path)

    def other(name, options):
        data = load_data(name, options)
        digest = "0123456789abcdef" * 4
        card = dataclasses.replace(data.card, sha256=digest, files=(FileRecord("other.npz", 1, digest),))
        return dataclasses.replace(data, card=card)

    monkeypatch.setattr("adamode.train.trainer.load_data", other)
    with pytest.raises(CheckpointError, match=r"made with other data.*0123456789abcdef…"):
        train(tmp_path, resume=True)
    assert contents(tmp_path) == before


def test_a_run_killed_before_its_first_checkpoint_starts_anew(tmp_path, uninterrupted):
    config = config_for(tmp_path)
    trainer = Trainer(config, build=build_standin, quiet=True)
    trainer.folder.create(config)
    train(tmp_path, resume=True)
    assert_equal_bit_for_bit(tmp_path / "run", uninterrupted)


def test_an_unreadable_config_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        train(tmp_path)
