"""Figures that are made from training runs, a section a data set: rows, what is said of them, their lines."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ...plotting import LOOKS
from .figure import Row
from .training import (
    DATA_NAMES,
    MODEL_NAMES,
    Run,
    TrainingSettings,
    data_sets,
    paper_steps,
    steps_of,
    training_runs,
)
from .work import Work

LOOK_OF: dict[str, dict[str, Any]] = dict(zip(MODEL_NAMES, LOOKS, strict=True))
# Bars have neither marker nor dashes: these tell the models apart where colour is lost.
HATCH_OF = dict(zip(MODEL_NAMES, ("", "///", "...", "xxx", "\\\\\\", "++"), strict=True))


@dataclasses.dataclass(frozen=True)
class Section:
    """What was trained on, the paper's data sets that it stands for, and the rows of its runs."""

    settings: TrainingSettings
    dataset: str
    stands_for: tuple[str, ...]
    rows: list[Row]

    @property
    def models(self) -> tuple[str, ...]:
        """Those that are trained on it."""
        return self.settings.models_on(self.dataset)

    @property
    def epochs(self) -> int:
        """So many of which every row has the history."""
        return min((len(row["history"]) for row in self.rows), default=0)

    def at(self, epoch: int) -> Section:
        """Itself as it was after so many epochs: what rows have of every epoch is that epoch's."""
        rows = [{**row, **row["history"][epoch - 1]} for row in self.rows]
        return dataclasses.replace(self, rows=rows)

    def steps(self, epoch: int | None = None) -> int:
        """Optimiser steps of a run, or of its first epochs."""
        return steps_of(self.settings, self.dataset, epoch)

    @property
    def paper_steps(self) -> int:
        """Those of the paper's, where several data sets are stood for, on the first."""
        return paper_steps(self.stands_for[0])

    def by_seed(self, model: str, name: str) -> dict[int, float]:
        """A quantity of a model's rows by seed; rows that do not have it are left out."""
        return {
            row["seed"]: row[name] for row in self.rows if row["model"] == model and row[name] is not None
        }

    def mean(self, model: str, name: str) -> float | None:
        """Its mean over the seeds; None where no row has it."""
        values = self.by_seed(model, name).values()
        return sum(values) / len(values) if values else None

    def by_epoch(self, model: str, name: str) -> list[list[float]]:
        """A quantity of the histories of a model's rows, of all rows for each epoch."""
        histories = [row["history"] for row in self.rows if row["model"] == model]
        return [[epoch[name] for epoch in now] for now in zip(*histories, strict=True)]

    def means(self, model: str, name: str) -> list[float]:
        """The mean of each epoch's; what a row does not have counts as 0."""
        return [sum(value or 0.0 for value in values) / len(values) for values in self.by_epoch(model, name)]

    def lines(self, axis: Any, x: str, y: str) -> None:
        """The mean over each model's rows, one a seed, of y over x, and a band from the least to the largest.

        x, y: quantities of the rows' histories; x is averaged too.
        """
        for model in self.models:
            across, columns, look = self.means(model, x), self.by_epoch(model, y), LOOK_OF[model]
            if not columns:
                continue
            label = MODEL_NAMES[model]
            axis.plot(across, self.means(model, y), label=label, markersize=4, linewidth=1.3, **look)
            if len(columns[0]) > 1:
                low, high = ([end(column) for column in columns] for end in (min, max))
                axis.fill_between(across, low, high, color=look["color"], alpha=0.12, linewidth=0)

    def bars(self, axis: Any, name: str) -> None:
        """The mean over each model's rows, one a seed, of a quantity, with whiskers to the ends."""
        for place, model in enumerate(self.models):
            values = list(self.by_seed(model, name).values())
            if not values:
                continue
            mean = sum(values) / len(values)
            ends = [[mean - min(values)], [max(values) - mean]] if len(values) > 1 else None
            look = {"color": LOOK_OF[model]["color"], "hatch": HATCH_OF[model], "edgecolor": "white"}
            # The whiskers' grey is seen on a black bar too.
            axis.bar(place, mean, yerr=ends, capsize=3, ecolor="#888888", **look)
        name_bars(axis, self.models, fontsize=8)

    @property
    def title(self) -> str:
        """The data set for people, with those that it stands in for."""
        return title_of(self.dataset, self.stands_for)

    @property
    def heading(self) -> str:
        """The title and the sizes."""
        return f"{self.title}: {self.sizes}"

    @property
    def sizes(self) -> str:
        """To be printed in a picture: "1,000 training, 1,000 test images, 5 epochs, 160 of the paper's 18,750
        steps, 3 seeds"."""
        settings, images = self.settings, "all training and test images"
        if settings.train_size and settings.test_size:
            images = f"{settings.train_size:,} training, {settings.test_size:,} test images"
        epochs = settings.epochs_on(self.dataset)
        steps = f"{self.steps():,} of the paper's {self.paper_steps:,} steps"
        return f"{images}, {epochs} epoch{'s' * (epochs > 1)}, {steps}, {self.seeds}"

    @property
    def seeds(self) -> str:
        """How many seeds the rows of the least complete model have: "2 of 3 seeds"."""
        counts = {len({row["seed"] for row in self.rows if row["model"] == model}) for model in self.models}
        wanted, least, most = len(self.settings.seeds), min(counts), max(counts)
        some = "" if least == most == wanted else f"{least} of " if least == most else f"{least}–{most} of "
        return f"{some}{wanted} seed{'s' if wanted != 1 else ''}"

    @property
    def about(self) -> dict[str, Any]:
        """What every claim's words ask for: the paper's data sets, the title, the sizes; can it be told?"""
        return {
            "told": not self.settings.stand_in,
            "where": " and ".join(DATA_NAMES[name] for name in self.stands_for),
            "title": self.title,
            "sizes": self.sizes,
        }


