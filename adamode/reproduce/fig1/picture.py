"""Fig. 1 as pictures: contours with the ways on them, distance against time, cost, and the maps."""

from __future__ import annotations

import math
from typing import Any

import torch

from ...plotting import LOOKS, legend_below
from ..machinery.figure import Outcome, Row
from .descent import FUNCTIONS, TestFunction
from .settings import UNIT, Fig1Settings
from .table import by_function, may_climb

_LOOK = {
    "gradient-flow": LOOKS[1],
    "hbode": LOOKS[3],
    "hbode-damped": LOOKS[2],
    "adamode": LOOKS[0],
    UNIT: LOOKS[4],
}
ORDER = tuple(_LOOK)
_TINY = 1e-12  # below it no distance means anything
_DISTANCE = {"ylabel": "distance from the minimum", "yscale": "log"}


def draw_descents(figure: Any, settings: Fig1Settings, outcome: Outcome) -> None:
    """Above, each function with the ways from its first start; below, their distance over t."""
    axes = figure.subplots(2, 2, height_ratios=(1.25, 1))
    for (name, function), above, below in zip(FUNCTIONS.items(), *axes, strict=True):
        curves = outcome.variants["curves"][name]
        _contours(above, function)
        for model in ORDER:
            _way(above, curves[model], model)
            _line(below, (curves["t"], curves[model]["distance"]), model, settings)
        start = ", ".join(f"{c:g}" for c in settings.starts(name)[0])
        above.set_title(f"{name.capitalize()}, from ({start})", fontsize=10)
        below.set(xlabel="t", **_DISTANCE)
    legend_below(axes[1][0], ncols=5, fontsize=8)


def _contours(axis: Any, function: TestFunction) -> None:
    x0, x1, y0, y1 = function.window
    x, y = torch.linspace(x0, x1, 221).double(), torch.linspace(y0, y1, 221).double()
    value = function.value(torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)).numpy()
    levels = [10 ** (k / 2) for k in range(-4, 9)]
    axis.contour(x.numpy(), y.numpy(), value, levels, colors="0.72", linewidths=0.7, zorder=0)
    axis.plot(*function.minimum, marker="*", markersize=13, color="black", linestyle="", zorder=6)
    axis.set(xlim=(x0, x1), ylim=(y0, y1), xlabel="x", ylabel="y")
    axis.grid(False)


def _way(axis: Any, curve: dict[str, list[float | None]], model: str) -> None:
    points = [(x, y) for x, y in zip(curve["x"], curve["y"], strict=True) if x is not None and y is not None]
    xs, ys = zip(*points, strict=True)
    undamped = model == "hbode"  # it would hide the others
    look = {"linewidth": 0.9, "alpha": 0.8} if undamped else {"linewidth": 1.6, "alpha": 1.0}
    # Markers at equal distances on paper; gradient flow, the shortest way, lies on top.
    look |= {"markevery": 1.5 if undamped else 0.12, "markersize": 4.5}
    height = 5 if model == "gradient-flow" else 2 + ORDER.index(model) / 2
    axis.plot(xs, ys, zorder=height, **_LOOK[model], **look)
    ring = {"marker": "o", "color": "black", "markersize": 8, "fillstyle": "none", "linestyle": ""}
    axis.plot(xs[:1], ys[:1], zorder=7, **ring)


