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
from ...solvers.errors import CheckpointError, TrainingError
from ...train.config import TrainConfig
from ...train.data import load_data
from ...train.evaluation import load_data_of, load_run, untrained_run
from ...train.metrics import count_parameters, efficacy
from ...train.objective import Objective
from ...train.recipes import RECIPES
from ...train.reproducible import epoch_order
from ...train.runs import RunFolder
from ...train.step import EpochSums, descend, on_device, solving_with
from ...train.sweep import Ended, Job, plan, run_sweep
from ...train.trainer import Trainer
from .figure import MACHINERY
from .figure import MODEL_NAMES as MODEL_NAMES
from .work import Allowed, Work, computing, read_json, say

DATA_NAMES = MACHINERY.table("data")
PAPER_MODELS = ("node", "anode", "sonode", "hbnode", "ghbnode", "adamnode")
PAPER_EPOCHS, PAPER_IMAGES = 10, {"mnist": 60_000, "cifar10": 50_000}


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """Which runs there are to be.

    datasets: the paper's, "mnist" and "cifar10".  stand_in: a data set that is trained on in their place,
    to see the figure made without them; "" trains on them.  models, seeds: every combination.
    cifar10_models, cifar10_epochs: of CIFAR-10, where they are others.
    epochs.  train_size, val_size, test_size: images; 0 is all that there are.  normalise: "unit" scales
    pixels to [0, 1], as the authors do.  checkpoint_every: optimiser steps.
    processes: each run in a process of its own; False makes one after another in this one, for runs that
    take less time than a process takes to start.  Everything else is what
    `TrainConfig` takes for the data set and the model where it is not told.
    """

    datasets: tuple[str, ...] = ("mnist", "cifar10")
    stand_in: str = ""
    models: tuple[str, ...] = PAPER_MODELS
    cifar10_models: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 10
    cifar10_epochs: int = 0
    train_size: int = 0
    val_size: int = 0
    test_size: int = 0
    normalise: str = "unit"
    checkpoint_every: int = 5
    processes: bool = True

    def models_on(self, dataset: str) -> tuple[str, ...]:
        """The models that are trained on a data set."""
        return (self.cifar10_models if dataset == "cifar10" else ()) or self.models

    def epochs_on(self, dataset: str) -> int:
        """How long they are trained on it."""
        return (self.cifar10_epochs if dataset == "cifar10" else 0) or self.epochs


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
    # A step of CIFAR-10 takes four times MNIST's, and NODE's, the widest, another five times that.
    "sample": {
        "cifar10_models": tuple(name for name in PAPER_MODELS if name != "node"),
        "epochs": 5,
        "cifar10_epochs": 2,
        "train_size": 1000,
        "val_size": 100,
        "test_size": 1000,
    },
    # All of the 5,000 training images of a small sample file, a tenth of them for validation.
    "full-small": {
        "models": ("node", "hbnode", "adamnode"),
        "seeds": (0,),
        "train_size": 4500,
        "val_size": 500,
        "test_size": 1000,
    },
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

    def piece(self, kind: str, *more: str) -> str:
        """The name of a piece of a figure that is made with the run's model."""
        weights = (f"seed={self.seed}", *([] if self.history else ["untrained"]))
        return "-".join((kind, self.dataset, self.model, *more, *weights))


def untrained(config: TrainConfig) -> Run:
    """The model that a run of these settings begins with."""
    final = {"parameters": count_parameters(untrained_run(config).model)}
    return Run(config.dataset, config.model, config.seed, Path(config.folder), (), final, config)


def data_sets(settings: TrainingSettings) -> dict[str, tuple[str, ...]]:
    """What is trained on, and for which of the paper's data sets it stands."""
    if settings.stand_in:
        return {settings.stand_in: settings.datasets}
    return {name: (name,) for name in settings.datasets}


