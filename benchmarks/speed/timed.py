"""What fits into so many minutes: the tests that need the device, then cases and ways, each with its share.

First come the ways that compile nothing, of all cases, then the others. The time left is shared out anew
before each case, and within one before each way: whoever is quick leaves the others more. A first call that
compiles is part of it, has some time at least, and is broken off. What was measured is written after every
case, and what was left out is said in the table.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import BEGIN
from . import page, report
from .cases import Case, make
from .job import Counts, Job, Sample
from .measure import Row, Say, prepare
from .reference import solve_for
from .report import Found
from .way import OURS, Way

ROOT = Path(__file__).parents[2]
CASES = "mlp,tiny,wide,conv,long,hetero"
MODES = ("", "/compiled", "/compiled-sync8", "/graph")
NAMES = [f"adamode/{kind}{mode}" for kind in ("discrete", "shared", "per-sample") for mode in MODES]
NAMES += ["torchdiffeq/adjoint", "torchdiffeq/direct", "torchdiffeq/forward"]
NAMES += ["torchode/autodiff", "torchode/joint-backsolve", "torchode/forward"]
TESTS = 4  # the tests' part of the time: one in so many
QUICK = 2  # of what is left then: the ways that compile nothing
REFERENCE = 4  # of a case's: its reference
COMPILES = 40.0  # seconds that a case, and a first call, that compile have at least: 5 to 40 s on a CPU
LEAST = 1.0  # seconds with which something is begun
CLOSING = 5.0  # seconds for writing and for ending


class OutOfTime(BaseException):
    """The time is over; no Exception, so that nobody between takes it for a failure."""


@contextlib.contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raises OutOfTime inside, in the main thread, where it takes longer.

    Again every second: a destructor, or a callback of a weak reference, drops what is raised in it.
    """

    def rings(*_: Any) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, rings)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3), 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclasses.dataclass(frozen=True)
