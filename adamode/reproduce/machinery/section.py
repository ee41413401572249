"""A data set's section of a figure that is made from training runs: its rows, and what is said of them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from .training import DATA_NAMES, Run, TrainingSettings, by_seed, data_sets, mean

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Section:
    """What was trained on, the paper's data sets that it stands for, and the rows of its runs."""

    dataset: str
    stands_for: tuple[str, ...]
    rows: list[Row]

    def by_seed(self, model: str, name: str) -> dict[int, float]:
        """A quantity of a model's rows by seed; rows that do not have it are left out."""
        return by_seed(self.rows, model, name)

    def mean(self, model: str, name: str) -> float | None:
        """Its mean over the seeds."""
        return mean(self.by_seed(model, name).values())

    @property
    def where(self) -> str:
        """The paper's data sets, in words."""
        return " and ".join(DATA_NAMES[name] for name in self.stands_for)

    @property
    def title(self) -> str:
        """The data set for people, with those that it stands in for."""
        return title_of(self.dataset, self.stands_for)


def sections(settings: TrainingSettings, rows: Sequence[Row]) -> list[Section]:
    """One for each data set, in the settings' order; a data set without rows has one too."""
    return [
        Section(dataset, stands_for, [row for row in rows if row["dataset"] == dataset])
        for dataset, stands_for in data_sets(settings).items()
    ]


def draw_sections(
    figure: Any, settings: TrainingSettings, rows: Sequence[Row], *, height: float, more: float = 0.0
) -> Iterator[tuple[Any, Section]]:
    """A subfigure for each section, below one another, its title not yet set.

    height: inches of each.  more: inches for what lies below them all.
    """
    all_of_them = sections(settings, rows)
    figure.set_size_inches(10.5, height * len(all_of_them) + more)
    parts = figure.subfigures(len(all_of_them), 1, squeeze=False)[:, 0]
    return zip(parts, all_of_them, strict=True)


def run_row(settings: TrainingSettings, run: Run) -> Row:
    """What a row says of its run."""
    return {
        "dataset": run.dataset,
        "stands_for": list(data_sets(settings)[run.dataset]),
        "model": run.model,
        "seed": run.seed,
        "parameters": run.final["parameters"],
    }


def with_seeds(settings: TrainingSettings, rows: Sequence[Row]) -> list[Row]:
    """The rows, a run's each, with how many of the seeds its model has: "seeds": "1 of 3 seeds"."""
    have = Counter((row["dataset"], row["model"]) for row in rows)
    of = f"of {len(settings.seeds)} seeds"
    return [{**row, "seeds": f"{have[row['dataset'], row['model']]} {of}"} for row in rows]


def seeds_told(settings: TrainingSettings, rows: Sequence[Row]) -> str:
    """How many seeds the rows of the least complete model have: "2 of 3 seeds"."""
    counts = {len({row["seed"] for row in rows if row["model"] == model}) for model in settings.models}
    wanted, least, most = len(settings.seeds), min(counts), max(counts)
    some = "" if least == most == wanted else f"{least} of " if least == most else f"{least}–{most} of "
    return f"{some}{wanted} seed{'s' if wanted != 1 else ''}"


def sizes_told(settings: TrainingSettings, rows: Sequence[Row]) -> str:
    """The sizes, to be printed in a picture: "1,000 training, 1,000 test images, 5 epochs, 3 seeds"."""
    images = "all training and test images"
    if settings.train_size and settings.test_size:
        images = f"{settings.train_size:,} training, {settings.test_size:,} test images"
    return f"{images}, {settings.epochs} epochs, {seeds_told(settings, rows)}"


def title_of(dataset: str, stands_for: Sequence[str]) -> str:
    """A data set for people, with those that it stands in for."""
    name = DATA_NAMES.get(dataset, dataset)
    others = [DATA_NAMES[other] for other in stands_for if other != dataset]
    return f"{name}, standing in for {' and '.join(others)}" if others else name
