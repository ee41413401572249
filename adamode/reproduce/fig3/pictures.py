"""Fig. 3's pictures: the paper's, the spread over draws, AdamNODE's denominators, trained models."""

from __future__ import annotations

import math
from statistics import median
from typing import Any

from ...plotting import BLUE, GREEN, LOOKS, ORANGE, gaps, plain_numbers
from ..machinery.figure import Outcome
from ..machinery.section import LOOK_OF
from ..machinery.training import MODEL_NAMES
from .claims import SMALLER, WORDS
from .growth import MODELS, Case
from .settings import Fig3Settings

NORM = "norm of the whole state"
_KINDS: dict[str, dict[str, Any]] = {
    "exact": {"color": BLUE, "linestyle": "-"},
    "softplus": {"color": GREEN, "linestyle": "--"},
    "sigmoid": {"color": ORANGE, "linestyle": ":"},
}
_RATES = {
    "silverbox": "1−α, 1−β = σ(−5), σ(5)\n(Silverbox, MNIST)",
    "cifar10": "1−α, 1−β = σ(3), σ(3)\n(CIFAR-10)",
}


def powers(axis: Any) -> None:
    """Ticks of an axis of log10 as powers of ten."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=9, integer=True))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"$10^{{{value:.0f}}}$"))


def _over_time(axis: Any, settings: Fig3Settings) -> None:
    axis.set(xlabel="t (samples)", xlim=(0, settings.rows - 1))


def _title(settings: Fig3Settings, words: str) -> str:
    return f"SIMULATED data: {words}" if settings.simulated else words


def _inits(settings: Fig3Settings) -> str:
    return f"{settings.inits} inits of seed {settings.seed}"


def _every(count: int, k: int) -> tuple[int, int]:
    """Markers every eighth of a line, not at the same t for any two lines."""
    apart = max(1, count // 8)
    return k * apart // len(MODELS), apart


def _curve(axes: Any, curve: list[float | None], look: dict[str, Any], **more: Any) -> None:
    """A line, and a cross where it ends early."""
    axes.plot(gaps(curve), **look, **more)
    there = [t for t, value in enumerate(curve) if value is not None]
    if there and there[-1] < len(curve) - 1:
        axes.plot(there[-1], curve[there[-1]], marker="X", markersize=10, color=look["color"])


def draw_fig3(figure: Any, settings: Fig3Settings, outcome: Outcome) -> None:
    """log10 of the mean norm over t for the six models, as in the paper."""
    axes = figure.subplots()
    for k, model in enumerate(MODELS):
        curve = [row["log10_norm_mean"] for row in outcome.rows if row["model"] == model]
        end = "ended early" if curve[-1] is None else f"$10^{{{curve[-1]:.1f}}}$"
        label, every = f"{MODEL_NAMES[model]}: {end}", _every(len(curve), k)
        _curve(axes, curve, LOOK_OF[model], label=label, markevery=every)
    y = outcome.variants["recording"]["y"]
    what = "simulated" if settings.simulated else "measured"
    axes.plot([math.log10(abs(v)) if v else math.nan for v in y], color="0.65", label=f"|output|, {what}")
    _over_time(axes, settings)
    axes.set_ylabel(f"{NORM}, mean of {settings.inits} inits")
    axes.set_title(_title(settings, f"untrained, {_inits(settings)}"), fontsize=10)
    powers(axes.yaxis)
    axes.legend(loc="upper left", title=f"at t = {settings.rows - 1}", alignment="left")


def draw_draws(figure: Any, settings: Fig3Settings, outcome: Outcome) -> None:
    """Single inits and means of groups at the end, and the claims' ratios over groups."""
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    for k, model in enumerate(MODELS):
        case, colour = outcome.variants["norms"][model], LOOK_OF[model]["color"]
        _bar(left, k - 0.16, case["draws"]["whole"], colour, "o")
        _bar(left, k + 0.16, case["groups"]["whole"], colour, "s")
        _point(left, k + 0.36, case["inits"]["whole"]["mean"][-1], "*")
    left.set_xticks(range(len(MODELS)), [MODEL_NAMES[model] for model in MODELS])
    left.set_ylabel(f"{NORM} at t = {settings.rows - 1}")
    left.set_title(_title(settings, f"{settings.draws} inits: range, 5–95 %, median"), fontsize=10)
    marks = {"s": f"means of {settings.inits}", "*": f"{settings.inits} of seed {settings.seed}"}
    _legend(left, {"o": "single inits", **marks})
    others = ("hbnode", "node", "ghbnode")
    for k, other in enumerate(others):
        ratio = outcome.variants["ratios"][other]["code"]
        _bar(right, k, ratio["groups"], LOOK_OF[other]["color"], "s")
        _point(right, k + 0.18, ratio["inits"], "*")
        _point(right, k - 0.18, ratio["medians"], "d")
        if other in SMALLER:
            right.plot([k - 0.35, k + 0.35], [SMALLER[other]] * 2, color="black", linewidth=1.5)
    right.axhline(0, color="0.4", linewidth=0.8)
    right.set_xticks(range(len(others)), [MODEL_NAMES[other] for other in others])
    right.set(xlim=(-0.6, len(others) - 0.4), ylabel="norm of the other model ÷ AdamNODE's")
    _legend(right, {**marks, "d": "medians of single inits", "_": "the paper's claim"})
    for axes in (left, right):
        powers(axes.yaxis)


