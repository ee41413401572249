"""The picture of the adjoint on its way: norms, the rebuilt state, steps forward and back."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

from ..plotting import BLUE, GREEN, LOOKS, ORANGE, PINK
from ..solvers.attempts import TraceRow
from .adjoint import AdjointStudy
from .adjoint_tables import norms_by_column

# One gradient, one look: the widest line below, so that what coincides stays visible.
_GRADIENTS: dict[str, dict[str, Any]] = {
    "discrete": {"linestyle": "-", "linewidth": 4.0, "alpha": 0.3},
    "interpolating": {"linestyle": "-", "linewidth": 1.4},
    "backsolve": {"linestyle": (0, (1, 1.5)), "linewidth": 2.2},
    "reversible": {"linestyle": "--", "linewidth": 1.4},
}
_STEPS = {"discrete": GREEN, "interpolating": BLUE, "backsolve": PINK, "reversible": ORANGE}
_COLOURS = (BLUE, ORANGE, GREEN, PINK, "#000000")
_LEGEND = {"frameon": True, "framealpha": 0.85, "edgecolor": "none", "fontsize": 8}


def draw_adjoint(figure: Any, studies: Sequence[AdjointStudy]) -> None:
    """Norms of the adjoint, the rebuilt state's distance, and step sizes forward and back, over t."""
    axes = figure.subplots(2, 2, sharex=True)
    problem = studies[0].problem
    _norms(axes[0, 0], studies)
    _rebuilt(axes[0, 1], studies)
    _forward(axes[1, 0], studies[0])
    _backward(axes[1, 1], studies)
    low, high = _sizes(studies)
    for axis in axes[1]:
        axis.set_ylim(low, high)
        axis.set_xlabel("t")
    if problem.log_time and problem.span[0] == 0 < problem.span[1]:
        # On a logarithmic axis t = 0 has no place: it begins at the end of the first step.
        for axis in axes.flat:
            axis.set_xscale("log")
    for study in studies:
        _mark_failure(axes, study)
    title = f"{problem.name}: {problem.equation}"
    settings = ", ".join(f"{key} = {studies[0].arguments[key]:g}" for key in ("rtol", "atol"))
    second = f"{problem.loss}, seed {studies[0].seed};  {studies[0].arguments['method']}, {settings}"
    figure.suptitle(f"{textwrap.shorten(title, 130, placeholder=' …')}\n{second}", fontsize=9.5)


