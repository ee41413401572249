"""The figures and tables of the paper by name. Importing this imports none of them, nor torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .machinery.figure import Figure

SHARED_RUNS = "runs"  # several figures are made from the same runs


@dataclasses.dataclass(frozen=True)
class Entry:
    """A figure that can be made: `about` it in a few words.

    runs: where, below the output folder, its training runs lie; "" trains nothing.  by_dataset: its settings
    have ``datasets``, so it can be made for one of them.  in_all: ``all`` makes it too.  share: of the time
    that ``all`` takes, roughly, at scale smoke and at the others; only the estimate of what is left uses it.
    """

    about: str
    runs: str = ""
    by_dataset: bool = False
    in_all: bool = True
    share: tuple[float, float] = (0.0, 0.0)


# In the order in which `all` makes them: what needs no training first.
FIGURES: Mapping[str, Entry] = {
    "fig1": Entry("the way down a function of two variables", share=(0.26, 0.08)),
    "fig3": Entry("the norm of the state over time", share=(0.34, 0.05)),
    "fig2": Entry(
        "training loss, accuracy, NFE and efficacy", runs=SHARED_RUNS, by_dataset=True, share=(0.2, 0.73)
    ),
    "fig4": Entry("training time", runs=SHARED_RUNS, by_dataset=True, share=(0.01, 0.08)),
    "table1": Entry("memory", runs=SHARED_RUNS, by_dataset=True, share=(0.19, 0.06)),
    "ablations": Entry(
        "what AdamNODE's parts are worth; not part of all", runs="ablations/runs", in_all=False
    ),
}
ALL = tuple(name for name, entry in FIGURES.items() if entry.in_all)
DATASETS = ("mnist", "cifar10")


def check_name(name: str, further: Iterable[str] = ()) -> None:
    """Raises ArgumentError, with the nearest names, unless ``name`` is a figure or one of ``further``."""
    from ..solvers.errors import ArgumentError, nearest

    known = (*FIGURES, *further)
    if name not in known:
        raise ArgumentError(f"figure {name!r} is not known: {nearest(name, known)}")


def load(name: str) -> Figure:
    """The figure called ``name``. Raises: ArgumentError for an unknown name."""
    check_name(name)
    figure: Figure = import_module(f".{name}", __package__).FIGURE
    return figure


def seconds_left(spent: Mapping[str, float], left: Iterable[str], scale: str) -> float | None:
    """How long the figures ``left`` will take, judged by their shares; None while nothing tells.

    spent: seconds for each figure that was made in this call.
    """
    share = {name: entry.share[0 if scale == "smoke" else 1] for name, entry in FIGURES.items()}
    known = sum(share[name] for name in spent)
    return sum(spent.values()) * sum(share[name] for name in left) / known if known else None
