"""The training runs that Fig. 2, Fig. 4 and Table 1 share: planned, made where they lack, read.

What the paper says: six models on MNIST and CIFAR-10, 10 epochs, NFE of the forward and the backward pass.
What it leaves open: the number of seeds, the split into training and validation, whether an NFE is that of
the test or of a training epoch, and which epoch its numbers are from.
What its authors' code does: one seed; the sizes, rates, tolerances, batches and clips that the models are
registered with here (`adamode.models.presets`), except that Adam's step size on MNIST is 5e-5 there and
1e-4 in the paper, which is taken; pixels scaled to [0, 1]; gradients by torchdiffeq's continuous adjoint.
What is done here: the exact derivative of the steps taken ("discrete"), of which the network's forward
numbers are the same; several seeds; the test set after every epoch.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ... import __version__
from ...models import names
from ...solvers.errors import CheckpointError, TrainingError
from ...train.config import TrainConfig
from ...train.data import DataSet, load_data
from ...train.evaluation import LoadedRun, load_data_of, load_run, untrained_run
from ...train.metrics import count_parameters
from ...train.reproducible import epoch_order
from ...train.runs import RunFolder
from ...train.step import on_device
from ...train.sweep import Ended, Job, plan, run_sweep
from ...train.trainer import Trainer
from .work import Work, computing, read_json

MODEL_NAMES = {
    "node": "NODE",
    "anode": "ANODE",
    "sonode": "SONODE",
    "hbnode": "HBNODE",
    "ghbnode": "GHBNODE",
    "adamnode": "AdamNODE",
}
DATA_NAMES = {"mnist": "MNIST", "cifar10": "CIFAR-10", "digits": "scikit-learn's 8×8 digits"}


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """Which runs there are to be.

    datasets: the paper's, "mnist" and "cifar10".  stand_in: a data set that is trained on in their place,
    to see the figure made without them; "" trains on them.  models, seeds: every combination.
    epochs.  train_size, val_size, test_size: images; 0 is all that there are.  normalise: "unit" scales
    pixels to [0, 1], as the authors do.  checkpoint_every: optimiser steps.
    processes: each run in a process of its own; False makes one after another in this one, for runs that
    take less time than a process takes to start.  Everything else is what
    `TrainConfig` takes for the data set and the model where it is not told.
    """

    datasets: tuple[str, ...] = ("mnist", "cifar10")
    stand_in: str = ""
    models: tuple[str, ...] = names()
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 10
    train_size: int = 0
    val_size: int = 0
    test_size: int = 0
    normalise: str = "unit"
    checkpoint_every: int = 5
    processes: bool = True


# By scale: what a figure's settings begin with.
SIZES: Mapping[str, dict[str, Any]] = {
    "smoke": {
        "stand_in": "digits",
        "seeds": (0,),
        "epochs": 2,
        "train_size": 64,
        "val_size": 32,
        "test_size": 32,
        "processes": False,
    },
    "sample": {"epochs": 5, "train_size": 1000, "val_size": 100, "test_size": 1000},
    "paper": {},
}


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run, or (`untrained`) a model as one would begin with, without history.

    dataset: what it was trained on.  history: its epochs' rows of metrics.  final: the last line, with the
    number of parameters.  config: its settings.
    """

    dataset: str
    model: str
    seed: int
    folder: Path
    history: tuple[dict[str, Any], ...]
    final: dict[str, Any]
    config: TrainConfig


def untrained(config: TrainConfig) -> Run:
    """The model that a run of these settings begins with."""
    final = {"parameters": count_parameters(untrained_run(config).model)}
    return Run(config.dataset, config.model, config.seed, Path(config.folder), (), final, config)


def data_sets(settings: TrainingSettings) -> dict[str, tuple[str, ...]]:
    """What is trained on, and for which of the paper's data sets it stands."""
    if settings.stand_in:
        return {settings.stand_in: settings.datasets}
    return {name: (name,) for name in settings.datasets}


def plan_runs(settings: TrainingSettings, work: Work) -> list[Job]:
    """Every run, checked, seeds outermost: a stop leaves whole seeds of all models and data sets.

    Reads only. Raises: CheckpointError where a folder holds another run under the name, or one of another
    version, device or number of threads.
    """
    allowed = work.allowed
    jobs: list[Job] = []
    for seed in settings.seeds:
        for dataset in data_sets(settings):
            base = {
                "dataset": dataset,
                "output_dir": str(work.runs),
                "data_dir": allowed.data_dir,
                "device": allowed.device,
                "threads": allowed.threads,
                "epochs": settings.epochs,
                "train_size": settings.train_size,
                "val_size": settings.val_size,
                "test_size": settings.test_size,
                "normalise": settings.normalise,
                "test_every_epoch": True,
                "checkpoint_every": settings.checkpoint_every,
            }
            jobs += plan(base, {"model": list(settings.models), "seed": [seed]})
    for job in jobs:
        _refuse_another(job.config)
    return jobs


def _refuse_another(config: TrainConfig) -> None:
    """Raises: CheckpointError where the run's folder was begun by another version, or on another device or
    with other threads, which a run may go on with and a figure must not mix."""
    folder = RunFolder(config.folder)
    if not folder.config.exists():
        return
    there, made = folder.read_config(), read_json(folder.config).get("versions")
    version = made.get("adamode") if isinstance(made, dict) else None
    for name, found, asked in (
        ("version", version, __version__),
        ("device", there.device, config.device),
        ("threads", there.threads, config.threads),
    ):
        if found != asked:
            raise CheckpointError(
                f"{str(folder.path)!r} holds a run whose {name} is not this one's: {found!r} there, "
                f"{asked!r} here. Choose another --output-dir, or delete that folder."
            )


