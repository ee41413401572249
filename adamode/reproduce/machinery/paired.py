"""What a few seeds can tell: differences paired over seeds, their intervals, verdicts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from .figure import FAILS, HOLDS, IN_PART, UNTOLD

LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean over n seeds and Student's t interval at 95 % around it; unbounded for fewer than 2 seeds.

    It takes the seeds' differences for normally distributed, and says nothing about other data, sizes or
    lengths of training.
    """

    mean: float
    low: float
    high: float
    n: int

    def __format__(self, form: str) -> str:
        """By `told`, for a number's form, and a unit after a blank where it has one: "+.0f %"."""
        number, _, unit = form.partition(" ")
        return self.told(f"{{:{number}}}", unit)

    def told(self, form: str = "{:+.3g}", unit: str = "") -> str:
        """The mean and the interval as text, each number in ``form``: "+12 % [+3, +21] (3 seeds)"."""
        if not self.n:
            return "no common seed"
        middle = f"{form.format(self.mean)} {unit}".rstrip()
        if self.n == 1:
            return f"{middle} (1 seed)"
        return f"{middle} [{form.format(self.low)}, {form.format(self.high)}] ({self.n} seeds)"


def interval(values: Sequence[float]) -> Interval:
    """The mean of one value a seed, with its interval."""
    n = len(values)
    if not n:
        return Interval(math.nan, -math.inf, math.inf, 0)
    mean = sum(values) / n
    if n == 1:
        return Interval(mean, -math.inf, math.inf, 1)
    from scipy.stats import t as student

    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(student.ppf((1 + LEVEL) / 2, n - 1)) * deviation / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def difference(a: Mapping[int, float], b: Mapping[int, float]) -> Interval:
    """a − b over the seeds that both have."""
    return interval([a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())])


def gain(a: Mapping[int, float], b: Mapping[int, float]) -> Interval:
    """a ÷ b − 1 in per cent over the seeds that both have: the geometric mean, intervals of the logarithm.

    Seeds where one of the two is not positive are left out: they have no ratio.
    """
    seeds = [seed for seed in sorted(a.keys() & b.keys()) if a[seed] > 0 and b[seed] > 0]
    logs = interval([math.log(a[seed] / b[seed]) for seed in seeds])
    mean, low, high = (_per_cent(value) for value in (logs.mean, logs.low, logs.high))
    return Interval(mean, low, high, logs.n)


def _per_cent(log: float) -> float:
    return math.inf if log > 700 else 100 * math.expm1(log)


def widened(gain_in_per_cent: Interval, part: float) -> Interval:
    """A gain whose two quantities may each be off by a ``part`` of them that no seed shows, such as one
    attempted step of the solver, together: both ends move outwards by that factor."""
    low, high = ((1 + end / 100) for end in (gain_in_per_cent.low, gain_in_per_cent.high))
    least, most = 100 * (low / (1 + part) - 1), 100 * (high * (1 + part) - 1)
    return dataclasses.replace(gain_in_per_cent, low=min(least, gain_in_per_cent.low), high=most)


def verdict_best(leads: Mapping[str, Interval]) -> str:
    """Whether it leads all others; leads: by how much it is better than each of them.

    Holds where every interval is above 0, does not where one is below; else the seeds do not tell.
    """
    if any(lead.high < 0 for lead in leads.values()):
        return FAILS
    return HOLDS if leads and all(lead.low > 0 for lead in leads.values()) else UNTOLD


def verdict_gain(lead: Interval, paper: float) -> str:
    """Whether a lead of ``paper`` (> 0) is there.

    Holds where the interval lies above half of the paper's number and reaches it, in part where it lies above
    0 otherwise; does not where it begins at 0 or below and ends below the paper's number. An interval that
    has both 0 and the paper's number in it tells nothing; one that is wide and begins near 0 does not show
    the paper's number by reaching it.
    """
    if lead.low > 0:
        return HOLDS if lead.low >= paper / 2 and lead.high >= paper else IN_PART
    return UNTOLD if lead.high >= paper else FAILS


def verdict_no_more(gain_in_per_cent: Interval, factor: float) -> str:
    """Whether one is no more than the other, to within ``factor``: holds where the whole interval is, fails
    where none of it is. Less holds too."""
    most = 100 * (factor - 1)
    if gain_in_per_cent.high <= most:
        return HOLDS
    return FAILS if gain_in_per_cent.low > most else UNTOLD