class Watch:
    """Some time, until `end` on the clock `now`; limit: breaks off what takes longer."""

    end: float
    now: Callable[[], float] = time.monotonic
    limit: Callable[[float], contextlib.AbstractContextManager[None]] = alarm

    @property
    def left(self) -> float:
        """Seconds until its end."""
        return max(self.end - self.now(), 0.0)

    def part(self, parts: int, least: float = 0.0) -> Watch:
        """The first of so many equal parts of the time left; the least seconds, where there are as many."""
        return dataclasses.replace(self, end=self.now() + min(max(self.left / parts, least), self.left))

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Raises OutOfTime where it takes longer than is left."""
        if self.left < LEAST:
            raise OutOfTime
        with self.limit(self.left):
            yield


class Measurement:
    """One case: its rows, and the jobs that are ready to run.

    The reference is solved on the device, in float64.
    """

    def __init__(self, name: str, given: Any, watch: Watch, say: Say):
        exact = make(name, seed=given.seed, small=given.quick, dtype=getattr(torch, given.dtype))
        self.rounds, self.say = given.rounds, say
        self.case = exact.to(getattr(torch, given.dtype), given.device)
        self.rows: list[Row] = []
        self.jobs: list[tuple[Row, Job]] = []
        self.counts: Counts | None = None
        self.right: list[Tensor] | None = None
        try:
            with watch.part(REFERENCE).held():
                self.right = [x.cpu() for x in solve_for(exact.to(torch.float64, given.device))]
        except OutOfTime:
            say(f"{name}: no time for the reference, so errors are not known")

    def add(self, ways: Sequence[Way], watch: Watch) -> None:
        """The ways that fit the case, as far as the time goes; one part of it is for rounds of all jobs."""
        fitting, before = [way for way in ways if way.fits(self.case)], len(self.jobs)
        for k, way in enumerate(fitting):
            own = watch.part(len(fitting) - k + 1, COMPILES) if way.slow else watch.part(2)
            row, job = _first(way, self.case, self.counts, self.right, own)
            self.say(f"{self.case.name}: {way.name}" + (f" – {row.reason}" if row.reason else ""))
            self.rows.append(row)
            if job is not None:
                self.jobs.append((row, job))
                if self.counts is None and way.group == OURS:
                    self.counts = row.counts
        if len(self.jobs) > before:
            run_rounds(self.jobs, watch, self.rounds)

    @property
    def found(self) -> Found:
        """What is measured so far."""
        clock = "wall" if self.case.z0.is_cuda else "cpu"
        return Found(self.case.name, self.case.tol, self.case.kind, clock, float("nan"), self.rows)


def _first(
    way: Way, case: Case, counts: Counts | None, right: Sequence[Tensor] | None, watch: Watch
) -> tuple[Row, Job | None]:
    seconds = watch.left
    try:
        with watch.held():
            return prepare(way, case, counts, right)
    except OutOfTime:
        if "torch._dynamo" in sys.modules:  # it may have been in the middle of compiling
            torch.compiler.reset()
        reason = f"left out (its first call takes longer than {seconds:.0f} s)"
        return Row(way.name, way.group, reason if seconds >= LEAST else "left out (no time)"), None


def run_rounds(jobs: Sequence[tuple[Row, Job]], watch: Watch, rounds: int) -> None:
    """Whole rounds, in turning order, as long as one more fits; of the first what does.

    Samples of earlier rounds, without those who are new, go where there is a whole round.
    """
    samples: dict[str, list[Sample]] = {row.way: [] for row, _ in jobs}
    longest = 0.0
    for turn in range(rounds):
        gc.collect()
        begin = watch.now()
        if turn and watch.left < longest:
            break
        try:
            for k in range(len(jobs)):
                row, job = jobs[(k + turn) % len(jobs)]
                with watch.held():
                    samples[row.way].append(job.measure())
        except OutOfTime:
            break
        longest = max(longest, watch.now() - begin)
    for row, job in jobs:
        if longest or not row.samples:
            row.samples = samples[row.way]
        row.compilations = job.compilations()
        row.reason = "" if row.samples else "left out (no time for a round)"


def test_files() -> list[str]:
    """Those with tests on a device."""
    found = sorted((ROOT / "tests").glob("test_*.py"))
    kinds = re.compile(r"\b(place|elsewhere|device|CUDA)\b[^\n]*\):|mark\.cuda")
    return [str(p.relative_to(ROOT)) for p in found if kinds.search(p.read_text(encoding="utf-8"))]


def run_tests(output: Path, watch: Watch, run: Callable[..., Any] = subprocess.run) -> str:
    """The tests that need CUDA, in a process of their own; how it ended, in words."""
    arguments = ["-q", "-m", "cuda and not slow", "-p", "no:cacheprovider", *test_files()]
    command, seconds = [sys.executable, "-u", "-m", "pytest", *arguments], watch.left
    try:
        with output.open("w", encoding="utf-8") as stream:
            run(command, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return f"broken off after {seconds:.0f} s; what had run is in {output.name}"
    lines = output.read_text(encoding="utf-8").strip().splitlines()
    return lines[-1].strip("= ") if lines else "said nothing"


def text(found: Sequence[Found], about: dict[str, Any], later: Sequence[str]) -> str:
    """All of it as Markdown."""
    settings = ", ".join(f"{name} {value}" for name, value in about["settings"].items())
    parts = [f"# {about['minutes']:g} minutes on {about['machine']}", settings]
    parts.append(f"Tests that need CUDA: {about['tests']}.")
    data = report.as_data(found, about)["cases"]
    for one, case in zip(found, data, strict=True):
        parts += [f"## {one.case}, tolerance {one.tol:g}", page.table(case)]
        ratios = report.ratio_table(one)
        if ratios:
            parts.append(f"Times faster than each peer ({report.WORSE}: ours has the larger error):")
            parts.append(f"```text\n{ratios}\n```")
    if later:
        parts.append(f"Left out, or not begun yet: {', '.join(later)}.")
    return "\n\n".join(parts) + "\n"


class Run:
    """All that was asked for, and its files.

    given: the command line's; about: what a reader must know of the machine.
    """

    def __init__(self, given: Any, about: dict[str, Any], say: Say, watch: Watch):
        self.given, self.say, self.watch = given, say, watch
        self.about = {**about, "minutes": given.minutes, "tests": "not run"}
        self.target: Path = given.json or (given.out or Path("runs") / "speed") / f"{given.device}.json"
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self.measured: dict[str, Measurement] = {}

    def everything(self) -> None:
        """Tests, quick ways, others."""
        self.about["tests"] = run_tests(self.target.with_suffix(".tests.txt"), self.watch.part(TESTS))
        self.say(f"tests: {self.about['tests']}")
        self.write()
        self._pass([way for way in self.given.ways if not way.slow], self.watch.part(QUICK), 0.0)
        # What is newest comes first: there may be no time for all.
        self._pass([way for way in reversed(self.given.ways) if way.slow], self.watch, COMPILES)

    def _pass(self, ways: Sequence[Way], watch: Watch, least: float) -> None:
        names = self.given.cases
        for k, name in enumerate(names):
            if "torch._dynamo" in sys.modules:  # what others compiled would make this one's shapes dynamic
                torch.compiler.reset()
            own = watch.part(len(names) - k, least)
            with contextlib.suppress(OutOfTime):
                if name not in self.measured:
                    self.measured[name] = Measurement(name, self.given, own, self.say)
                self.measured[name].add(ways, own)
            self.write()

    def write(self) -> None:
        """The JSON file, and the table beside it."""
        found = [one.found for one in self.measured.values()]
        later = [name for name in self.given.cases if name not in self.measured]
        report.write_json(self.target, report.as_data(found, {**self.about, "left_out": later}))
        self.target.with_suffix(".md").write_text(text(found, self.about, later), encoding="utf-8")


def run(given: Any, about: dict[str, Any], say: Say) -> int:
    """All, in time: counted from the start of the process."""
    seconds = 60 * given.minutes
    watch = Watch(BEGIN + seconds - min(CLOSING, seconds / 4))
    # A call into a library, or a kernel without end, does not hear the alarm. What was measured is written.
    last = threading.Timer(BEGIN + seconds - time.monotonic(), os._exit, [3])
    last.daemon = True
    last.start()
    whole = Run(given, about, say, watch)
    whole.everything()
    last.cancel()
    print(whole.target.with_suffix(".md").read_text(encoding="utf-8"))
    say(f"written to {whole.target} and {whole.target.with_suffix('.md').name}")
    return 0
