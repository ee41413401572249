"""Fig. 1 as numbers: its rows, who comes closer and sooner, the maps, the verdicts."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..machinery.figure import FAILS, HOLDS, IN_PART, UNTOLD, Claim, Outcome, Row, Words
from .descent import FUNCTIONS, Travel, first_time, settled_time
from .settings import READINGS, UNIT, Fig1Settings, group_of

WORDS = Words("fig1")
RADII = ("1e-1", "1e-2", "1e-3")
JUDGED = "1e-2"  # coming and staying this near is "reaching" the minimum
STAYS = f"stays_{JUDGED}"
FLOOR = 1e-6  # nearer than this is there: the solves know no better
RIVALS = ("gradient-flow", "hbode", "hbode-damped")


def row_of(travelled: Travel, k: int) -> Row:
    """Of the k-th descent: distance at T, times, length of path, NFE, status; None where never or failed.

    at: the distances at T/4, T/2, 3T/4 and T.
    """
    t, d = travelled.t.tolist(), travelled.distance[:, k].tolist()
    n = len(t) - 1
    return {
        "distance": short(d[-1]),
        **{f"t_{r}": short(first_time(t, d, float(r))) for r in RADII},
        **{f"stays_{r}": short(settled_time(t, d, float(r))) for r in RADII},
        "path": short(float(travelled.path[-1, k])),
        "nfe": travelled.nfe[k],
        "status": travelled.status[k],
        "at": [short(d[round(share * n / 4)]) for share in (1, 2, 3, 4)],
    }


def short(value: float | None) -> float | None:
    """Six digits of it; None for what is no finite number."""
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None


def closer(ours: Sequence[Row], theirs: Sequence[Row], quarter: int = 3) -> int:
    """From how many starts ours is nearer to the minimum at T (quarter 0, 1, 2: at T/4, T/2, 3T/4).

    Both within FLOOR: a tie, not a win. One that failed has lost.
    """
    pairs = [(o["at"][quarter], t["at"][quarter]) for o, t in zip(ours, theirs, strict=True)]
    return sum(_less(*(d if d is None else max(d, FLOOR) for d in pair)) for pair in pairs)


def faster(ours: Sequence[Row], theirs: Sequence[Row], key: str = STAYS) -> int:
    """From how many starts ours reaches the radius sooner, or alone; key: a column of times."""
    return sum(_less(o[key], t[key]) for o, t in zip(ours, theirs, strict=True))


def undecided(ours: Sequence[Row], theirs: Sequence[Row], key: str = STAYS) -> int:
    """From how many starts neither reaches the radius."""
    return sum(o[key] is None and t[key] is None for o, t in zip(ours, theirs, strict=True))


def _less(a: float | None, b: float | None) -> bool:
    return a is not None and (b is None or a < b)


def outcome_of(settings: Fig1Settings, found: dict[str, Any]) -> Outcome:
    """Rows and maps from what the parts computed, by part name."""
    table: list[Row] = []
    maps: dict[str, list[Row]] = {"gamma": [], "rates": [], "eps": [], "quarters": []}
    ways: dict[str, Row] = {}
    for name in FUNCTIONS:
        groups = {**found[name]["rows"], **found[f"{name}-rates"]["rows"]}
        cost = {**found[f"{name}-cost"], UNIT: found[f"{name}-unit"]}
        ways[name] = {model: rows[0]["way"] for model, rows in cost.items()}
        for model in (*settings.flows(), UNIT):
            for start, row, spent in zip(settings.starts(name), groups[model], cost[model], strict=True):
                of = {key: value for key, value in {**row, **spent}.items() if key != "way"}
                table.append({"function": name, "start": list(start), "model": model, **of})
        for kind, entry in _maps(settings, groups):
            maps[kind].append({"function": name, **entry})
    more = {
        "hbode-damped": [row for row in table if row["model"] == "hbode-damped"],
        "curves": {
            name: {**found[name]["curves"], **found[f"{name}-rates"]["curves"], "t": found[name]["t"]}
            for name in FUNCTIONS
        },
        "ways": ways,
        "tail": found["tail"],
        "smallest_curvature": {name: found[name]["smallest_curvature"] for name in FUNCTIONS},
        **{kind: {name: found[f"{name}-{kind}"] for name in FUNCTIONS} for kind in ("reference", "printed")},
    }
    return Outcome([row for row in table if row["model"] != "hbode-damped"], {**maps, **more})


def _maps(settings: Fig1Settings, groups: dict[str, list[Row]]) -> Iterator[tuple[str, Row]]:
    """A map's name and an entry of it: from how many starts of a function AdamODE wins, in each setting."""
    adam = groups["adamode"]
    counts: tuple[tuple[str, Callable[..., int]], ...] = (("closer", closer), ("faster", faster))
    for kind, numbers, _ in (*settings.varied(), *settings.by_rates()):
        rows = groups[group_of(kind, numbers)]
        if kind == "gamma":  # HBODE's: its rows are the rival's
            wins: Row = {name: count(adam, rows) for name, count in counts}
        else:
            wins = {name: {rival: count(rows, groups[rival]) for rival in RIVALS} for name, count in counts}
        spent = {"nfe": statistics.median(row["nfe"] for row in rows)}
        yield kind, {**numbers, **_summary(rows), **spent, **wins}
    for rival in RIVALS:
        quarters = [closer(adam, groups[rival], quarter) for quarter in range(4)]
        yield "quarters", {"rival": rival, "closer": quarters}


