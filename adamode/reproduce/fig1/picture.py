"""Fig. 1 as pictures: contours with the ways on them, distance against time, cost, and the maps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from ...plotting import LOOKS
from ..machinery.figure import Outcome, Picture
from .descent import FUNCTIONS, TestFunction

if TYPE_CHECKING:
    from . import Fig1Settings

ORDER = ("gradient-flow", "hbode", "hbode-damped", "adamode")
_LOOK = {"gradient-flow": LOOKS[1], "hbode": LOOKS[3], "hbode-damped": LOOKS[2], "adamode": LOOKS[0]}
_TINY = 1e-12  # below it no distance means anything


def _label(settings: Fig1Settings, model: str) -> str:
    return {
        "gradient-flow": "gradient flow",
        "hbode": f"HBODE, γ = {settings.gamma:.3g}",
        "hbode-damped": f"HBODE, γ = {settings.fair_gamma:g}",
        "adamode": "AdamODE",
    }[model]


def draw_descents(figure: Any, settings: Fig1Settings, outcome: Outcome) -> None:
    """Above, each function with the ways from its first start; below, their distance over t."""
    axes = figure.subplots(2, 2, height_ratios=(1.25, 1))
    for column, (name, function) in enumerate(FUNCTIONS.items()):
        curves = outcome.variants["curves"][name]
        _contours(axes[0][column], function)
        for model in ORDER:
            _way(axes[0][column], curves[model], model)
            _line(axes[1][column], curves["t"], curves[model]["distance"], model, settings)
        start = ", ".join(f"{c:g}" for c in settings.starts(name)[0])
        axes[0][column].set_title(f"{name.capitalize()}, from ({start})", fontsize=10)
        axes[1][column].set_xlabel("t")
        axes[1][column].set_ylabel("distance from the minimum")
        axes[1][column].set_yscale("log")
    _legend(figure, axes[1][0], 4)


def _contours(axis: Any, function: TestFunction) -> None:
    x0, x1, y0, y1 = function.window
    x, y = torch.linspace(x0, x1, 221).double(), torch.linspace(y0, y1, 221).double()
    value = function.value(torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)).numpy()
    levels = [10 ** (k / 2) for k in range(-4, 9)]
    axis.contour(x.numpy(), y.numpy(), value, levels, colors="0.72", linewidths=0.7, zorder=0)
    axis.plot(*function.minimum, marker="*", markersize=13, color="black", linestyle="", zorder=6)
    axis.set_xlim(x0, x1)
    axis.set_ylim(y0, y1)
    axis.set_xlabel("x")
    axis.set_ylabel("y")
    axis.grid(False)


def _way(axis: Any, curve: dict[str, list[float | None]], model: str) -> None:
    points = [(x, y) for x, y in zip(curve["x"], curve["y"], strict=True) if x is not None and y is not None]
    xs, ys = zip(*points, strict=True)
    # The undamped one would hide the others.
    look = {**_LOOK[model], "linewidth": 0.9 if model == "hbode" else 1.6, "markersize": 4.5}
    look["alpha"] = 0.8 if model == "hbode" else 1.0
    # Markers at equal distances on paper; gradient flow, the shortest way, lies on top.
    height = 5 if model == "gradient-flow" else 2 + ORDER.index(model) / 2
    axis.plot(xs, ys, markevery=1.5 if model == "hbode" else 0.12, zorder=height, **look)
    axis.plot(
        xs[:1], ys[:1], marker="o", color="black", markersize=8, fillstyle="none", linestyle="", zorder=7
    )


def _line(axis: Any, xs: list[Any], values: list[Any], model: str, settings: Fig1Settings) -> None:
    known = [(x, max(v, _TINY)) for x, v in zip(xs, values, strict=True) if v is not None and x is not None]
    if not known:
        return
    look = {**_LOOK[model], "linewidth": 0.9 if model == "hbode" else 1.5, "markersize": 4}
    every = (2 * ORDER.index(model), max(1, len(known) // 12))
    axis.plot(*zip(*known, strict=True), label=_label(settings, model), markevery=every, **look)


def _legend(figure: Any, axis: Any, columns: int) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def draw_cost(figure: Any, settings: Fig1Settings, outcome: Outcome) -> None:
    """Distance over the length of the path, and over the evaluations of ∇F."""
    axes = figure.subplots(2, 2)
    for row, name in enumerate(FUNCTIONS):
        for column, (key, label) in enumerate(
            (("path", "length of the path so far"), ("nfe", "evaluations of ∇F so far"))
        ):
            axis = axes[row][column]
            for model in ORDER:
                way = outcome.variants["ways"][name][model]
                _line(axis, way[key], way["distance"], model, settings)
            axis.set_xscale("symlog" if key == "path" else "log", **_LINEAR_TO_ONE[key])
            axis.set_yscale("log")
            axis.set_xlabel(label)
            axis.set_ylabel("distance from the minimum")
            axis.set_title(name.capitalize(), fontsize=10)
    _legend(figure, axes[0][0], 4)


_LINEAR_TO_ONE: dict[str, dict[str, Any]] = {"path": {"linthresh": 1.0}, "nfe": {}}


def draw_sensitivity(figure: Any, settings: Fig1Settings, outcome: Outcome) -> None:
    """A row a function: wins over HBODE by γ; distance and wins by A and B; distance by ε."""
    axes = figure.subplots(2, 3, width_ratios=(1, 1.25, 1))
    for row, name in enumerate(FUNCTIONS):
        n = len(settings.starts(name))

        def entries(kind: str, name: str = name) -> list[dict[str, Any]]:
            return [one for one in outcome.variants[kind] if one["function"] == name]

        _by_gamma(axes[row][0], entries("gamma"), n, settings)
        _by_rates(figure, axes[row][1], entries("rates"), n, settings)
        _by_eps(axes[row][2], entries("eps"))
        axes[row][0].set_title(f"{name.capitalize()}: AdamODE against HBODE", fontsize=9)
        axes[row][1].set_title("median distance at T, log10;\nstarts closer than gradient flow", fontsize=9)
        axes[row][2].set_title("AdamODE by ε", fontsize=9)


def _by_gamma(axis: Any, entries: list[dict[str, Any]], n: int, settings: Fig1Settings) -> None:
    for look, kind in ((LOOKS[0], "closer"), (LOOKS[1], "faster")):
        axis.plot([e["gamma"] for e in entries], [e[kind] for e in entries], label=kind, **look)
    axis.axvline(settings.gamma, color="black", linewidth=0.8, linestyle=":")
    axis.set_xscale("log")
    axis.set_ylim(-0.3, n + 0.3)
    axis.set_yticks(range(n + 1))
    axis.set_xlabel("HBODE's γ (dotted: sigmoid(−3))")
    axis.set_ylabel(f"starts of {n} that AdamODE wins")
    axis.legend(loc="best")


def _by_rates(figure: Any, axis: Any, entries: list[dict[str, Any]], n: int, settings: Fig1Settings) -> None:
    rates = list(settings.rates)
    grid = [[math.nan] * len(rates) for _ in rates]
    for e in entries:
        d = e["median_distance"]
        grid[rates.index(e["rate_v"])][rates.index(e["rate_m"])] = math.nan if d is None else math.log10(d)
    low, high = -4.5, 1.0
    image = axis.imshow(grid, origin="lower", aspect="auto", cmap="viridis", vmin=low, vmax=high)
    figure.colorbar(image, ax=axis, extend="both")
    for e in entries:
        i, j = rates.index(e["rate_m"]), rates.index(e["rate_v"])
        # Hatched: E = F + Σ m²/(2A√(v+ε)) need not decrease.
        if e["rate_v"] > 4 * e["rate_m"]:
            axis.add_patch(_hatched(i, j))
        dark = not math.isnan(grid[j][i]) and grid[j][i] < (low + high) / 2
        failed = "×" if e["failed"] == n else ""
        text = f"{e['closer']['gradient-flow']}{failed}"
        axis.text(i, j, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    labels = [f"{rate:.2g}" if rate < 0.99 else f"{rate:.3g}" for rate in rates]
    axis.set_xticks(range(len(rates)), labels, rotation=45 if len(rates) > 6 else 0)
    axis.set_yticks(range(len(rates)), labels)
    axis.set_xlabel("A = 1 − α")
    axis.set_ylabel("B = 1 − β (hatched: B > 4A)")
    axis.grid(False)


def _hatched(i: int, j: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(
        (i - 0.5, j - 0.5), 1, 1, fill=False, hatch="///", edgecolor="0.35", linewidth=0, alpha=0.6
    )


def _by_eps(axis: Any, entries: list[dict[str, Any]]) -> None:
    known = [e for e in entries if e["median_distance"] is not None]
    axis.plot([e["eps"] for e in known], [e["median_distance"] for e in known], **LOOKS[0])
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("ε")
    axis.set_ylabel("median distance at T")


PICTURES = {
    "fig1": Picture(
        draw_descents,
        (9.0, 7.6),
        "Above: level lines of the two functions, the start (ring), the minimum (star) and the ways of the "
        "flows. Below: distance from the minimum over t, on a logarithmic axis. HBODE is drawn at the γ from "
        "which its training starts and well damped.",
    ),
    "fig1-sensitivity": Picture(
        draw_sensitivity,
        (11.5, 7.0),
        "By row, Rosenbrock and Beale. Left: from how many starts AdamODE comes closer and faster than "
        "HBODE, by HBODE's γ. Middle: AdamODE's median distance at the end by A and B, with the number of "
        "starts from which it is closer than gradient flow. Right: its median distance by ε.",
    ),
    "fig1-cost": Picture(
        draw_cost,
        (9.0, 7.0),
        "Distance from the minimum over the length of the path and over the evaluations of the gradient that "
        "dopri5 needed, from the first start of each function.",
    ),
}