def _line(axis: Any, of: tuple[list[Any], list[Any]], model: str, settings: Fig1Settings) -> None:
    """Distances over something, both ``of`` a way; where one of the two lacks, nothing."""
    known = [(x, max(v, _TINY)) for x, v in zip(*of, strict=True) if v is not None and x is not None]
    if known:
        look = {**_LOOK[model], "linewidth": 0.9 if model == "hbode" else 1.5, "markersize": 4}
        every = (2 * ORDER.index(model), max(1, len(known) // 12))
        axis.plot(*zip(*known, strict=True), label=settings.name(model, ", "), markevery=every, **look)


def draw_cost(figure: Any, settings: Fig1Settings, outcome: Outcome) -> None:
    """Distance over the length of the path, and over the evaluations of ∇F."""
    axes = figure.subplots(2, 2)
    for name, (left, right) in zip(FUNCTIONS, axes, strict=True):
        for axis, key in ((left, "path"), (right, "nfe")):
            for model in ORDER:
                way = outcome.variants["ways"][name][model]
                _line(axis, (way[key], way["distance"]), model, settings)
        left.set_xscale("symlog", linthresh=1.0)
        left.set(xlabel="length of the path so far", **_DISTANCE)
        right.set(xscale="log", xlabel="evaluations of ∇F so far", **_DISTANCE)
        for axis in (left, right):
            axis.set_title(name.capitalize(), fontsize=10)
    legend_below(axes[0][0], ncols=5, fontsize=8)


def draw_sensitivity(figure: Any, settings: Fig1Settings, outcome: Outcome) -> None:
    """A row a function: wins over HBODE by γ; distance by ε."""
    axes = figure.subplots(2, 2)
    maps = {kind: dict(by_function(outcome, kind)) for kind in ("gamma", "eps")}
    for name, (left, right) in zip(FUNCTIONS, axes, strict=True):
        _by_gamma(left, maps["gamma"][name], len(settings.starts(name)), settings)
        known = [e for e in maps["eps"][name] if e["median_distance"] is not None]
        right.plot([e["eps"] for e in known], [e["median_distance"] for e in known], **LOOKS[0])
        right.set(xscale="log", yscale="log", xlabel="ε", ylabel="median distance at T")
        left.set_title(f"{name.capitalize()}: AdamODE against HBODE", fontsize=9)
        right.set_title("AdamODE by ε", fontsize=9)


def draw_rates(figure: Any, settings: Fig1Settings, outcome: Outcome) -> None:
    """A row a function, by A and B: median distance and wins over gradient flow; median cost."""
    axes = figure.subplots(2, 2)
    for (name, entries), (left, right) in zip(by_function(outcome, "rates"), axes, strict=True):
        far = [(e, _log10(e["median_distance"]), str(e["closer"]["gradient-flow"])) for e in entries]
        _map(left, settings, far, (-4.5, 1.0))
        left.set_title(
            f"{name.capitalize()}: median distance at T, log10;\nstarts closer than gradient flow", fontsize=9
        )
        costly = [(e, _log10(e["nfe"]), f"{e['failed']}×" if e["failed"] else "") for e in entries]
        _map(right, settings, costly, (2.5, 5.0))
        right.set_title(
            "evaluations of ∇F to T by radau5, median, log10;\n×: starts from which it gave up", fontsize=9
        )


def _by_gamma(axis: Any, entries: list[Row], n: int, settings: Fig1Settings) -> None:
    for look, kind in ((LOOKS[0], "closer"), (LOOKS[1], "faster")):
        axis.plot([e["gamma"] for e in entries], [e[kind] for e in entries], label=kind, **look)
    axis.axvline(settings.gamma, color="black", linewidth=0.8, linestyle=":")
    axis.set(xscale="log", ylim=(-0.3, n + 0.3), yticks=range(n + 1))
    axis.set(xlabel="HBODE's γ (dotted: sigmoid(−3))", ylabel=f"starts of {n} that AdamODE wins")
    axis.legend(loc="best")


def _log10(value: float | None) -> float:
    """NaN, which is drawn as a gap, where there is no number above 0."""
    return math.log10(value) if value else math.nan


def _map(
    axis: Any, settings: Fig1Settings, cells: list[tuple[Row, float, str]], ends: tuple[float, float]
) -> None:
    """Values by A and B with a word in each: (entry, value, word). ends: of the colours."""
    from matplotlib.patches import Rectangle

    rates, (low, high) = list(settings.rates), ends
    grid = [[math.nan] * len(rates) for _ in rates]
    for e, value, word in cells:
        i, j = rates.index(e["rate_m"]), rates.index(e["rate_v"])
        grid[j][i] = value
        if may_climb(e):
            look: dict[str, Any] = {"hatch": "///", "edgecolor": "0.35", "linewidth": 0, "alpha": 0.6}
            axis.add_patch(Rectangle((i - 0.5, j - 0.5), 1, 1, fill=False, **look))
        colour = "white" if value < (low + high) / 2 else "black"  # black on NaN
        axis.text(i, j, word, ha="center", va="center", fontsize=8, color=colour)
    image = axis.imshow(grid, origin="lower", aspect="auto", cmap="viridis", vmin=low, vmax=high)
    axis.figure.colorbar(image, ax=axis, extend="both")
    labels = [f"{rate:.2g}" if rate < 0.99 else f"{rate:.3g}" for rate in rates]
    axis.set_xticks(range(len(rates)), labels, rotation=45 if len(rates) > 6 else 0)
    axis.set_yticks(range(len(rates)), labels)
    axis.set(xlabel="A", ylabel="B (hatched: B > 4A)")
    axis.grid(False)


PICTURES = {
    "fig1": (draw_descents, (9.0, 7.6)),
    "fig1-rates": (draw_rates, (11.5, 8.5)),
    "fig1-sensitivity": (draw_sensitivity, (9.0, 7.0)),
    "fig1-cost": (draw_cost, (9.0, 7.0)),
}
