"""The pictures of an inspection. Each draws on a matplotlib figure; `plotting.save_figure` writes it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..plotting import BLUE, GREEN, LOOKS, ORANGE, PINK
from ..solvers.attempts import TraceRow
from .precision import Rung
from .reference import Reference
from .study import Study

MOST_LINES, HIGHEST_RATIO = 6, 1000.0  # colours that can be told apart; above it a ratio only says: far off


# Readable where it lies over a line.
_LEGEND = {"loc": "best", "frameon": True, "framealpha": 0.85, "edgecolor": "none", "fontsize": 8}


def _look(i: int) -> dict[str, Any]:
    return dict(LOOKS[i % len(LOOKS)])


def _time_axis(axis: Any, study: Study) -> None:
    t0, t1 = study.problem.span
    if study.problem.log_time and t0 == 0 < t1:
        axis.set_xscale("log")
    axis.set_xlabel("t")


def draw_solution(figure: Any, studies: Sequence[Study], reference: Reference | None) -> None:
    """Components over time, the phase plane, and the error of each method over time."""
    first = max(studies, key=lambda s: abs(s.end - s.times[0]))
    phase = first.values.shape[1] > 1
    axes = figure.subplots(1, 2 + phase)
    t, y = first.curve(3000)
    _components(axes[0], first, t, y)
    if phase:
        i, j = first.problem.plane
        axes[1].plot(y[:, i], y[:, j], color=BLUE, linewidth=1)
        axes[1].plot(y[:1, i], y[:1, j], color=ORANGE, marker="o", linestyle="", label="start")
        axes[1].set_xlabel(f"y{i + 1}")
        axes[1].set_ylabel(f"y{j + 1}")
        axes[1].set_title("phase plane")
        axes[1].legend(**_LEGEND)
    _errors(axes[-1], studies, reference)
    title = f"{first.problem.name}: {first.problem.equation}"
    figure.suptitle(textwrap.shorten(title, 150, placeholder=" …"), fontsize=9)


def _components(axis: Any, study: Study, t: Sequence[float], y: torch.Tensor) -> None:
    """The components; where their sizes differ much, each over its own."""
    n = y.shape[1]
    # Of many the most different ones: evenly chosen.
    chosen = list(range(n)) if n <= MOST_LINES else [round(i * (n - 1) / 5) for i in range(MOST_LINES)]
    sizes = [float(y[:, i].abs().max()) for i in chosen]
    apart = max(sizes) > 100 * max(min(sizes), 1e-300)
    every = max(1, len(t) // 12)
    marks = lambda k: {"markersize": 4, "markevery": (k * every // 6, every)}  # noqa: E731
    for k, (i, size) in enumerate(zip(chosen, sizes, strict=True)):
        scale = size if apart and size > 0 else 1.0
        label = f"y{i + 1}" if scale == 1.0 else f"y{i + 1} ÷ {scale:.2g}"
        axis.plot(t, y[:, i] / scale, label=label, **_look(k), **marks(k))
    _time_axis(axis, study)
    more = "" if len(chosen) == n else f", {len(chosen)} of {n} components"
    axis.set_title(f"solution by {study.method}{more}")
    if len(t) > 1 and study.status not in ("SUCCESS", "EVENT"):
        _mark_end(axis, study)
    middle = float(y[:, chosen].abs().amax(1).median())
    if not apart and max(sizes) > 1e4 * middle > 0:  # it blew up: the way there is worth seeing
        one_sign = float(y[:, chosen].min()) >= 0
        axis.set_yscale("log" if one_sign else "symlog", **({} if one_sign else {"linthresh": middle}))
    axis.legend(**_LEGEND)


def _mark_end(axis: Any, study: Study) -> None:
    axis.axvline(study.end, color="black", linestyle=":", linewidth=1)
    axis.annotate(
        f"{study.status}",
        (study.end, 0.02),
        xycoords=("data", "axes fraction"),
        rotation=90,
        ha="right",
        va="bottom",
        fontsize=8,
    )


def _errors(axis: Any, studies: Sequence[Study], reference: Reference | None) -> None:
    axis.set_title("error ÷ size of the solution")
    _time_axis(axis, studies[0])
    if reference is None:
        axis.text(0.5, 0.5, "no reference", ha="center", transform=axis.transAxes)
        return
    for k, study in enumerate(studies):
        # An error of 0 has no place on a logarithmic axis: the start, mostly.
        pairs = [(t, e) for t, e in zip(study.times, study.errors, strict=True) if e > 0]
        if pairs:
            axis.plot(*zip(*pairs, strict=True), label=study.method, markersize=3, markevery=4, **_look(k))
    axis.set_yscale("log")
    _draw_floor(axis, reference)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(**_LEGEND)


def _floor_look() -> dict[str, Any]:
    fill = {"facecolor": "0.9", "edgecolor": "0.65", "hatch": "///", "linewidth": 0}
    return {**fill, "label": "the reference is no better", "zorder": 0}


def _draw_floor(axis: Any, reference: Reference) -> None:
    low, _ = axis.get_ylim()
    if reference.floor > low / 100:
        axis.axhspan(min(low, reference.floor / 10), reference.floor, **_floor_look())


def draw_steps(figure: Any, study: Study) -> None:
    """Step sizes, rejections marked and those by Newton's iteration apart, error ratios, dt·|λ| over time.

    A method without an error estimate has no second panel, one that cannot tell dt·|λ| no third.
    """
    judged = any(math.isfinite(row.error_ratio) for row in study.rows)
    stiff = any(math.isfinite(row.stiffness) for row in study.rows)
    panels = 1 + judged + stiff
    axes = list(figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0])
    # On a logarithmic axis an attempt from t = 0 has a place only by its end.
    shift = 1.0 if study.problem.log_time else 0.0
    few = sum(row.accepted for row in study.rows) <= 150
    line = {"color": BLUE, "marker": "." if few else "", "markersize": 4, "linewidth": 0.9}

    def plot(axis: Any, rows: Sequence[TraceRow], key: str, **look: Any) -> None:
        shown = [(r.t + shift * r.dt, abs(value)) for r in rows if math.isfinite(value := getattr(r, key))]
        shown = [(t, value) for t, value in shown if value > 0]
        axis.plot([t for t, _ in shown], [value for _, value in shown], **look)

    _step_sizes(axes[0], study, plot, line)
    if judged:
        _ratios(axes[1], study, plot, line)
    if stiff:
        plot(axes[-1], [r for r in study.rows if r.accepted], "stiffness", **{**line, "color": GREEN})
        limit = study.stability_limit
        label = f"stable below {limit:.2f} (λ < 0)"
        axes[-1].axhline(limit, color="black", linewidth=1, linestyle="--", label=label)
        axes[-1].set_yscale("log")
        axes[-1].set_ylabel("dt·|λ|")
        axes[-1].legend(**_LEGEND)
    _time_axis(axes[-1], study)
    if shift:
        axes[-1].set_xlabel("t at the end of the attempt")
    figure.suptitle(f"{study.problem.name}, {study.method}: attempts", fontsize=10)


Plot = Callable[..., None]  # axis, rows, the rows' key, looks
_CROSS = {"color": ORANGE, "marker": "x", "markersize": 5, "linestyle": ""}
_UNSOLVED = {"color": PINK, "marker": "v", "markersize": 5, "linestyle": ""}


def _step_sizes(axis: Any, study: Study, plot: Plot, line: dict[str, Any]) -> None:
    rejected = [row for row in study.rows if not row.accepted and not row.newton]
    unsolved = [row for row in study.rows if row.newton]
    plot(axis, [row for row in study.rows if row.accepted], "dt", label="accepted", **line)
    if rejected:
        plot(axis, rejected, "dt", label=f"{len(rejected)} rejected", **_CROSS)
    names = list(dict.fromkeys(row.method for row in study.rows))
    if len(names) > 1:
        own = [row for row in study.rows if row.method == names[1]]
        plot(axis, own, "dt", label=f"by {names[1]}", color=GREEN, marker=".", markersize=4, linestyle="")
    if unsolved:
        plot(axis, unsolved, "dt", label=f"{len(unsolved)} not solved by Newton", **_UNSOLVED)
    sizes = [abs(row.dt) for row in study.rows]
    if sizes and max(sizes) < 1.5 * min(sizes):
        axis.set_ylim(0, 1.2 * max(sizes))
    else:
        axis.set_yscale("log")
    axis.set_ylabel("|dt|")
    axis.legend(**_LEGEND)


def _ratios(axis: Any, study: Study, plot: Plot, line: dict[str, Any]) -> None:
    rejected = [row for row in study.rows if not row.accepted and not row.newton]
    plot(axis, [row for row in study.rows if row.accepted], "error_ratio", **line)
    plot(axis, [row for row in rejected if row.error_ratio <= HIGHEST_RATIO], "error_ratio", **_CROSS)
    shift = 1.0 if study.problem.log_time else 0.0
    beyond = [row.t + shift * row.dt for row in rejected if not row.error_ratio <= HIGHEST_RATIO]
    if beyond:  # one ratio of 10¹³ would press all others flat
        place = {"transform": axis.get_xaxis_transform(), "color": ORANGE, "marker": "^", "linestyle": ""}
        label = f"above {HIGHEST_RATIO:.0f}, or NaN in a stage"
        axis.plot(beyond, [0.95] * len(beyond), label=label, **place)
    axis.set_yscale("log")
    axis.axhline(1.0, color="black", linewidth=1, linestyle="--", label="accepted below 1")
    axis.set_ylabel("error ratio")
    axis.legend(**_LEGEND)


def draw_precision(figure: Any, rungs: Sequence[Rung], reference: Reference, title: str) -> None:
    """What an error costs: evaluations of f over the error, a line a method."""
    axis = figure.subplots()
    for k, method in enumerate(dict.fromkeys(rung.method for rung in rungs)):
        own = [rung for rung in rungs if rung.method == method and rung.error > 0]
        axis.plot([r.error for r in own], [r.nfe for r in own], label=method, markersize=5, **_look(k))
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.invert_xaxis()
    if reference.floor > 0:
        low, high = axis.get_xlim()[1], axis.get_xlim()[0]
        if reference.floor > low:
            axis.axvspan(low, reference.floor, **_floor_look())
        axis.set_xlim(high, low)
    axis.set_xlabel(f"largest error ÷ size of the solution (against: {reference.kind})")
    axis.set_ylabel("evaluations of f")
    axis.set_title(f"{title}: work and precision")
    axis.legend(**_LEGEND)
