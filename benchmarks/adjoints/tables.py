"""The measurements as Markdown tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from .cost import NOT_MEASURED, Costs
from .growth import Batch, Growth, exponent, retaken
from .guard import HARD, Outcome
from .slopes import Line


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column to the left, numbers to the right."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def power(value: float) -> str:
    """1.2e-5; "error" for NaN."""
    if math.isnan(value):
        return "error"
    if value >= 0.1:
        return f"{value:.2g}"
    mantissa, exponent_ = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent_)}"


def decade(tol: float) -> str:
    """A tolerance as it is written in a table: 1e-5."""
    mantissa, exponent_ = f"{tol:.0e}".split("e")
    return f"{mantissa}e{int(exponent_)}"


def kib(value: float) -> str:
    return f"{value / 1024:,.0f}"


def code(name: str) -> str:
    """Our calls as code, others' names as words."""
    return name if name.startswith("torchdiffeq") else f"`{name}`"


def mean(values: Iterable[float]) -> float:
    """Geometric, of those that are numbers."""
    logs = [math.log(v) for v in values if math.isfinite(v)]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def names_of(found: Costs) -> list[str]:
    return list(next(iter(found.values())))


def summary(found: Costs, tolerances: Sequence[float]) -> str:
    """Geometric means over the models; time and memory over the first way's."""
    models = list(dict.fromkeys(m for m, _ in found))
    first = names_of(found)[0]
    rows = []
    for name in names_of(found):
        row = [code(name)]
        for tol in tolerances:
            own = [
                (found[m, tol][name], found[m, tol][first]) for m in models if not found[m, tol][name].failed
            ]
            if not own:
                row += ["–"] * 3
                continue
            row += [power(mean(a.error for a, _ in own)), f"{mean(a.ratio for a, _ in own):.2f}"]
            row.append(f"{mean(a.peak / b.peak for a, b in own):.2f}")
        rows.append(row)
    head = [""]
    for tol in tolerances:
        head += [f"tol {decade(tol)}: error", "time", "memory"]
    return table(head, rows)


def cells(found: Costs, model: str, tolerances: Sequence[float]) -> str:
    """One model: error, time over the first way's, peak in KiB; at each tolerance."""
    rows = []
    for name in names_of(found):
        row = [code(name)]
        for tol in tolerances:
            one = found[model, tol][name]
            if one.failed:
                row += ["–" if one.failed == NOT_MEASURED else "error", "–", "–"]
            else:
                row += [power(one.error), f"{one.ratio:.2f}", kib(one.peak)]
        rows.append(row)
    head = [""]
    for tol in tolerances:
        head += [f"tol {decade(tol)}: error", "time", "KiB"]
    return table(head, rows)


def slopes(found: dict[str, dict[str, Line]], tolerances: Sequence[float]) -> str:
    rows = [
        (f"{model}, {choice}", *map(power, line.error), f"**{line.slope(tolerances):.2f}**")
        for model, lines in found.items()
        for choice, line in lines.items()
    ]
    return table(("error of the gradient", *map(decade, tolerances), "slope"), rows)


def growth(found: dict[str, Growth], steps: Sequence[int], which: str) -> str:
    rows = []
    for name, one in found.items():
        values = getattr(one, which)
        rows.append((code(name), *map(kib, values), f"{exponent(steps, values):.2f}"))
    return table(("KiB", *(f"N = {n:,}" for n in steps), "∝ N^p, p ="), rows)


def retakes(steps: Sequence[int]) -> str:
    """How often steps are taken again with ⌈√N⌉, ⌈log₂N⌉ and 8 checkpoints."""
    rows = []
    for name, count in (
        ("⌈√N⌉", lambda n: math.isqrt(n - 1) + 1),
        ("⌈log₂N⌉", lambda n: math.ceil(math.log2(n))),
        ("8", lambda n: 8),
    ):
        rows.append((name, *(f"{retaken(n, count(n)):.1f} ({count(n)})" for n in steps)))
    return table(("times a step is taken again (checkpoints)", *(f"N = {n:,}" for n in steps)), rows)


def batches(found: Sequence[Batch]) -> str:
    names = list(found[0].backward)
    rows = [
        (
            str(one.batch),
            kib(one.theta),
            kib(one.batch * one.theta),
            *(kib(one.backward[name]) for name in names),
        )
        for one in found
    ]
    return table(("B", "θ, KiB", "B × θ, KiB", *(f"`{n}`, KiB" for n in names)), rows)


def guard(found: dict[str, Sequence[Outcome]]) -> str:
    rows = []
    for name, outcomes in found.items():
        halves = (
            ("≤ 4", [o for o in outcomes if o.seed < HARD]),
            ("4 … 20", [o for o in outcomes if o.seed >= HARD]),
        )
        for half, own in halves:
            answered = [o for o in own if o.error is not None]
            worst = max((o.error for o in answered), default=math.nan)
            finite = all(o.finite for o in answered)
            wrong = sum(o.wrong for o in own)
            rows.append(
                (
                    f"`{name}`, (1−β)T {half}",
                    f"{len(answered)} of {len(own)}",
                    str(len(own) - len(answered)),
                    power(worst),
                    "none" if finite else "some",
                    str(wrong),
                )
            )
    head = ("", "answered", "errors raised", "worst error answered", "NaN", "off by > 1e-4 without an error")
    return table(head, rows)
