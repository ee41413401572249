"""Fig. 2: training loss, test accuracy, NFE and efficacy of six models on MNIST and CIFAR-10.

What the paper says: efficacy is test accuracy ÷ NFE, forward and backward, over 10 epochs; AdamNODE has the
lowest training loss and the highest efficacy, 20 % above HBNODE and 80 % above NODE, and on MNIST an
accuracy 0.95 points above the best other model.
What it leaves open: see `training`; and which NFE the accuracy is divided by. Here it is the mean of the
test pass forwards, and of the training epoch backwards.
What its authors' code does: one seed, torchdiffeq 0.2.2's continuous adjoint, so its backward NFE is that of
a solve back in time. Training here takes the exact derivative of the steps, whose NFE the accepted steps
decide. The continuous adjoint's is measured besides, ours (`Backsolve`) and torchdiffeq's by its own solver
and counting, with the trained weights on a few training batches.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from ...adjoint.gradients import Backsolve
from ...plotting import log_scale, name_panel
from ...train.metrics import efficacy
from ...train.step import CANNOT_BE_SOLVED, EpochSums
from ..machinery.figure import MACHINERY, MODEL_NAMES, Claim, Outcome, Row
from ..machinery.section import Section, draw_sections, rows_of_runs, sections
from ..machinery.theirs import CANNOT, absent, installed, their_step
from ..machinery.training import SIZES, Again, Run, TrainingSettings, epoch_of
from ..machinery.work import Work
from .claims import OVER, WORDS, attempt_cost, by_epoch, claims
from .claims import resolution as resolution


@dataclasses.dataclass(frozen=True)
class Fig2Settings(TrainingSettings):
    """The runs, and on how many training batches the continuous adjoints' NFE is measured."""

    backward_batches: int = 2


SETTINGS = {scale: Fig2Settings(**size) for scale, size in SIZES.items()}
SETTINGS |= {scale: dataclasses.replace(SETTINGS[scale], backward_batches=1) for scale in ("smoke", "sample")}


def compute(settings: Fig2Settings, work: Work) -> Outcome:
    """One row a run: its last epoch's numbers, and every epoch's under ``history``."""
    rows, runs, missing = rows_of_runs(settings, work, lambda run: _row(run, settings, work))
    methods = {run.dataset: run.config.method for run in runs}
    found = sections(settings, rows)
    findings = [
        *missing,
        *([absent()] if absent() else []),
        *(told for section in found for told in _left_out(section)),
        *(WORDS.say(name) for name in ("what efficacy is", "whose gradient", "what is told")),
        *(
            WORDS.say("raises", who=who, **row, said=said)
            for who in _WHO
            for row in rows
            if (said := row[f"{who}_problem"])
        ),
        *(told for section in found for told in _by_epoch(section)),
        *(told for section in found if section.rows for told in _by_step(section, methods[section.dataset])),
        *MACHINERY.table("released").values(),
    ]
    epochs = [{"dataset": section.dataset, "verdicts": by_epoch(section)} for section in found]
    return Outcome(rows, {"epochs": epochs}, tuple(findings))


def _left_out(section: Section) -> list[str]:
    """Which models this scale does not train on a data set: a sentence, or none."""
    models = [name for model, name in MODEL_NAMES.items() if model not in section.models]
    return [WORDS.say("left out", dataset=section.dataset, models=", ".join(models))] if models else []


def _by_epoch(section: Section) -> list[str]:
    """Whether the claim about efficacy depends on the epoch at which one looks: a sentence, or none."""
    means = {row["model"]: section.means(row["model"], "efficacy_forward") for row in section.rows}
    ours, leads = means.pop("adamnode", []), []
    for epoch, value in enumerate(ours if means else ()):
        best = max(means, key=lambda model: means[model][epoch])
        lead = 100 * (value / means[best][epoch] - 1)
        leads.append({"lead": lead, "model": best, "steps": section.steps(epoch + 1)})
    each = WORDS.each("by epoch each", leads, ", ")
    return [WORDS.say("by epoch", dataset=section.dataset, leads=each)] if leads else []


