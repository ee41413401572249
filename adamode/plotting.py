"""The one place that styles matplotlib: palette, axes, saving."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .train.runs import RunFolder
from .train.write_aside import write_aside

# Okabe and Ito's palette, told apart by colour-blind readers too.
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
# One look for each line of a picture: told apart by marker and dashes where colour is lost.
LOOKS = (
    {"color": BLUE, "marker": "o", "linestyle": "-"},
    {"color": ORANGE, "marker": "s", "linestyle": "--"},
    {"color": GREEN, "marker": "^", "linestyle": "-."},
    {"color": PINK, "marker": "D", "linestyle": ":"},
    {"color": "#56B4E9", "marker": "v", "linestyle": (0, (5, 1))},
    {"color": "#000000", "marker": "x", "linestyle": (0, (1, 1))},
)
_STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "font.size": 9,
    "legend.frameon": False,
    "svg.hashsalt": "adamode",  # the same numbers give the same file
}


def draw_run(folder: RunFolder) -> Path:
    """Draws loss, accuracy, NFE and efficacy over the epochs of a run to plots/training.png.

    Returns the picture's path. The efficacy of an epoch is validation accuracy ÷ NFE.
    """
    rows = folder.read_metrics()
    history = [row for row in rows if not row.get("final")]
    final = next((row for row in rows if row.get("final")), None)

    def draw(axes: Any) -> None:
        epochs = [row["epoch"] for row in history]

        def line(axis: Any, values: list[Any], label: str, colour: str) -> None:
            axis.plot(epochs, values, label=label, color=colour, marker=".", markersize=3)

        for axis, quantity in zip(axes[:2], ("loss", "accuracy"), strict=True):
            line(axis, [row[f"train_{quantity}"] for row in history], "training", BLUE)
            line(axis, [row[f"val_{quantity}"] for row in history], "validation", ORANGE)
        axes[0].set_yscale("log")
        if final is not None:
            label = f"test {100 * final['test_accuracy']:.1f} %"
            axes[1].axhline(final["test_accuracy"], color=GREEN, linestyle="--", label=label)
        for direction, colour in (("forward", BLUE), ("backward", PINK)):
            nfe = [row[f"nfe_{direction}"] for row in history]
            line(axes[2], nfe, direction, colour)
            ratio = [row["val_accuracy"] / n if n else None for row, n in zip(history, nfe, strict=True)]
            if None not in ratio:
                line(axes[3], ratio, direction, colour)
        titles = ("cross-entropy loss", "accuracy", "evaluations of f a batch (NFE)", "efficacy")
        for axis, title in zip(axes, titles, strict=True):
            axis.set_title(title, fontsize=9)
            axis.set_xlabel("epoch")
            if axis.lines:
                axis.legend()

    path = folder.plots / "training.png"
    _save(path, draw, title=folder.path.name)
    return path


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
