"""What Fig. 1's maps say: the numbers of each sentence on what decides the figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..machinery.figure import Outcome, Row
from .checks import foretold_rate
from .descent import FUNCTIONS
from .settings import UNIT, Fig1Settings
from .table import FLOOR, JUDGED, RIVALS, STAYS, WORDS, by_function, closer, faster, may_climb, of

CHAOTIC = 0.01  # two good solvers further apart than this: the motion forgets its start


def findings(settings: Fig1Settings, outcome: Outcome) -> tuple[str, ...]:
    """A sentence or two on each thing that decides the figure."""
    each = (_unit, _gamma, _tail, _quarters, _rates, _eps, _cost, _printed, _reference)
    return tuple(text for one in each for text in one(settings, outcome))


def _unit(settings: Fig1Settings, outcome: Outcome) -> Iterator[str]:
    """Of the second reading: who wins, from when on it stays near, what that costs."""
    for function in FUNCTIONS:
        rows = {model: of(outcome, function, model) for model in (UNIT, *RIVALS)}
        first, n = rows[UNIT][0], len(rows[UNIT])

        def both(model: str, rows: dict[str, list[Row]] = rows) -> int:
            pairs = zip(rows[UNIT], rows[model], strict=True)
            return sum(closer([a], [b]) and faster([a], [b]) for a, b in pairs)

        wins = {"flow": both("gradient-flow"), "damped": both("hbode-damped")}
        times = {
            name: _times(rows[model])
            for name, model in (
                ("ours", UNIT),
                ("theirs", "gradient-flow"),
                ("damped_times", "hbode-damped"),
            )
        }
        cost = {"near": first[f"nfe_stays_{JUDGED}"], "whole": first["nfe_loose"], "stiff": first["nfe"]}
        yield WORDS.say("unit", function=function, settings=settings, n=n, **wins, **times, **cost)


def _times(rows: Sequence[Row]) -> str:
    """From when on they stay near."""
    known = [row[STAYS] for row in rows if row[STAYS] is not None]
    if not known:
        return "–"
    return WORDS.say("unit times", least=min(known), most=max(known), count=len(known), n=len(rows))


def _gamma(settings: Fig1Settings, outcome: Outcome) -> Iterator[str]:
    for function, entries in by_function(outcome, "gamma"):
        n, each = len(settings.starts(function)), WORDS.each("gamma each", entries)
        yield WORDS.say("gamma", function=function, n=n, each=each)


def _tail(settings: Fig1Settings, outcome: Outcome) -> Iterator[str]:
    if outcome.variants["tail"]:
        least, gamma = outcome.variants["smallest_curvature"], settings.fair_gamma
        each = WORDS.each("tail each", outcome.variants["tail"])
        unit = settings.unit_rate
        told = {"half": gamma / 2, "unit": unit, "fast": foretold_rate(unit, unit)}
        yield WORDS.say("tail", each=each, least=least, gamma=gamma, **told)


def _quarters(settings: Fig1Settings, outcome: Outcome) -> Iterator[str]:
    rows = [
        {**entry, "name": settings.name(entry["rival"]), "counts": ", ".join(map(str, entry["closer"]))}
        for entry in outcome.variants["quarters"]
    ]
    times = ", ".join(f"{settings.end * k / 4:g}" for k in (1, 2, 3, 4))
    yield WORDS.say("quarters", times=times, each=WORDS.each("quarters each", rows))


def _rates(settings: Fig1Settings, outcome: Outcome) -> Iterator[str]:
    for function, entries in by_function(outcome, "rates"):
        n = len(settings.starts(function))
        reached = []
        for where, climbs in (("B ≤ 4A", False), ("B > 4A", True)):
            some = [e for e in entries if may_climb(e) is climbs]
            counts = {k: sum(e[k] for e in some) for k in ("reached", "failed")}
            reached += [{"where": where, "of": n * len(some), **counts}] if some else []
        known = [e for e in entries if e["median_distance"] is not None]
        best = sorted(known, key=lambda e: e["median_distance"])[:1]
        most = max(entries, key=_won)
        numbers = {"comparisons": 2 * n * len(RIVALS), "n": n, "won": _won(most), "most": most}
        there = sum(e["median_distance"] <= FLOOR for e in known)
        told = {"reached": WORDS.each("rates reached", reached, ", "), "best": WORDS.each("rates best", best)}
        told |= {"there": f"{there} of {len(entries)} pairs" if there else ""}
        yield WORDS.say("rates", function=function, **numbers, **told)


def _won(entry: dict[str, Any]) -> int:
    return sum(entry[kind][rival] for kind in ("closer", "faster") for rival in RIVALS)


def _eps(settings: Fig1Settings, outcome: Outcome) -> Iterator[str]:
    each = (f"{name}: {WORDS.each('eps each', of, ', ')}" for name, of in by_function(outcome, "eps"))
    yield WORDS.say("eps", end=settings.end, each="; ".join(each))


def _cost(settings: Fig1Settings, outcome: Outcome) -> Iterator[str]:
    for function in FUNCTIONS:
        ours = of(outcome, function, "adamode")

        def fewer(model: str, function: str = function, ours: Sequence[Row] = ours) -> int:
            return faster(ours, of(outcome, function, model), f"nfe_stays_{JUDGED}")

        rivals = {settings.name(model): fewer(model) for model in RIVALS}
        each, n = WORDS.each("cost each", rivals, ", "), len(ours)
        about = {"function": function, "tol": settings.cost_tol, "end": settings.end}
        yield WORDS.say("cost", each=each, n=n, **about)


def _printed(settings: Fig1Settings, outcome: Outcome) -> Iterator[str]:
    times = [t for each in outcome.variants["printed"].values() for t in each]
    known = [t for t in times if t is not None]
    if known:
        yield WORDS.say("printed", known=len(known), all=len(times), first=min(known), last=max(known))


def _reference(settings: Fig1Settings, outcome: Outcome) -> Iterator[str]:
    reference = outcome.variants["reference"]
    told = [f"{name}: {WORDS.each('reference each', each, ', ')}" for name, each in reference.items()]
    worst = max(value or 0.0 for each in reference.values() for value in each.values())
    yield WORDS.say("reference", each="; ".join(told), apart=worst > CHAOTIC)
