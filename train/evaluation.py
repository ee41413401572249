"""Unseen data: a pass over them; a run's model loaded again, judged on a part, asked about a picture."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..models.density_model import DensityModel
from ..solvers.checks import check_positive
from ..solvers.errors import ArgumentError, CheckpointError, TrainingError, nearest
from .build import build_model
from .checkpoint import load_checkpoint
from .config import TrainConfig
from .data import DataSet, load_data
from .data.pictures import picture
from .data.sequences import one_step_ahead
from .data.splits import Examples, LabelledImages
from .device import checked_device
from .distributed import Ranks
from .known import check_run
from .metrics import count_parameters, efficacy
from .objective import Objective
from .own import made_by
from .own_settings import refuse_other_data, refuse_other_sizes
from .reproducible import drawing_from, seed_everything
from .runs import RunFolder
from .step import (
    CANNOT_BE_SOLVED,
    EpochSums,
    SamplesFailed,
    agree,
    check_samples,
    mixed_precision,
    on_device,
    parts_of_batches,
    read_values,
    solve_counts,
)

Builder = Callable[[TrainConfig], nn.Module]


@dataclasses.dataclass(frozen=True)
class LoadedRun:
    """A run's configuration and its model, in evaluation mode, with the weights of ``epoch``.

    checkpoint: the file that the weights are from; None for an untrained model.
    data_sha256: of the data that it was trained on; "" for an untrained model.
    """

    config: TrainConfig
    model: nn.Module
    epoch: int
    device: torch.device
    checkpoint: Path | None = None
    data_sha256: str = ""

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and inputs."""
        return getattr(torch, self.config.dtype)