def sections(settings: TrainingSettings, rows: Sequence[Row]) -> list[Section]:
    """One for each data set, in the settings' order; a data set without rows has one too."""
    return [
        Section(settings, dataset, stands_for, [row for row in rows if row["dataset"] == dataset])
        for dataset, stands_for in data_sets(settings).items()
    ]


def rows_of_runs(
    settings: TrainingSettings, work: Work, row_of: Callable[[Run], Row]
) -> tuple[list[Row], list[Run], list[str]]:
    """(A row for each run, the runs, what is missing as sentences).

    row_of: the figure's own part. seeds: how many of the seeds the run's model has, "1 of 3 seeds".
    """
    runs, missing = training_runs(settings, work)
    have = Counter((run.dataset, run.model) for run in runs)
    rows = [
        {
            "dataset": run.dataset,
            "stands_for": list(data_sets(settings)[run.dataset]),
            "model": run.model,
            "seed": run.seed,
            "parameters": run.final["parameters"],
            **row_of(run),
            "seeds": f"{have[run.dataset, run.model]} of {len(settings.seeds)} seeds",
        }
        for run in runs
    ]
    return rows, runs, missing


def title_of(dataset: str, stands_for: Sequence[str]) -> str:
    """A data set for people, with those that it stands in for."""
    name = DATA_NAMES.get(dataset, dataset)
    others = [DATA_NAMES[other] for other in stands_for if other != dataset]
    return f"{name}, standing in for {' and '.join(others)}" if others else name


def draw_sections(
    figure: Any, settings: TrainingSettings, rows: Sequence[Row], *, height: float, more: float = 0.0
) -> Iterator[tuple[Any, Section]]:
    """A subfigure for each section, below one another, its title not yet set.

    height: inches of each.  more: inches for one legend of the models below them all; 0 draws none.
    """
    all_of_them = sections(settings, rows)
    figure.set_size_inches(10.5, height * len(all_of_them) + more)
    if more:
        _legend_below(figure, settings.models)
    parts = figure.subfigures(len(all_of_them), 1, squeeze=False)[:, 0]
    return zip(parts, all_of_them, strict=True)


def name_bars(axis: Any, models: Sequence[str], **look: Any) -> None:
    """Names of models below bars at 0, 1, …; look: of the words."""
    axis.set_xticks(range(len(models)), [MODEL_NAMES[model] for model in models], **look)
    axis.grid(visible=False, axis="x")


def _legend_below(figure: Any, models: Sequence[str]) -> None:
    """One legend of the models for the whole picture, below it."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=MODEL_NAMES[model], markersize=4, **LOOK_OF[model]) for model in models]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, handlelength=3.2)
