"""What the pictures of training runs have in common: a look a model, a mean line, a band over the seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...plotting import LOOKS
from .training import MODEL_NAMES

Row = Mapping[str, Any]
LOOK_OF: dict[str, dict[str, Any]] = dict(zip(MODEL_NAMES, LOOKS, strict=True))
# Bars have neither marker nor dashes: these tell the models apart where colour is lost.
HATCH_OF = dict(zip(MODEL_NAMES, ("", "///", "...", "xxx", "\\\\\\", "++"), strict=True))


def mean_line(axis: Any, rows: Sequence[Row], model: str, x: str, y: str) -> None:
    """The mean over a model's rows, one a seed, of y over x, and a band from the least to the largest.

    x, y: quantities of the rows' histories; x is averaged too.
    """
    mine = [row["history"] for row in rows if row["model"] == model]
    if not mine:
        return
    columns_x, columns_y = (
        [[epoch[name] for epoch in now] for now in zip(*mine, strict=True)] for name in (x, y)
    )
    across = [sum(column) / len(column) for column in columns_x]
    up = [sum(column) / len(column) for column in columns_y]
    look = LOOK_OF[model]
    axis.plot(across, up, label=MODEL_NAMES[model], markersize=4, linewidth=1.3, **look)
    if len(mine) > 1:
        low, high = ([end(column) for column in columns_y] for end in (min, max))
        axis.fill_between(across, low, high, color=look["color"], alpha=0.12, linewidth=0)


def legend_below(figure: Any, models: Sequence[str]) -> None:
    """One legend of the models for the whole picture, below it."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=MODEL_NAMES[model], markersize=4, **LOOK_OF[model]) for model in models]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, handlelength=3.2)


def log_scale(axis: Any) -> None:
    """A logarithmic y axis with plain numbers; where it spans too little for them, none."""
    low, high = axis.get_ylim()
    if 0 < 3 * low < high:
        axis.set_yscale("log")
        plain_numbers(axis.yaxis)


def plain_numbers(axis: Any) -> None:
    """Ticks of a logarithmic axis at 1, 2, 5, 10 …, as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    axis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))
    for formatted in (axis.set_major_formatter, axis.set_minor_formatter):
        formatted(FuncFormatter(lambda value, place: f"{value:g}"))


def whole_numbers(axis: Any) -> None:
    """Ticks of the x axis at whole numbers only."""
    axis.xaxis.get_major_locator().set_params(integer=True)
