"""Fig. 3: how the norms of many inits are spread, alone and as means of groups, all as log10.

Plain values that JSON can hold; None where there is no number, such as a mean over a solve that failed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .growth import Growth, log10_mean

Value = float | None
QUANTILES = {"q05": 0.05, "q95": 0.95}  # of the logs, interpolated between them
SPREAD = ("q05", "median", "q95", "low", "high")


def record(growth: Growth, inits: int) -> dict[str, Any]:
    """What is kept of a case whose first ``inits`` samples are the authors' and the rest further draws.

    inits: {"whole", "h"}, a curve over t for each.  end: {"whole", "h"} of each further draw.  bands:
    `spread` over t of the whole state of those still there.  failed: {"inits", "draws"}, as `failures`.
    attempts: of steps, the most.
    """
    logs = {"whole": growth.whole, "h": growth.h}
    parts = {"inits": slice(inits), "draws": slice(inits, None)}
    return {
        "inits": {of: plain(each[:inits]) for of, each in logs.items()},
        "end": {of: plain(each[inits:, -1]) for of, each in logs.items()},
        "bands": spreads(plain(growth.whole[inits:])),
        "failed": {name: failures(growth.whole[of], growth.status[of]) for name, of in parts.items()},
        "attempts": int(growth.attempts.max()),
    }


def failures(logs: Tensor, status: Sequence[str]) -> list[dict[str, Any]]:
    """The solves that ended early: {"init", "t": the last row that was reached, "status"}. logs: [N, T]."""
    ended = logs.isnan().any(1)
    return [
        {"init": i, "t": int((~logs[i].isnan()).sum()) - 1, "status": status[i]}
        for i in ended.nonzero().flatten().tolist()
    ]


def plain(logs: Tensor) -> Any:
    """Nested lists, six decimals; None for what is no finite number."""
    if logs.ndim:
        return [plain(part) for part in logs]
    value = float(logs)
    return round(value, 6) if math.isfinite(value) else None


def tensor(values: Any) -> Tensor:
    """The inverse of `plain`: NaN for None."""
    if values and isinstance(values[0], list):
        return torch.stack([tensor(part) for part in values])
    return torch.tensor([math.nan if v is None else v for v in values], dtype=torch.float64)


def spread(values: Sequence[Value]) -> dict[str, Value]:
    """log10 of the mean (None where a value is), and of those that are there median, quantiles, low, high."""
    logs = tensor(values)
    there = logs[~logs.isnan()]
    found: dict[str, Value] = {"mean": plain(log10_mean(logs)) if len(logs) else None}
    if not len(there):
        return {**found, **dict.fromkeys(SPREAD)}
    found["median"] = plain(log10_median(there))
    found.update({name: plain(torch.quantile(there, q)) for name, q in QUANTILES.items()})
    return {**found, "low": plain(there.min()), "high": plain(there.max())}


def spreads(curves: Sequence[Sequence[Value]]) -> dict[str, list[Value]]:
    """`spread` of curves at each t, as a curve for each of its numbers."""
    found = [spread(column) for column in zip(*curves, strict=True)]
    return {name: [at[name] for at in found] for name in found[0]}


def log10_median(logs: Tensor) -> Tensor:
    """log10 of the median of 10^logs, none of them NaN: of an even count, of the mean of the middle two."""
    ordered = logs.sort().values
    low, high = (len(logs) - 1) // 2, len(logs) // 2
    return log10_mean(ordered[low : high + 1])


def groups(values: Sequence[Value], size: int) -> list[Value]:
    """log10 of the mean of each ``size`` values one after the other; what does not fill a group is left."""
    count = len(values) // size
    return plain(log10_mean(tensor(values[: count * size]).reshape(count, size), dim=1)) if count else []


def compared(other: dict[str, Any], own: dict[str, Any], size: int, of: str = "whole") -> dict[str, Any]:
    """How many times, as log10, another model's norm at the end is AdamNODE's. other, own: `record`s.

    inits: of the means over the authors' inits.  groups: of the means over groups of ``size`` draws, spread.
    count: of such groups.  medians: of the medians of single draws.  smaller, smaller_single: the share of
    the groups, and of single draws, in which AdamNODE's is the smaller.
    """
    ends = [tensor([curve[-1] for curve in part["inits"][of]]) for part in (other, own)]
    means = [tensor(groups(part["end"][of], size)) for part in (other, own)]
    single = [tensor(part["end"][of]) for part in (other, own)]
    ratios = means[0] - means[1]
    within = spread(plain(ratios))
    return {
        "inits": plain(log10_mean(ends[0]) - log10_mean(ends[1])),
        "groups": {name: within[name] for name in SPREAD},
        "count": len(ratios),
        "medians": plain(_median_there(single[0]) - _median_there(single[1])),
        "smaller": plain((ratios > 0).double().mean()),
        "smaller_single": plain((single[0] > single[1]).double().mean()),
    }


def _median_there(logs: Tensor) -> Tensor:
    there = logs[~logs.isnan()]
    return log10_median(there) if len(there) else torch.tensor(math.nan)