def _summary(rows: Sequence[Row]) -> Row:
    """Median distance at T (a failed solve counts as infinitely far), how many stay near, how many failed."""
    middle = statistics.median(math.inf if row["distance"] is None else row["distance"] for row in rows)
    return {
        "median_distance": short(middle),
        "reached": sum(row[STAYS] is not None for row in rows),
        "failed": sum(row["status"] != "success" for row in rows),
    }


def of(outcome: Outcome, function: str, model: str) -> list[Row]:
    """The rows of a function and model, in the order of the starts."""
    rows = outcome.variants["hbode-damped"] if model == "hbode-damped" else outcome.rows
    return [row for row in rows if row["function"] == function and row["model"] == model]


def by_function(outcome: Outcome, kind: str) -> Iterator[tuple[str, list[Row]]]:
    """A function's name and its entries of a map."""
    for function in FUNCTIONS:
        yield function, [one for one in outcome.variants[kind] if one["function"] == function]


def may_climb(entry: Row) -> bool:
    """Whether AdamODE's rates are such that E = F + Σ m²/(2A√(v+ε)) need not decrease."""
    return bool(entry["rate_v"] > 4 * entry["rate_m"])


def judge(settings: Fig1Settings, outcome: Outcome) -> list[Claim]:
    """The paper's sentence taken apart: closer and faster, on each function, than each rival.

    Against HBODE at two γ, all starts of both counted together, but for those from which neither arrives:
    all of them is "holds", fewer than half "does not hold". With the rates of each reading.
    """
    return [
        _claim(settings, outcome, (mine, function, kind), rival)
        for mine in READINGS
        for function in FUNCTIONS
        for kind in ("closer", "faster")
        for rival in ("gradient flow", "HBODE")
    ]


def _claim(settings: Fig1Settings, outcome: Outcome, what: tuple[str, str, str], rival: str) -> Claim:
    """what: which reading, on which function, closer or faster."""
    mine, function, kind = what
    models = RIVALS[:1] if rival == "gradient flow" else RIVALS[1:]
    counts = [against(settings, outcome, function, model, mine) for model in models]
    n = sum(one["n"] - (one["undecided"] if kind == "faster" else 0) for one in counts)
    won = verdict(sum(one[kind] for one in counts), n, counts[0]["n"] >= settings.enough_starts)
    about = {"function": function, "rival": rival, "end": settings.end}
    told = {"counts": WORDS.each(f"{kind} count", counts, ", ")}
    told["evidence"] = WORDS.each(f"{kind} evidence", counts, " ")
    reading = WORDS.say(f"reading {mine}", settings=settings)
    return WORDS.claim(kind, won, **about, **told, reading=reading)


def against(
    settings: Fig1Settings, outcome: Outcome, function: str, model: str, mine: str = "adamode"
) -> Row:
    """AdamODE, ``mine`` its rates, against a model in numbers; at: the model's γ, where it has one."""
    ours, theirs = of(outcome, function, mine), of(outcome, function, model)
    columns = (f"t_{JUDGED}", *(f"stays_{r}" for r in RADII))
    return {
        "at": settings.name(model, " at ").partition("HBODE")[2],
        "n": len(ours),
        "closer": closer(ours, theirs),
        "faster": faster(ours, theirs),
        "undecided": undecided(ours, theirs),
        "sooner": {key: faster(ours, theirs, key) for key in columns},
        "ours": _summary(ours),
        "theirs": _summary(theirs),
    }


def verdict(wins: int, comparisons: int, enough: bool) -> str:
    """All comparisons won: holds. Fewer than half: does not hold. None made: nothing is told."""
    if not enough or not comparisons:
        return UNTOLD
    return HOLDS if wins == comparisons else IN_PART if 2 * wins >= comparisons else FAILS
