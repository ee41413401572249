"""Samples of a learnt density beside its data, as a picture that a run draws anew after each epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .plotting import BLUE, ORANGE, save_figure
from .solvers.errors import SolverError
from .train.data import DataSet
from .train.logs import say
from .train.position import EpochRecord
from .train.runs import RunFolder
from .train.samples import draw_samples, has_samples
from .train.step import SamplesFailed

POINTS = 4096
SIDE = 8  # images a row, and rows


class SamplePictures:
    """Called with an `EpochRecord` it draws plots/samples.png of a run; where there is no density, nothing.

    quiet: nothing is said of draws that fail.
    """

    def __init__(self, *, quiet: bool = False):
        self.quiet = quiet
        self._of: tuple[RunFolder, DataSet] | None = None

    def __call__(self, record: EpochRecord) -> None:
        """Draws after an epoch."""
        if has_samples(record.model, record.data):
            self._of = record.folder, record.data
            self._draw(record.model, f"after epoch {record.row['epoch']}")

    def of_the_best(self, model: nn.Module, epoch: int) -> Path | None:
        """Draws the weights that were tested, those of ``epoch``; the picture's path, None where nothing was
        drawn in this run."""
        return None if self._of is None else self._draw(model, f"of the best weights, epoch {epoch}")

    def _draw(self, model: nn.Module, when: str) -> Path | None:
        assert self._of is not None
        folder, data = self._of
        try:
            n = POINTS if data.pixels is None else SIDE**2
            drawn = draw_samples(model, n, pixels=data.pixels)
        except (SolverError, SamplesFailed) as error:
            say(f"no picture of samples {when}: {error}", quiet=self.quiet, above_bar=True)
            return None
        path = folder.plots / "samples.png"
        draw_samples_beside(path, data, drawn, f"{folder.path.name}: samples {when}")
        return path


def draw_samples_beside(path: Path, data: DataSet, drawn: Tensor, title: str) -> None:
    """The data's test part on the left, as many samples on the right, to a PNG.

    drawn: points [N, 2], or images [N, 1, H, W] in levels of grey.
    """
    shown = data.test.__getitems__(list(range(min(len(drawn), len(data.test)))))[0]
    parts = (("data", shown if data.pixels is None else data.pixels.decode(shown)), ("samples", drawn))

    def draw(figure: Any) -> None:
        axes = figure.subplots(1, 2)
        for axis, (name, values) in zip(axes, parts, strict=True):
            axis.set_title(name, fontsize=9)
            if data.pixels is None:
                _scatter(axis, values, _limits(shown), BLUE if name == "data" else ORANGE)
            else:
                axis.imshow(mosaic(values), cmap="gray", vmin=0, vmax=data.pixels.levels)
                axis.set_axis_off()
        figure.suptitle(title, fontsize=10)

    save_figure(path, draw, size=(7.6, 4.0))


def _limits(points: Tensor) -> tuple[Tensor, Tensor]:
    """A square around the points with some room."""
    low, high = points.amin(0), points.amax(0)
    middle, half = (low + high) / 2, 0.6 * (high - low).max()
    return middle - half, middle + half


def _scatter(axis: Any, points: Tensor, limits: tuple[Tensor, Tensor], colour: str) -> None:
    """Points inside the limits; how many are not is said below."""
    low, high = limits
    (left, bottom), (right, top) = low.tolist(), high.tolist()
    axis.scatter(*points.double().t().numpy(), s=1.5, color=colour, linewidths=0, rasterized=True)
    axis.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    outside = int(((points < low) | (points > high)).any(1).sum())
    axis.set_xlabel(f"{len(points):,} points" + (f", {outside} outside" if outside else ""))


def mosaic(images: Tensor) -> Any:
    """The first SIDE² images [N, 1, H, W] as one array, a dark line between them."""
    images = images[: SIDE**2].double()
    padded = torch.nn.functional.pad(images, (0, 1, 0, 1))
    n, _, height, width = padded.shape
    rows = -(-n // SIDE)
    padded = torch.cat((padded, padded.new_zeros(rows * SIDE - n, 1, height, width)))
    return padded.view(rows, SIDE, height, width).transpose(1, 2).reshape(rows * height, SIDE * width).numpy()
