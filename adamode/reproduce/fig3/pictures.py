"""Fig. 3's pictures: the paper's, the spread over draws, AdamNODE's denominators, trained models."""

from __future__ import annotations

import math
from statistics import median
from typing import Any

from ...plotting import BLUE, GREEN, LOOKS, ORANGE
from ..machinery.figure import Outcome, Picture
from .claims import NAMES, SMALLER, adamnode_case
from .growth import MODELS

LOOK = dict(zip(MODELS, LOOKS, strict=True))
NORM = "norm of the whole state"
KINDS = {"exact": BLUE, "softplus": GREEN, "sigmoid": ORANGE}
DASHES = {"exact": "-", "softplus": "--", "sigmoid": ":"}


def numbers(values: list[float | None]) -> list[float]:
    """A gap where there is no number."""
    return [math.nan if value is None else value for value in values]


def powers(axis: Any) -> None:
    """Ticks of an axis of log10 as powers of ten."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=9, integer=True))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"$10^{{{value:.0f}}}$"))


def _title(settings: Any, words: str) -> str:
    return words if settings.dataset == "silverbox-paper" else f"SIMULATED data: {words}"


def _every(count: int, k: int) -> tuple[int, int]:
    """Markers every eighth of a line, not at the same t for any two lines."""
    apart = max(1, count // 8)
    return k * apart // len(MODELS), apart


def _failed_at(axes: Any, curve: list[float | None], look: dict[str, Any]) -> None:
    """A cross where a line ends early."""
    there = [t for t, value in enumerate(curve) if value is not None]
    if there and there[-1] < len(curve) - 1:
        axes.plot(there[-1], curve[there[-1]], marker="X", markersize=10, color=look["color"])


def draw_fig3(figure: Any, settings: Any, outcome: Outcome) -> None:
    """log10 of the mean norm over t for the six models, as in the paper."""
    axes = figure.subplots()
    for k, model in enumerate(MODELS):
        curve = [row["log10_norm_mean"] for row in outcome.rows if row["model"] == model]
        end = "ended early" if curve[-1] is None else f"$10^{{{curve[-1]:.1f}}}$"
        axes.plot(
            numbers(curve), label=f"{NAMES[model]}: {end}", markevery=_every(len(curve), k), **LOOK[model]
        )
        _failed_at(axes, curve, LOOK[model])
    y = outcome.variants["recording"]["y"]
    what = "measured" if settings.dataset == "silverbox-paper" else "simulated"
    axes.plot([math.log10(abs(v)) if v else math.nan for v in y], color="0.65", label=f"|output|, {what}")
    axes.set_xlim(0, settings.rows - 1)
    axes.set_xlabel("t (samples)")
    axes.set_ylabel(f"{NORM}, mean of {settings.inits} inits")
    axes.set_title(
        _title(settings, f"untrained, {settings.inits} inits of seed {settings.seed}"), fontsize=10
    )
    powers(axes.yaxis)
    axes.legend(loc="upper left", title=f"at t = {settings.rows - 1}", alignment="left")


def draw_draws(figure: Any, settings: Any, outcome: Outcome) -> None:
    """Single inits and means of groups at the end, and the claims' ratios over groups."""
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    norms = outcome.variants["norms"]
    for k, model in enumerate(MODELS):
        case, colour = norms[model], LOOK[model]["color"]
        _bar(left, k - 0.16, case["draws"]["whole"], colour, "o")
        _bar(left, k + 0.16, case["groups"]["whole"], colour, "s")
        _point(left, k + 0.36, case["inits"]["whole"]["mean"][-1], "*")
    left.set_xticks(range(len(MODELS)), [NAMES[model] for model in MODELS])
    left.set_ylabel(f"{NORM} at t = {settings.rows - 1}")
    left.set_title(_title(settings, f"{settings.draws} inits: range, 5–95 %, median"), fontsize=10)
    marks = {
        "o": "single inits",
        "s": f"means of {settings.inits}",
        "*": f"{settings.inits} of seed {settings.seed}",
    }
    _legend(left, marks)
    others = ("hbnode", "node", "ghbnode")
    for k, other in enumerate(others):
        ratio = outcome.variants["ratios"][other]["code"]
        _bar(right, k, ratio["groups"], LOOK[other]["color"], "s")
        _point(right, k + 0.18, ratio["inits"], "*")
        _point(right, k - 0.18, ratio["medians"], "d")
        if other in SMALLER:
            right.plot([k - 0.35, k + 0.35], [SMALLER[other]] * 2, color="black", linewidth=1.5)
    right.axhline(0, color="0.4", linewidth=0.8)
    right.set_xticks(range(len(others)), [NAMES[other] for other in others])
    right.set_xlim(-0.6, len(others) - 0.4)
    right.set_ylabel("norm of the other model ÷ AdamNODE's")
    _legend(right, {**marks, "d": "medians of single inits", "_": "the paper's claim"}, without="o")
    for axes in (left, right):
        powers(axes.yaxis)


