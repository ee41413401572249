"""Fig. 4: how long an epoch of training takes.

What the paper says: AdamNODEs do not increase the training time; it is about that of HBNODE and GHBNODE. So
the claim has one side: less time holds too.
What it leaves open: the machine, how much more would be an increase (here: a factor of 1.25), the number of
seeds.
What its authors' code does: torchdiffeq 0.2.2's continuous adjoint on a GPU. Seconds here are those of this
project's solver with the exact derivative of the steps, and of torchdiffeq's adjoint where it is installed,
on the machine of the runs, so only their ratios can be compared; they rest on the sizes of the models as well
as on the NFE.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from ..plotting import name_panel
from .machinery.figure import Claim, Outcome, Row, Words
from .machinery.paired import gain, verdict_no_more
from .machinery.section import Section, draw_sections, rows_of_runs, sections
from .machinery.theirs import CANNOT, absent, installed, their_step
from .machinery.training import SIZES, Again, Run, TrainingSettings, epoch_of
from .machinery.work import Work

WORDS = Words("fig4")
JUDGED = ("adamnode", "hbnode", "ghbnode")
_TIMES = {"processor": "processor time", "wall": "time"}


@dataclasses.dataclass(frozen=True)
class Fig4Settings(TrainingSettings):
    """The runs; the factor beyond which a time counts as more; and on how many training batches, after one
    that warms up, a step is timed by itself, with our solver and with torchdiffeq's adjoint."""

    more: float = 1.25
    timed_batches: int = 3
    timed_theirs: int = 1


SETTINGS = {scale: Fig4Settings(**size) for scale, size in SIZES.items()}
SETTINGS["sample"] = dataclasses.replace(SETTINGS["sample"], timed_batches=2)


def compute(settings: Fig4Settings, work: Work) -> Outcome:
    """One row a run: seconds of an epoch's training steps, their mean over the epochs, and every epoch's."""
    rows, _, missing = rows_of_runs(settings, work, lambda run: _row(run, settings, work))
    hbnode = {s.dataset: s.by_seed("hbnode", "seconds_per_step") for s in sections(settings, rows)}

    def relative(row: Row) -> float | None:
        reference = hbnode[row["dataset"]].get(row["seed"])
        return None if reference is None else row["seconds_per_step"] / reference

    clock = "processor" if torch.device(work.allowed.device).type == "cpu" else "wall"
    lack = [absent()] if absent() else []
    findings = (*missing, *lack, WORDS.say("epoch", clock=WORDS.say(clock)), WORDS.say("nfe"))
    rows = [{**row, "relative_to_hbnode": relative(row)} for row in rows]
    return Outcome(rows, {"step_clock": clock}, findings)


def seconds_per_step(run: Run, batches: int, work: Work, step: Callable[..., Any] = Again.step) -> float:
    """Median seconds of a training step, forward and backward, over ``batches`` after one that warms up.

    Processor time, which other work on the machine lengthens less; on a CUDA device the clock's.
    step: of `Again`, or another with its arguments.
    """
    again, took = Again(run, work), []
    on_cpu = again.device.type == "cpu"
    clock = time.process_time if on_cpu else time.perf_counter
    for x, y in again.batches(batches + 1):
        start = clock()
        step(again, x, y)
        if not on_cpu:
            torch.cuda.synchronize(again.device)
        took.append(clock() - start)
    return statistics.median(took[1:] or took)


def _theirs(run: Run, settings: Fig4Settings, work: Work) -> float | None:
    """The same with torchdiffeq's adjoint, of the models of the claims; None where it cannot be had."""
    version = installed()
    if not version or run.model not in JUDGED:
        return None

    def timed() -> float | None:
        try:
            return seconds_per_step(run, settings.timed_theirs, work, their_step)
        except CANNOT:
            return None

    found: float | None = work.part(run.piece(f"step-torchdiffeq-{version}"), timed)
    return found


def _row(run: Run, settings: Fig4Settings, work: Work) -> Row:
    step = work.part(run.piece("step"), lambda: seconds_per_step(run, settings.timed_batches, work))
    seconds, last = [row["seconds"] for row in run.history], run.history[-1]
    nfe = sum(row["nfe_forward"] + row["nfe_backward"] for row in run.history)
    so_far = zip(run.history, itertools.accumulate(seconds), strict=True)
    return {
        "seconds_per_step": step,
        "seconds_per_step_torchdiffeq": _theirs(run, settings, work),
        "seconds_per_epoch": sum(seconds) / len(seconds),
        "seconds_per_nfe": sum(seconds) / nfe,
        **{name: last[name] for name in ("nfe_forward", "nfe_backward", "test_accuracy")},
        "history": [{**epoch_of(row), "seconds_so_far": sum_} for row, sum_ in so_far],
    }


def judge(settings: Fig4Settings, outcome: Outcome) -> list[Claim]:
    """For each data set and solver, AdamNODE's time against HBNODE's and GHBNODE's, paired over seeds."""
    clock = _TIMES[outcome.variants["step_clock"]].capitalize()

    def claim(section: Section, other: str, whose: str) -> Claim:
        column = "seconds_per_step" if whose == "ours" else "seconds_per_step_torchdiffeq"
        lead = gain(*(section.by_seed(model, column) for model in ("adamnode", other)))
        told = {
            "lead": lead,
            "other": other,
            "more": settings.more,
            "clock": clock,
            "whose": WORDS.say(whose),
        }
        return WORDS.claim("time", verdict_no_more(lead, settings.more), **told, **section.about)

    found, ways = sections(settings, outcome.rows), ("ours", "theirs")
    return [claim(section, other, way) for section in found for way in ways for other in JUDGED[1:]]


_HEIGHT = 3.3


def draw(figure: Any, settings: Fig4Settings, outcome: Outcome) -> None:
    """A row a data set: seconds of a step as bars, accuracy over the seconds of training so far."""
    for part, section in draw_sections(figure, settings, outcome.rows, height=_HEIGHT, more=0.6):
        part.suptitle(section.heading, fontsize=10)
        left, right = part.subplots(1, 2)
        section.bars(left, "seconds_per_step")
        left.set_title(f"seconds of a training step ({_TIMES[outcome.variants['step_clock']]})", fontsize=9)
        section.lines(right, "seconds_so_far", "test_accuracy")
        name_panel(right, "test accuracy", "seconds of training (tests left out)")


FIGURE = WORDS.figure(SETTINGS, compute, judge, {"fig4": (draw, (10.5, 2 * _HEIGHT + 0.6))})