def _point(axes: Any, x: float, y: float | None, marker: str) -> None:
    if y is not None:
        axes.plot(x, y, marker, color="black", markersize=9 if marker == "*" else 6)


def _legend(axes: Any, marks: dict[str, str]) -> None:
    """What the markers mean, without a colour."""
    for marker, label in marks.items():
        axes.plot([], [], marker, color="0.2", markersize=14 if marker == "_" else 7, label=label)
    axes.legend(loc="upper right")


def _bar(axes: Any, x: float, of: dict[str, Any], colour: str, marker: str) -> None:
    """Range thin, 5–95 % thick, median as a marker; nothing where there are no numbers."""
    if of["median"] is None:
        return
    axes.plot([x, x], [of["low"], of["high"]], color=colour, linewidth=1)
    axes.plot([x, x], [of["q05"], of["q95"]], color=colour, linewidth=5, alpha=0.45, solid_capstyle="butt")
    axes.plot(x, of["median"], marker=marker, color=colour, markeredgecolor="white", markersize=7)


def draw_denominators(figure: Any, settings: Fig3Settings, outcome: Outcome) -> None:
    """AdamNODE's denominators under both sets of rates, and what keeps GHBNODE small."""
    *axes, last = figure.subplots(1, len(settings.rates) + 1, sharey=True)
    means = {
        name: {of: case["inits"][of]["mean"] for of in ("whole", "h")}
        for name, case in outcome.variants["norms"].items()
    }
    for panel, rates in zip(axes, settings.rates, strict=True):
        for kind in settings.denominators:
            mean = means[Case("adamnode", denominator=kind, rates=rates).name]
            _curve(panel, mean["whole"], _KINDS[kind], label=kind, linewidth=2)
            panel.plot(gaps(mean["h"]), linewidth=0.9, **_KINDS[kind])
        panel.set_title(f"AdamNODE, {_RATES[rates]}", fontsize=10)
        panel.legend(loc="upper left", title="denominator (thin: h alone)", alignment="left")
    for (name, label), look in zip(WORDS.table("ghbnode").items(), LOOKS, strict=False):
        _curve(last, means[name]["whole"], {**look, "marker": ""}, label=label, linewidth=2)
    last.set_title("GHBNODE,\nwhat keeps it small", fontsize=10)
    last.legend(loc="upper left")
    figure.suptitle(_title(settings, _inits(settings)), fontsize=10)
    axes[0].set_ylabel(f"{NORM}, mean of {settings.inits} inits")
    powers(axes[0].yaxis)
    for panel in (*axes, last):
        _over_time(panel, settings)


def draw_trained(figure: Any, settings: Fig3Settings, outcome: Outcome) -> None:
    """The norms over t of trained models, the median of all, and their errors."""
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    trained = outcome.variants["trained"]
    for k, model in enumerate(MODELS):
        curves = [gaps(curve) for curve in trained[model]["whole"]]
        for curve in curves:
            left.plot(curve, color=LOOK_OF[model]["color"], linewidth=0.5, alpha=0.3)
        middle = [median(at) for at in zip(*curves, strict=True)]
        left.plot(middle, label=MODEL_NAMES[model], markevery=_every(len(middle), k), **LOOK_OF[model])
        _errors(right, k, trained[model], settings)
    _over_time(left, settings)
    left.set_ylabel(f"{NORM}, median (thin: each)")
    title = f"{len(trained['node']['scales'])} trained models each, {settings.train_steps} steps"
    left.set_title(_title(settings, title), fontsize=10)
    powers(left.yaxis)
    left.legend(ncols=3, loc="lower left", framealpha=0.8, frameon=True)
    rms = trained["node"]["output_rms_mv"]
    right.axhline(rms, color="0.4", linestyle="--", linewidth=1, label="the output's own RMS")
    right.set(yscale="log", ylabel="RMSE after training (mV)")
    plain_numbers(right.yaxis)
    right.set_xticks(range(len(MODELS)), [MODEL_NAMES[model] for model in MODELS], fontsize=8)
    right.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8)


def _errors(axes: Any, k: int, trained: dict[str, Any], settings: Fig3Settings) -> None:
    """Errors of the models by the scale of their start, a marker for each scale."""
    found = list(zip(trained["rmse_mv_after"], trained["scales"], strict=True))
    for j, scale in enumerate(settings.train_scales):
        errors = [error for error, of in found if of == scale and error is not None]
        label = f"from torch's weights × {scale:g}" if k == 0 else None
        look = {"color": LOOKS[j % len(LOOKS)]["color"], "marker": "o^sDv"[j % 5], "linestyle": ""}
        x = k + 0.3 * (j - (len(settings.train_scales) - 1) / 2)
        axes.plot([x] * len(errors), errors, alpha=0.7, label=label, **look)


PICTURES = {
    "fig3": (draw_fig3, (7.5, 5)),
    "fig3-draws": (draw_draws, (12, 5)),
    "fig3-denominators": (draw_denominators, (12, 4.8)),
    "fig3-trained": (draw_trained, (12, 4.8)),
}