def _point(axes: Any, x: float, y: float | None, marker: str) -> None:
    if y is not None:
        axes.plot(x, y, marker, color="black", markersize=9 if marker == "*" else 6)


def _legend(axes: Any, marks: dict[str, str], without: str = "") -> None:
    """What the markers mean, without a colour."""
    for marker, label in marks.items():
        if marker != without:
            axes.plot([], [], marker, color="0.2", markersize=14 if marker == "_" else 7, label=label)
    axes.legend(loc="upper right")


def _bar(axes: Any, x: float, of: dict[str, Any], colour: str, marker: str) -> None:
    """Range thin, 5–95 % thick, median as a marker; nothing where there are no numbers."""
    if of["median"] is None:
        return
    axes.plot([x, x], [of["low"], of["high"]], color=colour, linewidth=1)
    axes.plot([x, x], [of["q05"], of["q95"]], color=colour, linewidth=5, alpha=0.45, solid_capstyle="butt")
    axes.plot(x, of["median"], marker=marker, color=colour, markeredgecolor="white", markersize=7)


def draw_denominators(figure: Any, settings: Any, outcome: Outcome) -> None:
    """AdamNODE's denominators under both sets of rates, and what keeps GHBNODE small."""
    axes = figure.subplots(1, len(settings.rates) + 1, sharey=True)
    norms = outcome.variants["norms"]
    titles = {
        "silverbox": "1−α, 1−β = σ(−5), σ(5)\n(Silverbox, MNIST)",
        "cifar10": "1−α, 1−β = σ(3), σ(3)\n(CIFAR-10)",
    }
    for panel, rates in zip(axes, settings.rates, strict=False):
        for kind in settings.denominators:
            inits = norms[adamnode_case(kind, rates)]["inits"]
            look = {"color": KINDS[kind], "linestyle": DASHES[kind]}
            panel.plot(numbers(inits["whole"]["mean"]), label=kind, linewidth=2, **look)
            panel.plot(numbers(inits["h"]["mean"]), linewidth=0.9, **look)
            _failed_at(panel, inits["whole"]["mean"], look)
        panel.set_title(f"AdamNODE, {titles[rates]}", fontsize=10)
        panel.legend(loc="upper left", title="denominator (thin: h alone)", alignment="left")
    kinds = {
        "ghbnode": "as it is",
        "ghbnode-unbounded": "h′ = −m, no bound",
        "ghbnode-no-force": "ξ = 0, bound kept",
    }
    for (name, label), look in zip(kinds.items(), LOOKS, strict=False):
        curve = norms[name]["inits"]["whole"]["mean"]
        shown = {"color": look["color"], "linestyle": look["linestyle"], "linewidth": 2}
        axes[-1].plot(numbers(curve), label=label, **shown)
        _failed_at(axes[-1], curve, look)
    axes[-1].set_title("GHBNODE,\nwhat keeps it small", fontsize=10)
    axes[-1].legend(loc="upper left")
    figure.suptitle(_title(settings, f"{settings.inits} inits of seed {settings.seed}"), fontsize=10)
    axes[0].set_ylabel(f"{NORM}, mean of {settings.inits} inits")
    powers(axes[0].yaxis)
    for panel in axes:
        panel.set_xlabel("t (samples)")
        panel.set_xlim(0, settings.rows - 1)