def _positive(t: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """What a logarithmic axis can show; a zero, or NaN, is a gap."""
    shown = [v if math.isfinite(v) and v > 0 else math.nan for v in values]
    return list(t), shown


def _symbol(name: str) -> str:
    """a_h as mathematics."""
    quantity, _, block = name.partition("_")
    return f"‖{quantity}‖" if not block else f"‖${quantity}_{{{block}}}$‖" if block.isalnum() else f"‖{name}‖"


def _quantities(studies: Sequence[AdjointStudy], quantity: str) -> list[str]:
    blocks = studies[0].way.blocks
    return [f"{quantity}_{b}" for b in blocks] if blocks else [quantity]


def _norms(axis: Any, studies: Sequence[AdjointStudy]) -> None:
    """One colour a block, one look a gradient."""
    names = _quantities(studies, "a")
    for study in studies:
        columns = norms_by_column(study.way)
        for name, colour in zip(names, _COLOURS, strict=False):
            axis.plot(
                *_positive(study.way.t.tolist(), columns[name]), color=colour, **_GRADIENTS[study.gradient]
            )
    axis.set_yscale("log")
    whole = [norms_by_column(s.way) for s in studies if s.way.failure is None]
    if whole and len(whole) < len(studies):  # what failed may have blown up: it leaves the picture
        shown = [v for columns in whole for name in names for v in columns[name] if v > 0]
        if shown:
            axis.set_ylim(min(shown) / 10, max(shown) * 10)
    axis.set_title("adjoint a = dL/dz(t): RMS" + (" by block" if len(names) > 1 else ""))
    lines = [{"color": colour, "label": _symbol(name)} for name, colour in zip(names, _COLOURS, strict=False)]
    looks = [{"color": "0.3", "label": s.gradient, **_GRADIENTS[s.gradient]} for s in studies]
    both = len(looks) > 1
    if both:  # blocks in one column of the legend, gradients in the other
        lines += [{"color": "none", "label": " "}] * (len(looks) - len(lines))
    for look in (*lines, *(looks if both else ())):
        axis.plot([], [], **look)
    axis.legend(ncols=2 if both else 1, **_LEGEND)


def _rebuilt(axis: Any, studies: Sequence[AdjointStudy]) -> None:
    """How far the state that backsolve solved backwards is from the forward one, and what is asked for."""
    axis.set_title("backsolve: rebuilt − forward state, RMS")
    study = next((s for s in studies if s.gradient == "backsolve"), None)
    if study is None or study.way.rebuilt is None:
        text = "only backsolve solves the state backwards"
        axis.text(0.5, 0.5, text, ha="center", transform=axis.transAxes, color="0.4")
        axis.set_yticks([])
        return
    columns, t = norms_by_column(study.way), study.way.t.tolist()
    names = _quantities(studies, "off")
    for name, look in zip(names, LOOKS, strict=False):
        label = f"block {name[4:]}" if name[4:] else "difference"
        own = {**look, "markersize": 3 if len(t) < 150 else 0}
        axis.plot(*_positive(t, columns[name]), label=label, **own)
    lost = study.way.given_up
    if lost is not None:
        for name, look in zip(names, LOOKS, strict=False):
            faint = {"color": look["color"], "linewidth": 0.9, "alpha": 0.45}
            axis.plot(*_positive(lost.t.tolist(), norms_by_column(lost)[name]), **faint)
        axis.plot([], [], color="0.3", linewidth=0.9, alpha=0.45, label="the walk given up")
    rtol, atol = study.arguments["rtol"], study.arguments["atol"]
    sizes = [columns[name.replace("off", "state")] for name in names]
    allowed = [atol + rtol * max(at) for at in zip(*sizes, strict=True)]
    axis.plot(t, allowed, color="black", linestyle="--", linewidth=1, label="atol + rtol·‖z‖")
    axis.set_yscale("log")
    most = 1e3 * max(max(at) for at in sizes)
    if axis.get_ylim()[1] > most > 0:
        axis.set_ylim(top=most)
    axis.legend(**_LEGEND)


def _attempts(axis: Any, rows: Sequence[TraceRow], label: str, **look: Any) -> None:
    """|dt| over the attempt's middle, so that both directions show a step at one place; crosses where it
    was rejected."""
    accepted, rejected = ([r for r in rows if r.accepted is wanted] for wanted in (True, False))
    marker = "." if len(accepted) <= 150 else ""
    axis.plot(*_middles(accepted), label=label, marker=marker, **look)
    if rejected:
        cross = {"marker": "x", "linestyle": "", "markersize": 4, "alpha": look.get("alpha", 1.0)}
        axis.plot(*_middles(rejected), color=look["color"], **cross)


def _middles(rows: Sequence[TraceRow]) -> tuple[list[float], list[float]]:
    return [row.t + row.dt / 2 for row in rows], [abs(row.dt) for row in rows]


def _counted(name: str, rows: Sequence[TraceRow]) -> str:
    rejected = sum(not row.accepted for row in rows)
    return f"{name}: {len(rows) - rejected} steps" + (f", {rejected} rejected (×)" if rejected else "")


def _forward(axis: Any, study: AdjointStudy) -> None:
    rows = study.way.forward
    _attempts(axis, rows, _counted("forward", rows), color="#000000", linewidth=1)
    axis.set_yscale("log")
    axis.set_title("step sizes forward")
    axis.set_ylabel("|dt|")
    axis.legend(**_LEGEND)


def _backward(axis: Any, studies: Sequence[AdjointStudy]) -> None:
    for study in studies:
        look = {"color": _STEPS[study.gradient], "linewidth": 1.2}
        if study.way.given_up is not None:
            rows = study.way.given_up.backward
            _attempts(axis, rows, _counted("given up", rows), **{**look, "color": "0.6", "linewidth": 0.8})
        rows = study.way.backward
        name = study.gradient + (" (the same steps)" if study.gradient == "discrete" else "")
        if study.gradient == "discrete":
            look = {"color": GREEN, **_GRADIENTS["discrete"]}
        _attempts(axis, rows, _counted(name, rows), **look)
    axis.set_yscale("log")
    axis.set_title("step sizes backward, from the right to the left")
    axis.legend(**_LEGEND)


def _sizes(studies: Sequence[AdjointStudy]) -> tuple[float, float]:
    """One range for both panels of step sizes: where a reverse solve fails its steps fall without end."""
    whole = [s.way.backward for s in studies if s.way.failure is None]
    sizes = [abs(row.dt) for rows in (studies[0].way.forward, *whole) for row in rows if row.accepted]
    return min(sizes) / 3, 3 * max(sizes)


def _mark_failure(axes: Any, study: AdjointStudy) -> None:
    """A line where a reverse solve ended, with its status."""
    failure = study.way.failure
    if failure is None or not len(study.way.t):
        return
    at = study.way.t[-1].item()
    for axis in axes.flat:
        axis.axvline(at, color=_STEPS[study.gradient], linestyle=":", linewidth=1.2)
    axes[0, 0].annotate(
        f"{study.gradient}: {study.status}",
        (at, 0.5),
        xycoords=("data", "axes fraction"),
        xytext=(-3, 0),
        textcoords="offset points",
        rotation=90,
        ha="right",
        va="center",
        fontsize=8,
        color=_STEPS[study.gradient],
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
    )
