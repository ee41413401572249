"""What Fig. 1's maps say, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .descent import FUNCTIONS
from .table import JUDGED, RIVALS, faster, of

if TYPE_CHECKING:
    from ..machinery.figure import Outcome
    from . import Fig1Settings


CHAOTIC = 0.01  # two good solvers further apart than this: the motion forgets its start


def findings(settings: Fig1Settings, outcome: Outcome) -> tuple[str, ...]:
    """A sentence or two on each thing that decides the figure."""
    each = (_gamma, _tail, _quarters, _rates, _eps, _cost, _printed, _reference)
    return tuple(text for one in each for text in one(settings, outcome) if text)


def _gamma(settings: Fig1Settings, outcome: Outcome) -> list[str]:
    found = []
    for function in FUNCTIONS:
        n = len(settings.starts(function))
        entries = [one for one in outcome.variants["gamma"] if one["function"] == function]
        told = "; ".join(f"γ = {e['gamma']:.3g}: {e['closer']}, {e['faster']}" for e in entries)
        found.append(
            f"{function.capitalize()}, HBODE's γ: starts of {n} from which AdamODE is closer, faster: {told}."
        )
    return found


def _tail(settings: Fig1Settings, outcome: Outcome) -> list[str]:
    tail, least = outcome.variants["tail"], outcome.variants["smallest_curvature"]
    if not tail:
        return []
    told = "; ".join(
        f"A = {one['rate_m']:.3g}, B = {one['rate_v']:.3g}: {one['measured']:.3f}, {one['foretold']:.3f}"
        for one in tail
    )
    return [
        "Near a minimum, while v ≫ ε, AdamODE's distance decays as e^(−rt) with r = A/2 − min(B, 4A/5)/8, in "
        f"which the curvature does not stand (on one quadratic, measured, foretold: {told}). Gradient flow's "
        f"r is the smallest curvature, {least['rosenbrock']:.3f} (Rosenbrock), {least['beale']:.3f} (Beale); "
        f"HBODE's is γ/2 where it swings, {settings.fair_gamma / 2:g} at γ = {settings.fair_gamma:g}. As "
        "A < 1, r < 1/2: in the end that HBODE comes in faster wherever it comes in, and whether gradient "
        "flow does is decided by the scale of F."
    ]


def _quarters(settings: Fig1Settings, outcome: Outcome) -> list[str]:
    entries = outcome.variants["quarters"]
    names = {"hbode": f"HBODE γ = {settings.gamma:.3g}", "hbode-damped": f"HBODE γ = {settings.fair_gamma:g}"}
    told = "; ".join(
        f"{e['function']}, {names.get(e['rival'], 'gradient flow')}: {', '.join(map(str, e['closer']))}"
        for e in entries
    )
    times = ", ".join(f"{settings.end * k / 4:g}" for k in (1, 2, 3, 4))
    return [f"How many starts AdamODE is closer from depends on when one looks, t = {times}: {told}."]


def _rates(settings: Fig1Settings, outcome: Outcome) -> list[str]:
    found = []
    for function in FUNCTIONS:
        entries = [e for e in outcome.variants["rates"] if e["function"] == function]
        n = len(settings.starts(function))
        inside = [e for e in entries if e["rate_v"] <= 4 * e["rate_m"]]
        outside = [e for e in entries if e["rate_v"] > 4 * e["rate_m"]]
        parts = []
        for name, some in (("B ≤ 4A", inside), ("B > 4A", outside)):
            if some:
                reached, failed = sum(e["reached"] for e in some), sum(e["failed"] for e in some)
                gave_up = f" ({failed} gave up)" if failed else ""
                parts.append(f"{reached} of {n * len(some)} descents with {name}{gave_up}")
        most, comparisons = max(entries, key=_won), 2 * n * len(RIVALS)
        found.append(
            f"{function.capitalize()}: {', '.join(parts)} stay within {JUDGED} of the minimum at the end. Of "
            f"{comparisons} comparisons (closer, faster; {len(RIVALS)} rivals; {n} starts) AdamODE wins "
            f"most, {_won(most)}, at A = {most['rate_m']:.3g}, B = {most['rate_v']:.3g}. Best median "
            f"distance: {_best(entries)}."
        )
    return found


def _won(entry: dict[str, Any]) -> int:
    return sum(entry[kind][rival] for kind in ("closer", "faster") for rival in RIVALS)


def _best(entries: list[dict[str, Any]]) -> str:
    known = [e for e in entries if e["median_distance"] is not None]
    if not known:
        return "none"
    best = min(known, key=lambda e: e["median_distance"])
    return f"{best['median_distance']:.1e} at A = {best['rate_m']:.3g}, B = {best['rate_v']:.3g}"


def _eps(settings: Fig1Settings, outcome: Outcome) -> list[str]:
    told = []
    for function in FUNCTIONS:
        entries = [e for e in outcome.variants["eps"] if e["function"] == function]
        each = ", ".join(
            f"{e['median_distance']:.1e} at ε = {e['eps']:g}"
            if e["median_distance"] is not None
            else f"failed at ε = {e['eps']:g}"
            for e in entries
        )
        told.append(f"{function}: {each}")
    return [f"Median distance of AdamODE at t = {settings.end:g} by ε: {'; '.join(told)}."]


def _cost(settings: Fig1Settings, outcome: Outcome) -> list[str]:
    found = []
    for function in FUNCTIONS:
        ours = of(outcome, function, "adamode")
        key = f"nfe_stays_{JUDGED}"
        told = ", ".join(
            f"{name} from {faster(ours, of(outcome, function, model), key)}"
            for model, name in (
                ("gradient-flow", "gradient flow"),
                ("hbode", f"HBODE γ = {settings.gamma:.3g}"),
                ("hbode-damped", f"HBODE γ = {settings.fair_gamma:g}"),
            )
        )
        found.append(
            f"{function.capitalize()}, in evaluations of ∇F (dopri5, tolerance {settings.cost_tol:g}): "
            f"AdamODE comes within {JUDGED}, to stay to t = {settings.end:g}, with fewer than {told} of "
            f"{len(ours)} starts."
        )
    return found


def _printed(settings: Fig1Settings, outcome: Outcome) -> list[str]:
    times = [t for each in outcome.variants["printed"].values() for t in each]
    known = [t for t in times if t is not None]
    if not known:
        return []
    return [
        f"Eq. 2 as printed climbs: from {len(known)} of {len(times)} starts |x| passes 1000, the first at "
        f"t = {min(known):.2g}, the last at t = {max(known):.2g}."
    ]


def _reference(settings: Fig1Settings, outcome: Outcome) -> list[str]:
    told = "; ".join(
        f"{function}: "
        + ", ".join(
            f"{model} {value:.0e}" if value is not None else f"{model} not both to the end"
            for model, value in each.items()
        )
        for function, each in outcome.variants["reference"].items()
    )
    text = f"Largest difference of x from scipy's DOP853 ÷ max(1, |x|): {told}."
    worst = max(value or 0.0 for each in outcome.variants["reference"].values() for value in each.values())
    if worst > CHAOTIC:
        text += (
            " A difference of the motion's own size means that neighbours part: the distances of that flow "
            "are those of one of many motions, and the result is only that it has not come to rest."
        )
    return [text]