def training_runs(
    settings: TrainingSettings, work: Work, *, needed: bool = True
) -> tuple[list[Run], list[str]]:
    """(The finished runs in the order of the plan, what is missing as sentences).

    `Allowed.jobs` of 1 or more trains what is not finished, in so many processes at once; 0 trains nothing
    and takes what there is.  needed: False where none at all will do, too.
    Raises: CheckpointError where nothing is finished and nothing may be trained; TrainingError where nothing
    could be; DataError where the images are not there.
    """
    jobs = plan_runs(settings, work)
    left = [job for job in jobs if job.state != "finished"]
    failed: list[Ended] = []
    if left and work.allowed.jobs > 0:
        failed = _train(settings, jobs, left, work)
        jobs = plan_runs(settings, work)
    runs = [_read(job.config) for job in jobs if job.state == "finished"]
    missing = [
        f"{e.job.config.name} could not be trained: {e.said.replace(str(work.runs), 'runs')}" for e in failed
    ]
    if not runs and needed and missing:
        raise TrainingError(f"not one of the {len(jobs)} runs could be trained. {missing[0]}")
    if not runs and needed:
        raise CheckpointError(
            f"{str(work.runs)!r} holds no finished run of the {len(jobs)} planned: nothing may be trained: "
            "allow --jobs 1 or more."
        )
    if len(runs) + len(failed) < len(jobs):
        missing.append(f"{len(jobs) - len(runs) - len(failed)} of {len(jobs)} runs are not finished yet.")
    return runs, missing


def _read(config: TrainConfig) -> Run:
    folder = RunFolder(config.folder)
    *history, final = folder.read_metrics()
    return Run(config.dataset, config.model, config.seed, folder.path, tuple(history), final, config)


def _train(settings: TrainingSettings, jobs: Sequence[Job], left: Sequence[Job], work: Work) -> list[Ended]:
    """Trains what is left; returns those that failed."""
    for config in {job.config.dataset: job.config for job in left}.values():
        load_data(config.dataset, config.data_options())  # what lacks is said before any process starts
    say, progress = work.allowed.say, _Progress(jobs)
    say(f"runs: {progress}")

    def started(job: Job) -> None:
        progress.started[job.config.name] = time.perf_counter()
        say(f"runs: {job.config.name} {'goes on' if job.state == 'unfinished' else 'begins'}")

    def ended(run: Ended) -> None:
        progress.ended(run, at_once=work.allowed.jobs)
        told = "is finished" if run.status == 0 else f"FAILED: {run.said}"
        say(f"runs: {run.job.config.name} {told}; {progress}")

    if settings.processes:
        over = run_sweep(left, at_once=work.allowed.jobs, on_start=started, on_end=ended)
    else:
        over = [_here(job, started, ended) for job in left]
    return [run for run in over if run.status != 0]


def _here(job: Job, started: Callable[[Job], None], ended: Callable[[Ended], None]) -> Ended:
    """A run made in this process; torch's random numbers outside it do not move on."""
    started(job)
    status, said = 0, ""
    try:
        with computing(job.config.threads):
            Trainer(job.config, quiet=True).fit(resume=job.state == "unfinished")
    except TrainingError as error:
        status, said = 1, str(error)
    run = Ended(job, status, said)
    ended(run)
    return run


class _Progress:
    """How many runs are finished, and how long the others will take, judged by those that are."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.all = len(jobs)
        self.left = {job.config.name: job.config for job in jobs if job.state != "finished"}
        self.started: dict[str, float] = {}
        # Seconds of finished runs by what decides them most; here those of training, which leaves tests out.
        self.took: dict[tuple[str, str], float] = {}
        self.at_once = 1
        for job in jobs:
            if job.state == "finished":
                rows = _read(job.config).history
                self.took[_kind(job.config)] = sum(row["seconds"] for row in rows)

    def ended(self, run: Ended, *, at_once: int) -> None:
        """A run has ended: what it took counts from now on."""
        config, self.at_once = run.job.config, at_once
        self.left.pop(config.name, None)
        if run.status == 0 and run.job.state == "new":
            self.took[_kind(config)] = time.perf_counter() - self.started[config.name]

    def seconds_left(self) -> float | None:
        """None while nothing tells. A model that has not been seen takes the mean of its data set's."""
        total = 0.0
        for config in self.left.values():
            alike = [s for (dataset, _), s in self.took.items() if dataset == config.dataset]
            known = self.took.get(_kind(config)) or (sum(alike) / len(alike) if alike else None)
            if known is None:
                return None
            total += known
        return total / self.at_once

    def __str__(self) -> str:
        done = f"{self.all - len(self.left)} of {self.all} done"
        seconds = self.seconds_left()
        return done if seconds is None or not self.left else f"{done}, about {duration(seconds)} left"


def _kind(config: TrainConfig) -> tuple[str, str]:
    return config.dataset, config.model


def duration(seconds: float) -> str:
    """For people: "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def loaded_again(run: Run, work: Work) -> tuple[LoadedRun, DataSet]:
    """The run's model with its last weights (its first, where it is untrained), and its data."""
    if run.history:
        loaded = load_run(run.folder, weights="last", device=work.allowed.device)
    else:
        loaded = untrained_run(run.config, device=work.allowed.device)
    return loaded, load_data_of(loaded, data_dir=work.allowed.data_dir or None)


def first_batches(loaded: LoadedRun, data: DataSet, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The training images and labels of the run's first epoch, in its order, in batches of ``size``."""
    order = epoch_order(len(data.train), loaded.config.seed, 0)
    for indices in order.split(size):
        yield on_device(data.train.__getitems__(indices.tolist()), loaded.device, loaded.dtype)
