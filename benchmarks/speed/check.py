"""Whether we have become slower: ratios of one run against the committed ones.

Kept are our time over torchdiffeq's and over each floor's in the same rounds: ratios of what ran side by side
hold from machine to machine far better than times do.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .measure import ratio
from .report import Found, write_json
from .way import FLOOR, OURS

RATIOS = Path(__file__).with_name("ratios.json")
ALLOWED = 1.25  # a ratio may be so many times the committed one
Ratios = dict[str, dict[str, dict[str, float]]]  # case → our way → the other → ours ÷ other


@dataclasses.dataclass(frozen=True)
class Regression:
    """now: NaN where the committed ratio was not measured in this run."""

    case: str
    way: str
    against: str
    committed: float
    now: float

    def __str__(self) -> str:
        name = f"{self.case}: {self.way} ÷ {self.against}: {self.committed:.3f} committed"
        if math.isnan(self.now):
            return f"{name}, not measured now"
        return f"{name}, {self.now:.3f} now, {self.now / self.committed:.2f} times that"


def ratios_of(found: Sequence[Found]) -> Ratios:
    """Of every case of a run."""
    kept: Ratios = {}
    for one in found:
        others = [r for r in one.measured if r.group == FLOOR or r.way.startswith("torchdiffeq/")]
        for own in (row for row in one.measured if row.group == OURS):
            values = {other.way: ratio(own, other, one.clock) for other in others}
            kept.setdefault(one.case, {})[own.way] = {
                name: round(value, 4) for name, value in values.items() if math.isfinite(value)
            }
    return kept


def read(path: Path = RATIOS) -> Ratios:
    """The committed ratios; ValueError, with what to do, where there are none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is not there: write it with --write-ratios.") from None
    return data["ratios"]


def write(found: Sequence[Found], about: dict[str, Any], path: Path = RATIOS) -> None:
    """The ratios of this run beside the committed ones of cases that were not run."""
    try:
        before = read(path)
    except ValueError:
        before = {}
    write_json(path, {"about": about, "ratios": before | ratios_of(found)})


def regressions(
    now: Ratios, committed: Ratios, cases: Sequence[str], allowed: float = ALLOWED
) -> list[Regression]:
    """What is more than ``allowed`` times its committed ratio, or is not measured any more.

    A case without committed ratios has none. What was not measured when they were committed is not looked at.
    """
    found = []
    for case in cases:
        for way, against in committed.get(case, {}).items():
            for other, value in against.items():
                new = now.get(case, {}).get(way, {}).get(other, math.nan)
                if not new <= value * allowed:
                    found.append(Regression(case, way, other, value, new))
    return found
