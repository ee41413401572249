"""The one place that styles matplotlib: palette, axes, saving."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .solvers.write_aside import write_aside
from .train.listing import RunSummary
from .train.measures import Measure, measure_of
from .train.run_files import RunFiles

# Okabe and Ito's palette, told apart by colour-blind readers too.
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
# One look for each line of a picture: told apart by marker and dashes where colour is lost.
LOOKS: tuple[dict[str, Any], ...] = (
    {"color": BLUE, "marker": "o", "linestyle": "-"},
    {"color": ORANGE, "marker": "s", "linestyle": "--"},
    {"color": GREEN, "marker": "^", "linestyle": "-."},
    {"color": PINK, "marker": "D", "linestyle": ":"},
    {"color": "#56B4E9", "marker": "v", "linestyle": (0, (5, 1))},
    {"color": "#000000", "marker": "x", "linestyle": (0, (1, 1))},
)
_STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "font.size": 9,
    "legend.frameon": False,
    "svg.hashsalt": "adamode",  # the same numbers give the same file
}


def draw_run(folder: RunFiles) -> Path:
    """Draws loss, quality, NFE and efficacy over the epochs of a run to plots/training.png.

    Returns the picture's path. The efficacy of an epoch is validation accuracy ÷ NFE.
    """
    rows = folder.read_metrics()
    history = [row for row in rows if not row.get("final")]
    final = next((row for row in rows if row.get("final")), None)

    def draw(axes: Any) -> None:
        epochs = [row["epoch"] for row in history]

        def line(axis: Any, values: list[Any], label: str, colour: str) -> None:
            axis.plot(epochs, values, label=label, color=colour, marker=".", markersize=3)

        measure = kind_of(history)
        for axis, quantity in zip(axes[:2], ("loss", measure.name), strict=True):
            line(axis, [row[f"train_{quantity}"] for row in history], "training", BLUE)
            line(axis, [row[f"val_{quantity}"] for row in history], "validation", ORANGE)
        if measure.positive:
            axes[0].set_yscale("log")
        if final is not None:
            tested = final[f"test_{measure.name}"]
            label = f"test {100 * tested:.1f} %" if measure.name == "accuracy" else f"test {tested:.4g}"
            axes[1].axhline(tested, color=GREEN, linestyle="--", label=label)
        for direction, colour in (("forward", BLUE), ("backward", PINK)):
            nfe = [row[f"nfe_{direction}"] for row in history]
            line(axes[2], nfe, direction, colour)
            ratio = [row.get(f"efficacy_{direction}") for row in history]
            if None not in ratio:
                line(axes[3], ratio, direction, colour)
        titles = (measure.loss_title, measure.title, "evaluations of f a batch (NFE)", "efficacy")
        for axis, title in zip(axes, titles, strict=True):
            name_panel(axis, title)
            if axis.lines:
                axis.legend()

    path = folder.plots / "training.png"
    _save(path, draw, title=folder.path.name)
    return path


def kind_of(history: Sequence[dict[str, Any]]) -> Measure:
    """How a run with a finished epoch is judged."""
    measure = measure_of(history[0])
    assert measure is not None  # every epoch has a validation
    return measure


def draw_runs(runs: Sequence[RunSummary], path: Path) -> Path:
    """Draws several runs over each other: validation loss and quality, NFE forward and backward.

    Runs without a finished epoch are left out. Returns the picture's path.
    """
    begun = [run for run in runs if run.history]

    def draw(axes: Any) -> None:
        kinds = {kind_of(run.history) for run in begun}
        for k, run in enumerate(begun):
            # A seventh run has the first one's marker again, in grey levels of its own.
            look = {**LOOKS[k % len(LOOKS)], "alpha": max(0.25, 1 - 0.3 * (k // len(LOOKS)))}
            epochs = [row["epoch"] for row in run.history]
            names = ("val_loss", f"val_{kind_of(run.history).name}", "nfe_forward", "nfe_backward")
            for axis, name in zip(axes, names, strict=True):
                axis.plot(epochs, [row[name] for row in run.history], label=run.name, markersize=3, **look)
        if all(kind.positive for kind in kinds):
            axes[0].set_yscale("log")
        measure = kinds.pop().title if len(kinds) == 1 else "quality"
        titles = ("validation loss", f"validation {measure}", "NFE forward", "NFE backward")
        for axis, title in zip(axes, titles, strict=True):
            name_panel(axis, title)
        legend_below(axes[0], ncols=min(4, max(1, len(begun))))

    _save(path, draw, title=f"{len(begun)} runs")
    return path


def name_panel(axis: Any, title: str, below: str = "epoch") -> None:
    """The title of a panel and what is below its x axis; epochs have ticks at whole numbers only."""
    axis.set_title(title, fontsize=9)
    axis.set_xlabel(below)
    if below == "epoch":
        axis.xaxis.get_major_locator().set_params(integer=True)


def legend_below(axis: Any, **look: Any) -> None:
    """One legend of an axis's lines for its whole figure, below it. look: as `Figure.legend` takes it."""
    axis.figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", **look)


def gaps(values: Sequence[float | None]) -> list[float]:
    """NaN, which is drawn as a gap, where there is no number."""
    return [math.nan if value is None else value for value in values]


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


def _save(path: Path, draw: Any, *, title: str) -> None:
    """A row of four axes, drawn by ``draw``, to a PNG."""

    def on(figure: Any) -> None:
        draw(figure.subplots(1, 4))
        figure.suptitle(title, fontsize=10)

    save_figure(path, on, size=(12, 2.9))


def save_figure(path: Path, draw: Callable[[Any], None], *, size: tuple[float, float]) -> None:
    """A figure of size (width, height) in inches, drawn by ``draw(figure)``, to a PNG; written aside
    and renamed. The folder is made where it lacks."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)  # no window system is needed, and pyplot's state is left alone
        draw(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_aside(path, buffer.getvalue())