def paper_steps(dataset: str) -> int:
    """Optimiser steps of the paper's training: 10 epochs of all training images in the recipe's batches."""
    return PAPER_EPOCHS * -(-PAPER_IMAGES[dataset] // RECIPES[dataset].batch_size)


def steps_of(settings: TrainingSettings, dataset: str, epochs: int | None = None) -> int:
    """Optimiser steps of a run, or of its first ``epochs``; of all images there are those of the paper, less
    the tenth that validates."""
    images = settings.train_size or round(0.9 * PAPER_IMAGES[dataset])
    each = -(-images // RECIPES[dataset].batch_size)
    return each * (settings.epochs_on(dataset) if epochs is None else epochs)


def run_options(settings: Any, allowed: Allowed) -> dict[str, Any]:
    """What `TrainConfig` takes for every run of a figure: the sizes of its settings, what is allowed."""
    sizes = ("epochs", "train_size", "val_size", "test_size", "normalise")
    given = {name: getattr(allowed, name) for name in ("data_dir", "device", "threads")}
    return {**{name: getattr(settings, name) for name in sizes}, **given, "test_every_epoch": True}


def plan_runs(settings: TrainingSettings, work: Work) -> list[Job]:
    """Every run, checked, seeds outermost: a stop leaves whole seeds of all models and data sets.

    Reads only. Raises: CheckpointError where a folder holds another run under the name, or one of another
    version, device or number of threads.
    """
    base = {
        **run_options(settings, work.allowed),
        "checkpoint_every": settings.checkpoint_every,
        "output_dir": str(work.runs),
    }
    jobs: list[Job] = []
    for seed in settings.seeds:
        for dataset in data_sets(settings):
            mine = {**base, "dataset": dataset, "epochs": settings.epochs_on(dataset)}
            jobs += plan(mine, {"model": list(settings.models_on(dataset)), "seed": [seed]})
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
    found = {"version": version, "device": there.device, "threads": there.threads}
    asked = {"version": __version__, "device": config.device, "threads": config.threads}
    if other := [name for name in asked if found[name] != asked[name]]:
        told = {"name": other[0], "there": found[other[0]], "here": asked[other[0]]}
        raise CheckpointError(say("other run", folder=str(folder.path), **told))


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
    waiting = [job for job in jobs if job.state != "finished"]
    failed: list[Ended] = []
    if waiting and work.allowed.jobs > 0:
        failed = _train(settings, jobs, waiting, work)
        jobs = plan_runs(settings, work)
    runs = [_read(job.config) for job in jobs if job.state == "finished"]
    missing = [
        say("untrained", run=e.job.config.name, said=e.said.replace(str(work.runs), "runs")) for e in failed
    ]
    if not runs and needed:
        if missing:
            raise TrainingError(say("all failed", all=len(jobs), first=missing[0]))
        raise CheckpointError(say("no runs", folder=str(work.runs), all=len(jobs)))
    if left := len(jobs) - len(runs) - len(failed):
        missing.append(say("unfinished", left=left, all=len(jobs)))
    return runs, missing


def _read(config: TrainConfig) -> Run:
    folder = RunFolder(config.folder)
    *history, final = folder.read_metrics()
    return Run(config.dataset, config.model, config.seed, folder.path, tuple(history), final, config)


def _train(settings: TrainingSettings, jobs: Sequence[Job], left: Sequence[Job], work: Work) -> list[Ended]:
    """Trains what is left; returns those that failed."""
    for config in {job.config.dataset: job.config for job in left}.values():
        load_data(config.dataset, config.data_options())  # what lacks is said before any process starts
    progress = _Progress(jobs, work.allowed.jobs if settings.processes else 1, work.allowed.say)
    if settings.processes:
        at_once = work.allowed.jobs
        over = run_sweep(left, at_once=at_once, on_start=progress.started, on_end=progress.ended)
    else:
        over = [_here(job, progress) for job in left]
    return [run for run in over if run.status != 0]


def _here(job: Job, progress: _Progress) -> Ended:
    """A run made in this process; torch's random numbers outside it do not move on."""
    progress.started(job)
    run = Ended(job, 0, "")
    try:
        with computing(job.config.threads):
            Trainer(job.config, quiet=True).fit(resume=job.state == "unfinished")
    except TrainingError as error:
        run = Ended(job, 1, str(error))
    progress.ended(run)
    return run


class _Progress:
    """Says how many runs are finished, and how long the others will take, judged by those that are."""

    def __init__(self, jobs: Sequence[Job], at_once: int, say: Callable[[str], None]) -> None:
        self.all, self.at_once, self.say = len(jobs), at_once, say
        self.left = {job.config.name: job.config for job in jobs if job.state != "finished"}
        self.begun: dict[str, float] = {}
        # Seconds of finished runs by what decides them most; here those of training, which leaves tests out.
        finished = [job.config for job in jobs if job.state == "finished"]
        self.took: dict[str, dict[str, float]] = {job.config.dataset: {} for job in jobs}
        for c in finished:
            self.took[c.dataset][c.model] = sum(row["seconds"] for row in _read(c).history)
        say(f"runs: {self}")

    def started(self, job: Job) -> None:
        """A run begins."""
        self.begun[job.config.name] = time.perf_counter()
        self.say(f"runs: {job.config.name} {'goes on' if job.state == 'unfinished' else 'begins'}")

    def ended(self, run: Ended) -> None:
        """A run has ended: what it took counts from now on."""
        config = run.job.config
        self.left.pop(config.name, None)
        if run.status == 0 and run.job.state == "new":
            self.took[config.dataset][config.model] = time.perf_counter() - self.begun[config.name]
        told = "is finished" if run.status == 0 else f"FAILED: {run.said}"
        self.say(f"runs: {config.name} {told}; {self}")

    def __str__(self) -> str:
        """A model that has not been seen takes the mean of its data set's."""
        done, seconds = f"{self.all - len(self.left)} of {self.all} done", 0.0
        for config in self.left.values():
            alike = self.took[config.dataset]
            if not alike:
                return done
            seconds += alike.get(config.model) or sum(alike.values()) / len(alike)
        return f"{done}, about {duration(seconds / self.at_once)} left" if self.left else done


def duration(seconds: float) -> str:
    """For people: "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Again:
    """A run's model once more, with its last weights (its first, where it is untrained), and its data."""

    def __init__(self, run: Run, work: Work):
        if run.history:
            self._loaded = load_run(run.folder, weights="last", device=work.allowed.device)
        else:
            self._loaded = untrained_run(run.config, device=work.allowed.device)
        self._data = load_data_of(self._loaded, data_dir=work.allowed.data_dir or None)
        self.config, self.device = self._loaded.config, self._loaded.device
        self.model = self._loaded.model.train()

    def batches(self, count: int, size: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The first ``count`` batches of the run's first epoch, images and labels, in its order.

        size: of a batch; 0 is the run's own.
        """
        data = self._data.train
        order = epoch_order(len(data), self.config.seed, 0)
        for indices in order.split(size or self.config.batch_size)[:count]:
            yield on_device(data.__getitems__(indices.tolist()), self.device, self._loaded.dtype)

    def step(self, x: Tensor, y: Tensor, **changes: Any) -> EpochSums:
        """A training step but for the optimiser's: forwards and backwards. changes: of `SolveSettings`.

        Raises: what `train.step.descend` raises where it cannot be solved.
        """
        self.model.zero_grad(set_to_none=True)
        objective = Objective.of(self._data)
        with solving_with(self.model, **changes):
            return descend(self.model, x, y, objective, total=len(y), parts=1, amp=self.config.amp)


_WAYS = ("forward", "backward")
METRICS = ("train_loss", "test_accuracy", *(f"{of}_{way}" for of in ("nfe", "efficacy") for way in _WAYS))


def epoch_of(row: dict[str, Any]) -> dict[str, Any]:
    """An epoch of a run as the figures need it, from its row of metrics.

    Efficacy forward is of the test pass, backward of the training epoch.
    """
    accuracy, forward, backward = row["test_accuracy"], row["test_nfe_forward"], row["nfe_backward"]
    efficacies = (efficacy(accuracy, forward), efficacy(accuracy, backward))
    values = (row["train_loss"], accuracy, forward, backward, *efficacies)
    return {"epoch": row["epoch"], **dict(zip(METRICS, values, strict=True)), "seconds": row["seconds"]}