@dataclasses.dataclass(frozen=True)
class Judgement:
    """The results of a pass over a part of the data.

    quality: "accuracy" (0 … 1), "rmse" (in ``unit``), "nats" or "bits_per_dim", the kind of ``value``.
    nfe_forward: mean over samples.
    efficacy_forward: accuracy ÷ NFE; None without an accuracy, or where nothing is solved.
    """

    part: str
    samples: int
    loss: float
    quality: str
    value: float
    unit: str
    nfe_forward: float
    efficacy_forward: float | None
    parameters: int
    epoch: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values, with the measure under its own name."""
        values = dataclasses.asdict(self)
        values[values.pop("quality")] = values.pop("value")
        return values


def load_run(
    folder: str | os.PathLike[str],
    *,
    weights: str = "best",
    device: str | None = None,
    build: Builder | None = None,
) -> LoadedRun:
    """The model of the run in ``folder``, with the weights that were best in validation, or the last.

    device: None is the run's.
    build: made the run's model, where the name in its settings cannot be imported.
    Raises: CheckpointError where there is no run or no such weights, ArgumentError for other values.
    """
    check_run(folder, weights)
    run = RunFolder(Path(folder))
    state = load_checkpoint(run.checkpoint)
    if weights == "best" and state["best"] is None:
        raise CheckpointError(
            f"{str(folder)!r} has not finished an epoch, so no weights are the best yet: take weights='last'."
        )
    config = TrainConfig.from_dict(state["config"])
    fresh, best = untrained_run(config, device=device, build=build), weights == "best"
    try:
        fresh.model.load_state_dict(state["best"]["model"] if best else state["model"])
    except RuntimeError as error:
        raise CheckpointError(
            f"the weights in {str(run.checkpoint)!r} do not fit the model of this version: {error}"
        ) from error
    epoch = state["best"]["epoch"] if best else state["epoch"]
    return dataclasses.replace(fresh, epoch=epoch, checkpoint=run.checkpoint, data_sha256=state["data"])


def untrained_run(
    config: TrainConfig, *, device: str | None = None, build: Builder | None = None
) -> LoadedRun:
    """The model that a run of ``config`` begins with; draws from the global random numbers its seed gives.

    device: None is the configuration's.
    """
    place = checked_device(config.device if device is None else device)
    seed_everything(config.seed)
    made = build_model(config) if build is None else made_by(build, config, f"build={build!r}")
    model = made.to(place, getattr(torch, config.dtype))
    return LoadedRun(config, model.eval(), 0, place)


def load_data_of(run: LoadedRun, *, data_dir: str | None = None, path: str | None = None) -> DataSet:
    """The data set that a run was trained on.

    data_dir: where its files are now, if elsewhere.
    path: the same of one's own data.
    Raises: ArgumentError for a run on data that were given in Python, without a path; CheckpointError for
    other data, whose training part would scale the inputs in another way.
    """
    config = run.config
    config = config if data_dir is None else dataclasses.replace(config, data_dir=data_dir)
    config = config if path is None else dataclasses.replace(config, data=path)
    data = load_data(config.dataset, config.data_options())
    refuse_other_sizes(config, data)
    if run.checkpoint is not None:
        refuse_other_data(run.data_sha256, data, run.checkpoint, given=False)
    return data


@torch.no_grad()
def evaluate(
    model: nn.Module,
    data: Examples,
    objective: Objective,
    *,
    batch_size: int,
    ranks: Ranks,
    amp: str = "off",
    dtype: torch.dtype = torch.float32,
) -> Iterator[EpochSums]:
    """Loss, score and forward NFE over a data set, after each batch; the last yield is the whole.

    What a model draws follows from the batch's number and the rank: a pass repeats, and leaves the random
    numbers of training alone.
    Raises: TrainingError, on every rank, where a batch cannot be solved or the loss is not finite.
    """
    model.eval()
    sums = EpochSums()
    order = torch.arange(len(data))
    for number, part in enumerate(parts_of_batches(data, order, batch_size, ranks)):
        batch, failure = EpochSums(), ""
        if part is not None:
            x, y = on_device(part, ranks.device, dtype)
            try:
                with (
                    drawing_from(number * ranks.world + ranks.rank, x.device),
                    mixed_precision(model, amp, x.device),
                ):
                    output = model(x)
                check_samples(model)
                loss, score = read_values(objective.loss(output, y), objective.score(output, y))
                batch.add(len(y), loss * len(y), score, (solve_counts(model, len(y))[0], 0.0))
            except (*CANNOT_BE_SOLVED, SamplesFailed) as error:
                failure = str(error)
        told = agree(batch, failure, ranks)
        if told or not torch.isfinite(torch.tensor(batch.loss)):
            reason = told or f"the loss is {batch.loss / batch.samples:.6g}"
            raise TrainingError(f"unseen data, batch {number} (counted from 0): {reason}")
        sums.add(batch.samples, batch.loss, batch.score, (batch.nfe_forward, 0.0))
        yield sums


def judge(
    run: LoadedRun,
    data: DataSet,
    part: str = "test",
    *,
    batch_size: int | None = None,
    one_step: bool = False,
    draws: int | None = None,
) -> Judgement:
    """Loss, accuracy, error or likelihood, NFE and efficacy of a run's model on a part of its data.

    part: "train", "val", "test", or the name of one of the data's further test sets.
    one_step: predict each row of a recording from the measured rows before it, `DataSet.given` of them,
    instead of simulating it from the first ones only.
    draws: of the momenta a sample, where a density has some; None: as in training's validation. With one draw
    the loss is the evidence bound.
    Raises: ArgumentError for an unknown part, one_step where there are no sequences, or draws where there
    are no momenta; TrainingError where a batch cannot be solved.
    """
    parts = {"train": data.train, "val": data.val, "test": data.test, **data.more_tests}
    if part not in parts:
        raise ArgumentError(f"part={part!r} is not one of {data.name}'s: {nearest(str(part), parts)}")
    objective, sums = Objective.of(data), EpochSums()
    samples = _without_augmentation(parts[part])
    if one_step:
        if not data.given:
            raise ArgumentError(f"one_step=True: {data.name} has no sequences; leave it out.")
        samples = one_step_ahead(samples, data.given)
    passes = evaluate(
        run.model if draws is None else _with_draws(run, draws),
        samples,
        objective,
        batch_size=run.config.batch_size if batch_size is None else batch_size,
        ranks=Ranks(device=run.device),
        amp=run.config.amp,
        dtype=run.dtype,
    )
    for so_far in passes:
        sums = so_far
    value, nfe = objective.measure(sums), sums.mean("nfe_forward")
    return Judgement(
        part=part,
        samples=sums.samples,
        loss=sums.mean("loss"),
        quality=objective.quality,
        value=value,
        unit=objective.unit,
        nfe_forward=nfe,
        efficacy_forward=efficacy(value if objective.quality == "accuracy" else None, nfe),
        parameters=count_parameters(run.model),
        epoch=run.epoch,
    )


def _with_draws(run: LoadedRun, draws: int) -> nn.Module:
    check_positive(draws, "draws", integer=True)
    if not isinstance(run.model, DensityModel) or run.model.exact:
        raise ArgumentError(
            f"draws={draws}: {run.config.model} on {run.config.dataset} has no momenta to draw; leave it "
            "away."
        )
    model = copy.copy(run.model)
    model.draws = draws
    return model


def _without_augmentation(data: Any) -> Any:
    if isinstance(data, LabelledImages) and data.augment is not None:
        return LabelledImages(data.images, data.labels, data.transform)
    return data


def read_picture(path: str | os.PathLike[str], data: DataSet, *, invert: bool = False) -> Tensor:
    """A picture as an input [1, C, H, W] of the data set: its size, colours, range and normalisation.

    Grey data take the picture's luminance, with white as the largest value; ``invert`` is for dark ink
    on light paper, where the data have light ink on dark.  Transparent pixels are taken as black.
    Raises: ArgumentError if the data are no pictures, DataError for a file that is none.
    """
    if not isinstance(data.train, LabelledImages):
        raise ArgumentError(f"{data.name} has no pictures: inputs of shape {data.card.shape} cannot be read.")
    channels, height, width = data.train.images.shape[1:]
    pixels = picture(path, channels, (width, height)).astype(np.float64)
    pixels = (255 - pixels if invert else pixels) / 255
    white = 255.0 if data.raw is None or data.raw.white is None else data.raw.white
    whole = torch.from_numpy(np.rint(pixels * white).astype(np.uint8))[None]
    return data.train.transform(whole)


@torch.no_grad()
def probabilities(run: LoadedRun, x: Tensor) -> list[float]:
    """The model's probability of each class for one input [1, …]. Raises: SolverError."""
    with mixed_precision(run.model, run.config.amp, run.device):
        output = run.model(x.to(run.device, run.dtype))
    return output.double().softmax(1)[0].tolist()
