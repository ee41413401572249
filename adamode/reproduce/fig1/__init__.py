"""Fig. 1: AdamODE, gradient flow and HBODE on the functions of Rosenbrock and Beale.

The paper states the two functions and the three equations, and no number: no start, rate, γ, ε or time.
Taken here for what it leaves open are the values its released code starts training from, A = B = sigmoid(3)
(CIFAR-10's; MNIST's are on the map), γ = sigmoid(−3), ε = 1e-8, m(0) = v(0) = 0; seven starts a function; and
beside them what else these could have been. Eq. 2's sign is repaired: as printed it climbs.
Eq. 6 has 1−α and 1−β for rates, as if a step of Adam took a unit of time. With t = k·s in Eq. 5 they are
(1−α)/s and (1−β)/s, of any size: a second reading, judged beside the first, takes s = .001, α = β = .99.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import torch

from ..machinery.figure import Outcome, Row
from ..machinery.work import Work
from .checks import largest_differences, smallest_curvature, tail_rates
from .descent import (
    FUNCTIONS,
    Descent,
    Flow,
    Precision,
    TestFunction,
    costs,
    escape_times,
    heavy_ball,
    settled_time,
    travel,
)
from .findings import findings
from .picture import PICTURES
from .settings import SETTINGS, UNIT, Fig1Settings
from .table import RADII, WORDS, judge, outcome_of, row_of, short


def compute(settings: Fig1Settings, work: Work) -> Outcome:
    """All descents of a function are one batch; then costs, the reference, Eq. 2 as printed, and the tail."""
    parts = {"": _distances, "-cost": _costs, "-reference": _reference, "-printed": _printed}
    parts["-rates"] = _by_rates
    found: dict[str, Any] = {}
    for name, function in FUNCTIONS.items():
        for part, made in parts.items():
            found[name + part] = work.part(name + part, functools.partial(made, settings, function))
        unit = functools.partial(_unit_costs, settings, function, found[f"{name}-rates"]["rows"][UNIT])
        found[f"{name}-unit"] = work.part(f"{name}-unit", unit)
    found["tail"] = work.part("tail", lambda: _tail(settings))
    outcome = outcome_of(settings, found)
    return dataclasses.replace(outcome, findings=findings(settings, outcome))


def _distances(s: Fig1Settings, function: TestFunction) -> dict[str, Any]:
    """Rows of each group, start by start; curves of the start that is drawn."""
    return {
        **_travelled(s, function, s.groups(), s.how, list(s.flows())),
        "smallest_curvature": smallest_curvature(function),
    }


def _by_rates(s: Fig1Settings, function: TestFunction) -> dict[str, Any]:
    """The same of the second reading, and of the map of A and B."""
    return _travelled(s, function, s.stiff_groups(), s.how_stiff, [UNIT])


def _travelled(
    s: Fig1Settings, function: TestFunction, groups: dict[str, Flow], how: Precision, drawn: list[str]
) -> dict[str, Any]:
    """drawn: the first groups, of which there are curves."""
    starts = s.starts(function.name)
    n = len(starts)
    times = torch.linspace(0.0, s.end, s.outputs, dtype=torch.float64)
    descents = [Descent(flow, start) for flow in groups.values() for start in starts]
    travelled = travel(function, descents, times, how)

    def curves(k: int) -> dict[str, list[float | None]]:
        x, y = travelled.z[:, k, :2].unbind(1)
        columns = {"x": x, "y": y, "distance": travelled.distance[:, k], "path": travelled.path[:, k]}
        return {name: [short(value) for value in column.tolist()] for name, column in columns.items()}

    return {
        "rows": {name: [row_of(travelled, n * i + k) for k in range(n)] for i, name in enumerate(groups)},
        "curves": {name: curves(n * i) for i, name in enumerate(drawn)},
        "t": [round(float(one), 9) for one in times],
    }


def _costs(s: Fig1Settings, function: TestFunction) -> dict[str, list[dict[str, Any]]]:
    """Of each flow and start the evaluations to each radius; of the first start the whole way."""
    starts, flows = s.starts(function.name), s.flows()
    descents = [Descent(flow, start) for flow in flows.values() for start in starts]
    ways = costs(function, descents, s.end, s.how_counted)
    found = [_cost(way, way["t"][-1] == s.end) for way in ways]
    n = len(starts)
    for one, way in zip(found[::n], ways[::n], strict=True):
        one["way"] = _drawn(way)
    return {name: found[n * i : n * (i + 1)] for i, name in enumerate(flows)}


def _unit_costs(s: Fig1Settings, function: TestFunction, rows: list[Row]) -> list[dict[str, Any]]:
    """The same of the second reading, which is stiff once it is there: step by step to a little beyond the
    time from which it stays near, and to the end, from the first start, a count alone."""
    starts, flow = s.starts(function.name), s.stiff_groups()[UNIT]
    descents = [Descent(flow, start) for start in starts]
    near = max((row[f"stays_{RADII[-1]}"] or 0.0 for row in rows), default=0.0)
    end = min(s.end, 1.05 * near or 1.0)
    ways = costs(function, descents, end, s.how_unit)
    found = [{**_cost(way, way["t"][-1] == end), "nfe_loose": None} for way in ways]
    found[0]["way"] = _drawn(ways[0])
    whole = travel(function, descents[:1], torch.tensor([0.0, s.end], dtype=torch.float64), s.how_unit)
    found[0]["nfe_loose"] = whole.nfe[0] if whole.status == ["success"] else None
    return found


def _drawn(way: dict[str, list[float]]) -> dict[str, list[float | None]]:
    """A way with so many of its steps as can be seen."""
    every = max(1, len(way["nfe"]) // 800)
    return {key: [short(v) for v in values[::every]] for key, values in way.items()}


def _cost(way: dict[str, list[float]], done: bool) -> dict[str, Any]:
    """The evaluations of a way, all and to each radius; None where it was not done or never stays."""
    spent = {r: settled_time(way["nfe"], way["distance"], float(r)) if done else None for r in RADII}
    near = {f"nfe_stays_{r}": None if nfe is None else math.ceil(nfe) for r, nfe in spent.items()}
    return {"nfe_loose": way["nfe"][-1] if done else None, **near}


def _reference(s: Fig1Settings, function: TestFunction) -> dict[str, float | None]:
    """The largest difference of x from scipy's, by model."""
    starts = s.starts(function.name)[: s.reference_starts]
    return largest_differences(function, s.flows(), starts, s.end, s.how, s.reference_tol)


def _printed(s: Fig1Settings, function: TestFunction) -> list[float | None]:
    """When |x| = 1000 under Eq. 2 as printed, from each start."""
    flow = heavy_ball(s.gamma, as_printed=True)
    descents = [Descent(flow, start) for start in s.starts(function.name)]
    return escape_times(function, descents, 1000.0, min(s.end, 1.0), s.how)


def _tail(s: Fig1Settings) -> list[dict[str, float]]:
    """Rates of decay on a quadratic, measured and foretold, for A, B of the figure and others."""
    return tail_rates([(s.rate_m, s.rate_v), (0.6, 0.9), (0.95, 0.3)], s.tail_end, s.how)


FIGURE = WORDS.figure(SETTINGS, compute, judge, PICTURES)
