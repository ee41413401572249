"""Two processes against one. The ranks are forked from the test's process: no second import of torch."""

import json
import os
import socket
import subprocess
import sys
import traceback
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from train_worker import train

from adamode import ArgumentError, TrainConfig
from adamode.solvers.errors import TrainingError
from adamode.train.checkpoint import load_checkpoint
from adamode.train.distributed import Ranks, asked_ranks, own_device, refuse_batch_statistics, restarted

TESTS = Path(__file__).parent
# 27 images in batches of 14 and 13: the ranks' parts are 7 + 7 and 6 + 7 (and of the validation's last
# batch 5 + 6).
SETTINGS = {
    "dtype": "float64",
    "stepping": "per_sample",
    "hidden": 2,
    "train_size": 27,
    "batch_size": 14,
    "epochs": 1,
    "rtol": 1e-2,
    "atol": 1e-2,
    "clip": 1000.0,
}
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork is POSIX's")


def on_two_ranks(folder, act):
    """Runs ``act()`` in two forked processes with torchrun's environment; what each said on failing."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads about
            child = os.fork()
        if child == 0:
            status = 0
            try:
                address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
                os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", **address)
                act()
            except BaseException:
                (folder / f"error-{rank}.txt").write_text(traceback.format_exc())
                status = 1
            os._exit(status)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    return [path.read_text() for path in sorted(folder.glob("error-*.txt"))]


def gradients_and_passes(folder):
    kept = torch.load(folder / "gradients.pt", weights_only=True)
    return kept["gradients"], kept["passes"]


def assert_alike(one, two, relative):
    (gradients, passes), (gradients2, passes2) = gradients_and_passes(one), gradients_and_passes(two)
    assert len(gradients) == len(gradients2) > 0
    for step, step2 in zip(gradients, gradients2, strict=True):
        assert step.keys() == step2.keys()
        for name, gradient in step.items():
            assert (gradient - step2[name]).abs().max() <= relative * gradient.abs().max(), name
    for sums, sums2 in zip(passes, passes2, strict=True):
        exact = ("samples", "score", "nfe_forward", "skipped")
        assert [sums[name] for name in exact] == [sums2[name] for name in exact]
        # Those are calls for a batch, and half a batch may have no sample that needs the most.
        assert (sums2["nfe_backward"] > 0) == (sums["nfe_backward"] > 0)
        assert sums2["nfe_backward"] <= sums["nfe_backward"]
        assert sums["loss"] == pytest.approx(sums2["loss"], rel=1e-12)


@forks
def test_two_processes_step_along_the_gradient_of_one_and_count_the_same(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    train(tmp_path / "one", **SETTINGS)
    assert on_two_ranks(tmp_path, lambda: train(tmp_path / "two", **SETTINGS)) == []
    # rounding: sums in another order (measured 2e-15); the promise is 1e-6
    assert_alike(tmp_path / "one", tmp_path / "two", 1e-12)
    state = load_checkpoint(tmp_path / "two" / "run" / "checkpoint.pt")
    assert state["epoch"] == 1
    assert len(state["rng"]["others"]) == 1
    rows = [
        json.loads(line) for line in (tmp_path / "two" / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert len(rows) == 2


@forks
def test_a_solve_that_fails_on_one_rank_stops_both_and_says_where(tmp_path):
    errors = on_two_ranks(tmp_path, lambda: train(tmp_path, fails=(1, 1), **SETTINGS))
    assert len(errors) == 2
    for error in errors:
        assert "TrainingError: epoch 1, batch 1 (counted from 0): rank 1: the solver could not" in error
    # the first step was made on both, and is kept
    assert load_checkpoint(tmp_path / "run" / "failure.pt")["batch"] == 1


@forks
def test_a_batch_that_one_rank_cannot_solve_is_skipped_by_both(tmp_path):
    act = lambda: train(tmp_path, fails=(1, 1), on_solver_error="skip", **SETTINGS)  # noqa: E731
    assert on_two_ranks(tmp_path, act) == []
    gradients, passes = gradients_and_passes(tmp_path)
    assert len(gradients) == 1
    assert (passes[1]["samples"], passes[1]["skipped"]) == (14, 1)


@forks
def test_a_full_disk_on_rank_0_stops_both(tmp_path):
    def act():
        import adamode.train.trainer as module

        def full(path, state):
            raise TrainingError("checkpoint could not be written (No space left on device)")

        module.save_checkpoint = full
        train(tmp_path, **SETTINGS)

    errors = on_two_ranks(tmp_path, act)
    assert len(errors) == 2
    assert all("No space left on device" in error for error in errors)


@forks
def test_batch_norm_is_refused_with_several_processes_before_anything_is_written(tmp_path):
    errors = on_two_ranks(tmp_path, lambda: train(tmp_path, norm=True, **SETTINGS))
    assert len(errors) == 2
    assert all("'0' is a BatchNorm2d in training mode, and there are 2 processes" in e for e in errors)
    assert not (tmp_path / "run").exists()


def test_batch_norm_in_evaluation_mode_and_with_one_process_passes():
    model = nn.Sequential(nn.SyncBatchNorm(3))
    refuse_batch_statistics(model, 1)
    refuse_batch_statistics(model.eval(), 2)
    with pytest.raises(ArgumentError, match="SyncBatchNorm"):
        refuse_batch_statistics(model.train(), 2)


@pytest.mark.parametrize("n", [0, 1, 2, 5, 64])
@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_the_parts_of_a_batch_are_even_and_make_up_the_batch(n, world):
    parts = [Ranks(rank, world).part(torch.arange(n)) for rank in range(world)]
    assert [i for part in parts for i in part] == list(range(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_without_torchrun_there_is_one_process(monkeypatch):
    for name in (*VARIABLES, "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    assert asked_ranks() == (0, 1, 0)
    assert not restarted()
    assert own_device("cuda") == "cuda"


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    for name, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert own_device("cuda") == "cuda:1"
    assert own_device("cpu") == "cpu"
    with pytest.raises(ArgumentError, match="'cuda:0' with 8 processes"):
        own_device("cuda:0")


@pytest.mark.parametrize(("rank", "world"), [("2", "2"), ("-1", "2"), ("one", "2"), ("0", "0")])
def test_an_environment_that_makes_no_sense_is_refused(monkeypatch, rank, world):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(ArgumentError, match="WORLD_SIZE"):
        asked_ranks()


def torchrun(*arguments, restarts=0):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*command, "--max-restarts", str(restarts), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,  # against hanging; a busy machine is slow
    )


@pytest.mark.slow
def test_torchrun_of_the_program_trains_resumes_and_speaks_with_one_voice(tmp_path):
    settings = "--stepping per_sample --dtype float64 --hidden 2 --train-size 27 --batch-size 14"
    settings += f" --schedule constant --output-dir {tmp_path} --name run"
    command = ["-m", "adamode", "train", *settings.split()]
    first = torchrun(*command, "--epochs", 1)
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("test      accuracy") == 1
    assert "2 processes" in first.stdout
    longer = torchrun(*command, "--epochs", 2, "--resume")
    assert longer.returncode == 0, longer.stderr
    straight = torchrun(*command[:-1], "straight", "--epochs", 2)
    assert straight.returncode == 0, straight.stderr
    states = [load_checkpoint(tmp_path / name / "checkpoint.pt")["model"] for name in ("run", "straight")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@forks
def test_shared_steps_of_two_processes_agree_within_the_tolerance(tmp_path):
    """Each rank's norm sees its own half, so the steps differ: within 10 · rtol for a smooth field.

    A field with kinks (ReLU) has gradients that differ by about 1e-3 at every tolerance.
    """
    settings = {"dataset": "circles", "dtype": "float64", "epochs": 1, "batch_size": 501, "rtol": 1e-5}
    settings |= {"atol": 1e-5, "clip": 1000.0}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    train(tmp_path / "one", **settings)
    assert on_two_ranks(tmp_path, lambda: train(tmp_path / "two", **settings)) == []
    gradients, passes = gradients_and_passes(tmp_path / "one")
    gradients2, passes2 = gradients_and_passes(tmp_path / "two")
    for name, gradient in gradients[0].items():
        assert (gradient - gradients2[0][name]).norm() <= 10 * 1e-5 * gradient.norm(), name
    assert [p["samples"] for p in passes] == [p["samples"] for p in passes2]
    for sums in passes2:  # each sample counts the evaluations of its rank
        assert sums["nfe_forward"] == int(sums["nfe_forward"]) >= 8 * sums["samples"]


@pytest.mark.slow
def test_torchrun_starts_a_killed_run_again_and_it_goes_on(tmp_path):
    """--max-restarts: one rank is killed once; the new processes go on from the checkpoint."""
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import json, os, signal, sys\n"
        "from pathlib import Path\n"
        f"sys.path.insert(0, {str(TESTS)!r})\n"
        "from adamode.train import TrainConfig, Trainer\n"
        "from standin import build_standin\n"
        "folder = Path(sys.argv[1])\n"
        "class Killed(Trainer):\n"
        "    def _train_step(self, part):\n"
        "        first = os.environ['TORCHELASTIC_RESTART_COUNT'] == '0'\n"
        "        if first and self.ranks.rank == 1 and self.position.batch == 5:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        super()._train_step(part)\n"
        "kind = Killed if len(sys.argv) > 2 else Trainer\n"
        "config = TrainConfig(output_dir=str(folder), name='run', epochs=1, checkpoint_every=2)\n"
        "kind(config, build=build_standin, quiet=True).fit()\n"
    )
    killed = torchrun(worker, tmp_path / "killed", "kill", restarts=1)
    assert killed.returncode == 0, killed.stderr
    assert torchrun(worker, tmp_path / "whole").returncode == 0
    states = [load_checkpoint(tmp_path / name / "run" / "checkpoint.pt") for name in ("killed", "whole")]
    assert all(torch.equal(states[0]["model"][name], states[1]["model"][name]) for name in states[0]["model"])


def test_the_configuration_of_the_worker_is_one_of_a_run():
    assert TrainConfig(**SETTINGS).dtype == "float64"
