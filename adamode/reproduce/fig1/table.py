"""Fig. 1 as numbers: its rows, who comes closer and sooner, the maps, the verdicts."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..machinery.figure import FAILS, HOLDS, IN_PART, UNTOLD, Claim, Outcome
from .descent import FUNCTIONS, Travel, first_time, settled_time

if TYPE_CHECKING:
    from . import Fig1Settings

Row = dict[str, Any]
RADII = ("1e-1", "1e-2", "1e-3")
JUDGED = "1e-2"  # coming and staying this near is "reaching" the minimum
FLOOR = 1e-6  # nearer than this is there: the solves know no better
RIVALS = {
    "gradient-flow": "gradient flow",
    "hbode": "HBODE",
    "hbode-damped": "HBODE",
}
COLUMNS = {
    "function": "function",
    "start": "start",
    "model": "model",
    "distance": "distance at T",
    **{f"t_{r}": f"first within {r}" for r in RADII},
    **{f"stays_{r}": f"stays within {r} from" for r in RADII},
    "path": "length of path",
    "nfe": "NFE",
    "nfe_loose": "NFE, dopri5",
    f"nfe_stays_{JUDGED}": f"NFE to stay within {JUDGED}",
    "status": "status",
}


def row_of(travelled: Travel, k: int) -> Row:
    """Of the k-th descent: distance at T, times, length of path, NFE, status; None where never or failed.

    at: the distances at T/4, T/2, 3T/4 and T.
    """
    t, d = travelled.t.tolist(), travelled.distance[:, k].tolist()
    n = len(t) - 1
    return {
        "distance": _number(d[-1]),
        **{f"t_{r}": _number(first_time(t, d, float(r))) for r in RADII},
        **{f"stays_{r}": _number(settled_time(t, d, float(r))) for r in RADII},
        "path": _number(float(travelled.path[-1, k])),
        "nfe": travelled.nfe[k],
        "status": travelled.status[k],
        "at": [_number(d[round(share * n / 4)]) for share in (1, 2, 3, 4)],
    }


def _number(value: float | None) -> float | None:
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None


def closer(ours: Sequence[Row], theirs: Sequence[Row], quarter: int = 3) -> int:
    """From how many starts ours is nearer to the minimum at T (quarter 0, 1, 2: at T/4, T/2, 3T/4).

    Both within FLOOR: a tie, not a win. One that failed has lost.
    """
    pairs = [(o["at"][quarter], t["at"][quarter]) for o, t in zip(ours, theirs, strict=True)]
    return sum(_less(*(d if d is None else max(d, FLOOR) for d in pair)) for pair in pairs)


def faster(ours: Sequence[Row], theirs: Sequence[Row], key: str = f"stays_{JUDGED}") -> int:
    """From how many starts ours reaches the radius sooner, or alone; key: a column of times."""
    return sum(_less(o[key], t[key]) for o, t in zip(ours, theirs, strict=True))


def undecided(ours: Sequence[Row], theirs: Sequence[Row], key: str = f"stays_{JUDGED}") -> int:
    """From how many starts neither reaches the radius."""
    return sum(o[key] is None and t[key] is None for o, t in zip(ours, theirs, strict=True))


def _less(a: float | None, b: float | None) -> bool:
    return a is not None and (b is None or a < b)


def outcome_of(settings: Fig1Settings, found: dict[str, Any]) -> Outcome:
    """Rows and maps from what the parts computed, by part name."""
    rows: list[Any] = []
    rivals: list[Any] = []
    variants: dict[str, list[Any]] = {"gamma": [], "rates": [], "eps": [], "quarters": []}
    curves, ways, reference, printed = {}, {}, {}, {}
    for name in FUNCTIONS:
        groups, cost = found[name]["rows"], found[f"{name}-cost"]
        starts = [list(one) for one in settings.starts(name)]
        for model in settings.flows():
            into = rivals if model == "hbode-damped" else rows
            for start, row, more in zip(starts, groups[model], cost[model], strict=True):
                spent = {key: value for key, value in more.items() if key != "way"}
                into.append({"function": name, "start": start, "model": model, **row, **spent})
        for kind, entry in _maps(name, settings, groups):
            variants[kind].append(entry)
        curves[name] = {**found[name]["curves"], "t": found[name]["t"]}
        ways[name] = {model: cost[model][0]["way"] for model in cost}
        reference[name], printed[name] = found[f"{name}-reference"], found[f"{name}-printed"]
    more = {
        "hbode-damped": rivals,
        "curves": curves,
        "ways": ways,
        "tail": found["tail"],
        "smallest_curvature": {name: found[name]["smallest_curvature"] for name in FUNCTIONS},
        "reference": reference,
        "printed": printed,
    }
    return Outcome(rows, {**variants, **more})


def _maps(name: str, settings: Fig1Settings, groups: dict[str, list[Row]]) -> list[tuple[str, Row]]:
    """(map's name, its entry) of a function: from how many starts AdamODE wins, in each setting."""
    adam, found = groups["adamode"], []
    for gamma in settings.gammas:
        theirs = groups[f"gamma {gamma!r}"]
        found.append(("gamma", {"function": name, "gamma": gamma, **_summary(theirs), **_wins(adam, theirs)}))
    for a in settings.rates:
        for b in settings.rates:
            ours = groups[f"rates {a!r} {b!r}"]
            entry = {"function": name, "rate_m": a, "rate_v": b, **_summary(ours), **_against(ours, groups)}
            found.append(("rates", entry))
    for eps in settings.epsilons:
        ours = groups[f"eps {eps!r}"]
        found.append(("eps", {"function": name, "eps": eps, **_summary(ours), **_against(ours, groups)}))
    for model in RIVALS:
        counts = [closer(adam, groups[model], quarter) for quarter in range(4)]
        found.append(("quarters", {"function": name, "rival": model, "closer": counts}))
    return found


def _wins(ours: list[Row], theirs: list[Row]) -> Row:
    return {"closer": closer(ours, theirs), "faster": faster(ours, theirs)}


def _against(ours: list[Row], groups: dict[str, list[Row]]) -> Row:
    each = {model: _wins(ours, groups[model]) for model in RIVALS}
    return {kind: {model: each[model][kind] for model in RIVALS} for kind in ("closer", "faster")}


def _summary(rows: list[Row]) -> Row:
    """Median distance at T (a failed solve counts as infinitely far), how many stay near, how many failed."""
    middle = statistics.median(math.inf if row["distance"] is None else row["distance"] for row in rows)
    return {
        "median_distance": _number(middle),
        "reached": sum(row[f"stays_{JUDGED}"] is not None for row in rows),
        "failed": sum(row["status"] != "success" for row in rows),
    }


def of(outcome: Outcome, function: str, model: str) -> list[Row]:
    """The rows of a function and model, in the order of the starts."""
    rows = outcome.variants["hbode-damped"] if model == "hbode-damped" else outcome.rows
    return [row for row in rows if row["function"] == function and row["model"] == model]


def judge(settings: Fig1Settings, outcome: Outcome) -> list[Claim]:
    """The paper's sentence taken apart: closer and faster, on each function, than each rival.

    Against HBODE at two γ, all starts of both counted together, but for those from which neither arrives:
    all of them is "holds", fewer than half "does not hold".
    """
    claims = []
    for function in FUNCTIONS:
        for kind in ("closer", "faster"):
            for rival, models in (("gradient flow", ["gradient-flow"]), ("HBODE", ["hbode", "hbode-damped"])):
                claims.append(_claim(settings, outcome, function, kind, rival, models))
    return claims


def _claim(
    settings: Fig1Settings, outcome: Outcome, function: str, kind: str, rival: str, models: list[str]
) -> Claim:
    ours = of(outcome, function, "adamode")
    at = {"hbode": f" at γ = {settings.gamma:.3g}", "hbode-damped": f" at γ = {settings.fair_gamma:g}"}
    counts, evidence, comparisons = [], [], 0
    for model in models:
        theirs = of(outcome, function, model)
        counts.append((closer if kind == "closer" else faster)(ours, theirs))
        evidence.append(_evidence(kind, ours, theirs, at.get(model, "")))
        comparisons += len(ours) - (undecided(ours, theirs) if kind == "faster" else 0)
    n = len(ours)
    told = ", ".join(f"{c} of {n} starts{at.get(m, '')}" for c, m in zip(counts, models, strict=True))
    what = (
        f"nearer at t = {settings.end:g}"
        if kind == "closer"
        else f"comes within {JUDGED}, to stay to t = {settings.end:g}, sooner"
    )
    reach = "comes closer to the minimum" if kind == "closer" else "reaches the minimum faster"
    return Claim(
        f"On {function.capitalize()}'s function AdamODE {reach} than {rival}.",
        kind,
        f"{what} from {told}",
        verdict(sum(counts), comparisons, n >= settings.enough_starts),
        " ".join(evidence),
    )


def verdict(wins: int, comparisons: int, enough: bool) -> str:
    """All comparisons won: holds. Fewer than half: does not hold. None made: nothing is told."""
    if not enough or not comparisons:
        return UNTOLD
    return HOLDS if wins == comparisons else IN_PART if 2 * wins >= comparisons else FAILS


def _evidence(kind: str, ours: list[Row], theirs: list[Row], at: str) -> str:
    if kind == "closer":
        a, b = (_summary(rows)["median_distance"] for rows in (ours, theirs))
        return f"Median distance {_power(a)} against {_power(b)}{at}."
    n = len(ours)
    other = ", ".join(f"{r} from {faster(ours, theirs, f'stays_{r}')}" for r in RADII if r != JUDGED)
    first = faster(ours, theirs, f"t_{JUDGED}")
    reached = sum(row[f"stays_{JUDGED}"] is not None for row in ours)
    them = sum(row[f"stays_{JUDGED}"] is not None for row in theirs)
    return (
        f"{reached} against {them} of {n}{at} get there, neither from {undecided(ours, theirs)}; "
        f"sooner to stay within {other}; sooner just to pass "
        f"within {JUDGED} from {first}."
    )


def _power(value: float | None) -> str:
    return "none (failed)" if value is None else f"{value:.1e}"