def draw_trained(figure: Any, settings: Any, outcome: Outcome) -> None:
    """The norms over t of trained models, the median of all, and their errors."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    trained = outcome.variants["trained"]
    for k, model in enumerate(MODELS):
        curves = [numbers(curve) for curve in trained[model]["whole"]]
        for curve in curves:
            left.plot(curve, color=LOOK[model]["color"], linewidth=0.5, alpha=0.3)
        middle = [median(at) for at in zip(*curves, strict=True)]
        left.plot(middle, label=NAMES[model], markevery=_every(len(middle), k), **LOOK[model])
        _errors(right, k, trained[model], settings)
    left.set_xlim(0, settings.rows - 1)
    left.set_xlabel("t (samples)")
    left.set_ylabel(f"{NORM}, median (thin: each)")
    count = len(trained["node"]["scales"])
    left.set_title(
        _title(settings, f"{count} trained models each, {settings.train_steps} steps"), fontsize=10
    )
    powers(left.yaxis)
    left.legend(ncols=3, loc="lower left", framealpha=0.8, frameon=True)
    rms = trained["node"]["output_rms_mv"]
    right.axhline(rms, color="0.4", linestyle="--", linewidth=1, label="the output's own RMS")
    right.set_yscale("log")
    right.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    for place in (right.yaxis.set_major_formatter, right.yaxis.set_minor_formatter):
        place(FuncFormatter(lambda value, _: f"{value:g}"))
    right.set_xticks(range(len(MODELS)), [NAMES[model] for model in MODELS], fontsize=8)
    right.set_ylabel("RMSE after training (mV)")
    right.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8)


def _errors(axes: Any, k: int, trained: dict[str, Any], settings: Any) -> None:
    """Errors of the models by the scale of their start, a marker for each scale."""
    for j, scale in enumerate(settings.train_scales):
        errors = [
            e
            for e, s in zip(trained["rmse_mv_after"], trained["scales"], strict=True)
            if s == scale and e is not None
        ]
        look = {"marker": "o^sDv"[j % 5], "linestyle": "", "alpha": 0.7}
        label = f"from torch's weights × {scale:g}" if k == 0 else None
        x = k + 0.3 * (j - (len(settings.train_scales) - 1) / 2)
        axes.plot([x] * len(errors), errors, color=LOOKS[j % len(LOOKS)]["color"], label=label, **look)


PICTURES = {
    "fig3": Picture(
        draw_fig3,
        (7.5, 5),
        "log10 of the mean norm of the whole state over t, of untrained models with a linear field, in the "
        "authors' setting; grey, the output that was measured.",
    ),
    "fig3-draws": Picture(
        draw_draws,
        (12, 5),
        "Left, norms at the last row over many inits: range (thin), 5–95 % (thick), median (marker), of "
        "single inits and of means of ten; stars are the inits of the claims. Right, other models' means of "
        "ten over AdamNODE's, the claims as lines.",
    ),
    "fig3-denominators": Picture(
        draw_denominators,
        (12, 4.8),
        "Mean norms of AdamNODE over the inits of the claims for three denominators, with the rates released "
        "for Silverbox and those for CIFAR-10 (thin, h alone); right, GHBNODE without its bounded activation "
        "and without its restoring force.",
    ),
    "fig3-trained": Picture(
        draw_trained,
        (12, 4.8),
        "Left, norms of the whole state of trained models over t, the median of all, and each thin. Right, "
        "the errors of these models after training.",
    ),
}
