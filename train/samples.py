"""Samples of a learnt density: drawn, in the data's own units, and written to a file."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..models.density_model import DensityModel
from ..solvers.checks import check_positive
from ..solvers.errors import ArgumentError
from ..solvers.write_aside import check_numbers_file, write_aside
from .data import DATASETS, PLANE, SMALL_IMAGES, DataSet, Pixels, model_task
from .evaluation import LoadedRun
from .reproducible import drawing_from
from .step import check_samples, solving_with

AT_ONCE = 4096  # rows of one solve


def has_samples(model: nn.Module, data: DataSet) -> bool:
    """Whether there is something to draw: a density, whose model can."""
    return data.task == "density" and callable(getattr(model, "sample", None))


@torch.no_grad()
def draw_samples(model: Any, n: int, *, pixels: Pixels | None, seed: int = 0) -> Tensor:
    """n draws of a model with ``sample``, [n, *S] on the CPU, of the data before their preparation.

    pixels: of the data set; draws of images are numbers between whole ones, and may lie a little outside of
        0 … levels.
    seed: of the draws; torch's global generators are afterwards what they were.
    Raises: SolverError or SamplesFailed where the flow cannot be solved.
    """
    check_positive(n, "samples", integer=True)
    place = next(model.parameters()).device
    parts = []
    with drawing_from(seed, place), solving_with(model, compile=False):  # one pass does not repay it
        for start in range(0, n, AT_ONCE):
            parts.append(model.sample(min(AT_ONCE, n - start)).cpu())
            check_samples(model)
    drawn = torch.cat(parts)
    return drawn if pixels is None else pixels.decode(drawn)


def samples_of_run(run: LoadedRun, n: int, *, seed: int = 0) -> Tensor:
    """`draw_samples` of a run's model; its data are not read.

    Raises: ArgumentError where the run learnt no density.
    """
    dataset = run.config.dataset
    if not isinstance(run.model, DensityModel):
        others = ", ".join(name for name in DATASETS if model_task(name) in (PLANE, SMALL_IMAGES))
        raise ArgumentError(
            f"samples={n}: a {run.config.model} on {dataset} gives answers, not samples; train a density, on "
            f"one of {others}."
        )
    return draw_samples(run.model, n, pixels=DATASETS[dataset].pixels, seed=seed)


def write_samples(path: str | os.PathLike[str], samples: Tensor) -> None:
    """Writes samples [N, *S] to a file, aside and renamed: .npz with one array "samples", or .csv with a
    line a sample and columns x1, x2 ….

    Raises: ArgumentError for another ending, OSError if it cannot be written.
    """
    check_numbers_file(path)
    values = samples.numpy()
    if Path(path).suffix.lower() == ".npz":
        buffer = io.BytesIO()
        np.savez(buffer, samples=values)
        write_aside(path, buffer.getvalue())
        return
    rows = values.reshape(len(values), -1)
    text = io.StringIO()
    text.write(",".join(f"x{i + 1}" for i in range(rows.shape[1])) + "\n")
    # Nine digits tell every float32 apart, 17 every float64.
    np.savetxt(text, rows, fmt="%.9g" if values.dtype == np.float32 else "%.17g", delimiter=",")
    write_aside(path, text.getvalue())