def _by_step(section: Section, method: str) -> list[str]:
    """How much of an efficacy one attempted step of the method is: a sentence, or none where AdamNODE or the
    claim's rival is missing."""
    cost, shares = attempt_cost(method), []
    for model in ("adamnode", "hbnode"):
        nfe = section.mean(model, "nfe_forward")
        if nfe is None:
            return []
        shares.append({"share": 100 * cost / nfe, "model": model, "mean": nfe})
    passes = [epoch["nfe_forward"] for row in section.rows for epoch in row["history"]]
    # f at the start, and one to choose the first step.
    whole = sum(math.isclose((nfe - 2) % cost, 0.0, abs_tol=1e-9) for nfe in passes)
    numbers = {"paper": OVER["hbnode"], "cost": cost, "passes": len(passes), "whole": whole}
    each = WORDS.each("by step each", shares, " and ")
    return [WORDS.say("by step", dataset=section.dataset, method=method, shares=each, **numbers)]


_WHO = ("backsolve", "torchdiffeq")


def _row(run: Run, settings: Fig2Settings, work: Work) -> Row:
    history, batches = [epoch_of(row) for row in run.history], settings.backward_batches
    back = work.part(run.piece("backsolve"), lambda: backsolve_cost(run, batches, work))
    theirs: dict[str, Any] = {"nfe_forward": None, "nfe_backward": None, "problem": ""}
    if version := installed():
        name = run.piece(f"torchdiffeq-{version}")
        theirs = work.part(name, lambda: torchdiffeq_cost(run, batches, work))
    last = history[-1]
    accuracy, back_nfe = last["test_accuracy"], back["nfe_backward"]
    return {
        **{name: value for name, value in last.items() if name != "seconds"},
        "nfe_backward_backsolve": back_nfe,
        "efficacy_backward_backsolve": efficacy(accuracy, back_nfe or 0.0),
        "backsolve_problem": back["problem"],
        **{f"nfe_{way}_torchdiffeq": theirs[f"nfe_{way}"] for way in _WAYS},
        **{f"efficacy_{way}_torchdiffeq": efficacy(accuracy, theirs[f"nfe_{way}"] or 0.0) for way in _WAYS},
        "torchdiffeq_problem": theirs["problem"],
        "history": history,
    }


_WAYS = ("forward", "backward")


def backsolve_cost(run: Run, batches: int, work: Work) -> dict[str, Any]:
    """Mean NFE of the continuous adjoint over the first ``batches`` training batches of the run's first
    epoch, with its last weights; or, under "problem", why it cannot be had (nfe_backward is then None)."""
    again, sums = Again(run, work), EpochSums()
    for x, y in again.batches(batches):
        try:
            sums = joined(sums, again.step(x, y, gradient=Backsolve()))
        except CANNOT_BE_SOLVED as error:
            return {"nfe_backward": None, "problem": told(error)}
    return {"nfe_backward": sums.mean("nfe_backward"), "problem": ""}


def torchdiffeq_cost(run: Run, batches: int, work: Work) -> dict[str, Any]:
    """The same of torchdiffeq's solver and adjoint, forward and backward, as it counts: calls of f."""
    again, sums = Again(run, work), EpochSums()
    for x, y in again.batches(batches):
        try:
            sums = joined(sums, their_step(again, x, y))
        except CANNOT as error:
            return {"nfe_forward": None, "nfe_backward": None, "problem": told(error)}
    return {**{f"nfe_{way}": sums.mean(f"nfe_{way}") for way in _WAYS}, "problem": ""}


def joined(sums: EpochSums, batch: EpochSums) -> EpochSums:
    """Sums over both."""
    return EpochSums(**{name: value + getattr(batch, name) for name, value in vars(sums).items()})


def told(error: Exception) -> str:
    """An error in a row."""
    return f"{type(error).__name__}: {error}"


def judge(settings: Fig2Settings, outcome: Outcome) -> list[Claim]:
    """Each claim for each data set, with differences paired over seeds; the last epoch's numbers."""
    return [claim for section in sections(settings, outcome.rows) for claim in claims(section)]


_PANELS = WORDS.table("panels")
_HEIGHT = 5.2  # inches for a data set


def draw(figure: Any, settings: Fig2Settings, outcome: Outcome) -> None:
    """Six panels a data set: each quantity over the epochs, a line a model."""
    for part, section in draw_sections(figure, settings, outcome.rows, height=_HEIGHT, more=0.9):
        part.suptitle(section.heading, fontsize=10)
        for axis, (name, title) in zip(part.subplots(2, 3).flat, _PANELS.items(), strict=True):
            section.lines(axis, "epoch", name)
            name_panel(axis, title)
        if section.rows:
            log_scale(part.axes[0])


FIGURE = WORDS.figure(SETTINGS, compute, judge, {"fig2": (draw, (10.5, 2 * _HEIGHT + 0.9))})
