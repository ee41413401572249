"""A data set's section of a figure that is made from training runs: its rows, and what is said of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .training import DATA_NAMES, TrainingSettings, data_sets

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Section:
    """What was trained on, the paper's data sets that it stands for, and the rows of its runs."""

    dataset: str
    stands_for: tuple[str, ...]
    rows: list[Row]

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


def count_seeds(settings: TrainingSettings, rows: Sequence[Row]) -> None:
    """Writes into each row, a run's, how many of the seeds its model has: "seeds": "1 of 3 seeds"."""
    for row in rows:
        mine = [r for r in rows if (r["model"], r["dataset"]) == (row["model"], row["dataset"])]
        row["seeds"] = f"{len(mine)} of {len(settings.seeds)} seeds"


def seeds_told(settings: TrainingSettings, rows: Sequence[Mapping[str, Any]]) -> str:
    """How many seeds the rows of the least complete model have: "2 of 3 seeds"."""
    have = {model: set[int]() for model in settings.models}
    for row in rows:
        have[row["model"]].add(row["seed"])
    counts = sorted({len(seeds) for seeds in have.values()})
    wanted = len(settings.seeds)
    if counts == [wanted]:
        return f"{wanted} seed{'s' if wanted != 1 else ''}"
    some = "–".join(map(str, (counts[0], counts[-1]) if len(counts) > 1 else counts))
    return f"{some} of {wanted} seed{'s' if wanted != 1 else ''}"


def sizes_told(settings: TrainingSettings, rows: Sequence[Mapping[str, Any]]) -> str:
    """The sizes, to be printed in a picture: "1,000 training, 1,000 test images, 5 epochs, 3 seeds"."""
    parts = [
        f"{size:,} {part}"
        for size, part in ((settings.train_size, "training"), (settings.test_size, "test"))
        if size
    ]
    images = f"{', '.join(parts)} images" if len(parts) == 2 else "all training and test images"
    return f"{images}, {settings.epochs} epochs, {seeds_told(settings, rows)}"


def title_of(dataset: str, stands_for: Sequence[str]) -> str:
    """A data set for people, with those that it stands in for."""
    name = DATA_NAMES.get(dataset, dataset)
    others = [DATA_NAMES[other] for other in stands_for if other != dataset]
    return f"{name}, standing in for {' and '.join(others)}" if others else name
