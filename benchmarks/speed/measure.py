"""Rounds: in each every way runs once, in turning order: a slow moment of the machine is everybody's."""

from __future__ import annotations

import dataclasses
import gc
import importlib.util
import math
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .cases import Case
from .job import Counts, Job, Sample, Unavailable
from .reference import error
from .way import OURS, Way


@dataclasses.dataclass
class Row:
    """One way on one case.

    reason: why there is nothing, "" where there is.
    samples: one a round.
    error: of the gradient (or of z(t_end)); NaN gradients are NaN, a floor has none.
    first: seconds of the first call, compiling included.
    compilations: after that call.
    peak: bytes.
    """

    way: str
    group: str
    reason: str = ""
    samples: list[Sample] = dataclasses.field(default_factory=list)
    error: float | None = None
    counts: Counts = dataclasses.field(default_factory=Counts)
    first: float = math.nan
    compiled: bool = False
    compilations: int | None = None
    peak: int | None = None

    def seconds(self, clock: str) -> list[float]:
        """One a round; clock: "cpu" or "wall"."""
        return [getattr(sample, clock) for sample in self.samples]

    def quartiles(self, clock: str) -> tuple[float, float, float]:
        """Lower quartile, median, upper quartile."""
        values = self.seconds(clock)
        if len(values) < 2:
            return (values[0],) * 3 if values else (math.nan,) * 3
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        return low, statistics.median(values), high


def ratio(a: Row, b: Row, clock: str) -> float:
    """Median over the rounds that both were in of a's time over b's; NaN where there is none."""
    pairs = zip(a.seconds(clock), b.seconds(clock), strict=False)
    values = [x / y for x, y in pairs if y > 0]
    return statistics.median(values) if values else math.nan


@dataclasses.dataclass(frozen=True)
class Settings:
    """rounds: at most.
    budget: seconds that a way's rounds of one case may take.
    least: rounds even so.
    """

    rounds: int = 30
    budget: float = 60.0
    least: int = 3


Say = Callable[[str], None]


def measure(
    case: Case, ways: Sequence[Way], right: Sequence[Tensor], settings: Settings, say: Say
) -> list[Row]:
    """All ways that fit the case. right: the reference's tensors."""
    rows: list[Row] = []
    jobs: list[tuple[Row, Job]] = []
    counts: Counts | None = None
    try:
        for way in ways:
            if not way.fits(case):
                continue
            row, job = prepare(way, case, counts, right)
            rows.append(row)
            say(f"{case.name}: {way.name}" + (f" – {row.reason}" if row.reason else ""))
            if job is not None:
                jobs.append((row, job))
                if counts is None and way.group == OURS:
                    counts = row.counts
        run_rounds(jobs, settings)
    finally:
        for _, job in jobs:
            job.close()
    return rows


def prepare(
    way: Way, case: Case, counts: Counts | None, right: Sequence[Tensor] | None
) -> tuple[Row, Job | None]:
    """The way's first run: its error (where it is known what is right), counts and memory; or why there is
    none."""
    row = Row(way.name, way.group)
    if way.package is not None and importlib.util.find_spec(way.package) is None:
        row.reason = "not installed"
        return row, None
    try:
        job = way.prepare(case, counts)
        found = job.result()
        row.error = error(found, right) if found and right is not None else None
        row.first, row.compiled = job.first, job.compiled
        row.counts, row.peak = job.counts(), job.peak()
    except Unavailable as problem:
        row.reason = f"unavailable ({str(problem).split(': ')[0]})"
        return row, None
    except Exception as problem:  # a peer's failure is a cell of the table, whatever it raises
        row.reason = f"failed ({type(problem).__name__}: {' '.join(str(problem).split())[:200]})"
        return row, None
    return row, job


def run_rounds(jobs: Sequence[tuple[Row, Job]], settings: Settings) -> None:
    """Fills the rows' samples; the first round warms up and tells how many rounds fit the budget."""
    allowed: dict[str, int] = {}
    for turn in range(settings.rounds + 1):
        gc.collect()
        for k in range(len(jobs)):
            row, job = jobs[(k + turn) % len(jobs)]
            if turn > allowed.get(row.way, settings.rounds):
                continue
            sample = job.measure()
            if turn:
                row.samples.append(sample)
                continue
            fitting = int(settings.budget / max(sample.wall, 1e-9))
            allowed[row.way] = min(settings.rounds, max(settings.least, fitting))
    for row, job in jobs:
        row.compilations = job.compilations()


def limit_threads(threads: int) -> None:
    """Of torch; the worker processes are pinned by themselves."""
    torch.set_num_threads(threads)


def stopwatch() -> Say:
    """Says what was done and when."""
    begin = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - begin:6.0f} s  {what}", flush=True)

    return say
