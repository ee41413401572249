"""Fig. 2: training loss, test accuracy, NFE and efficacy of six models on MNIST and CIFAR-10.

What the paper says: efficacy is test accuracy ÷ NFE, forward and backward, over 10 epochs; AdamNODE has the
lowest training loss and the highest efficacy, 20 % above HBNODE and 80 % above NODE, and on MNIST an
accuracy 0.95 points above the best other model.
What it leaves open: see `training`; and which NFE the accuracy is divided by. Here it is the mean of the
test pass forwards, and of the training epoch backwards.
What its authors' code does: one seed, torchdiffeq 0.2.2's continuous adjoint, so its backward NFE is that of
a solve back in time. Training here takes the exact derivative of the steps, whose NFE the accepted steps
decide; the continuous adjoint's (`Backsolve`) is measured besides, with the trained weights on a few
training batches.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from ..adjoint.gradients import Backsolve
from ..plotting import log_scale, name_panel
from ..solvers.methods import get_method
from ..train.metrics import efficacy
from ..train.step import CANNOT_BE_SOLVED, EpochSums
from .machinery.figure import UNTOLD, Claim, Outcome, Row, Words
from .machinery.paired import Interval, difference, gain, verdict_best, verdict_gain
from .machinery.section import Section, draw_sections, rows_of_runs, sections
from .machinery.training import SIZES, Again, Run, TrainingSettings, epoch_of
from .machinery.work import Work

WORDS = Words("fig2")
OVER, MNIST_POINTS = {"hbnode": 20.0, "node": 80.0}, 0.95
MNIST_TEST = 10_000  # images
DIRECTIONS = WORDS.table("directions")


@dataclasses.dataclass(frozen=True)
class Fig2Settings(TrainingSettings):
    """The runs, and on how many training batches the continuous adjoint's NFE is measured."""

    backward_batches: int = 2


SETTINGS = {scale: Fig2Settings(**size) for scale, size in SIZES.items()}
SETTINGS["smoke"] = dataclasses.replace(SETTINGS["smoke"], backward_batches=1)


def compute(settings: Fig2Settings, work: Work) -> Outcome:
    """One row a run: its last epoch's numbers, and every epoch's under ``history``."""
    rows, runs, missing = rows_of_runs(settings, work, lambda run: _row(run, settings, work))
    methods = {run.dataset: run.config.method for run in runs}
    found = sections(settings, rows)
    findings = [
        *(*missing, WORDS.say("what efficacy is"), WORDS.say("whose gradient")),
        *(WORDS.say("raises", **row) for row in rows if row["backsolve_problem"]),
        *(told for section in found for told in _by_epoch(section)),
        *(told for section in found if section.rows for told in _by_step(section, methods[section.dataset])),
    ]
    return Outcome(rows, findings=tuple(findings))


def _by_epoch(section: Section) -> list[str]:
    """Whether the claim about efficacy depends on the epoch at which one looks: a sentence, or none."""
    means = {row["model"]: section.means(row["model"], "efficacy_forward") for row in section.rows}
    ours, leads = means.pop("adamnode", []), []
    for epoch, value in enumerate(ours if means else ()):
        best = max(means, key=lambda model: means[model][epoch])
        leads.append({"lead": 100 * (value / means[best][epoch] - 1), "model": best})
    each = WORDS.each("by epoch each", leads, ", ")
    return [WORDS.say("by epoch", dataset=section.dataset, leads=each)] if leads else []


def _by_step(section: Section, method: str) -> list[str]:
    """How much of an efficacy one attempted step of the method is: a sentence, or none where AdamNODE or the
    claim's rival is missing."""
    tableau = get_method(method)
    cost, shares = tableau.n_stages - tableau.fsal, []
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


def _row(run: Run, settings: Fig2Settings, work: Work) -> Row:
    history = [epoch_of(row) for row in run.history]
    back = work.part(run.piece("backsolve"), lambda: backsolve_cost(run, settings.backward_batches, work))
    last = history[-1]
    return {
        **{name: value for name, value in last.items() if name != "seconds"},
        "nfe_backward_backsolve": back["nfe_backward"],
        "efficacy_backward_backsolve": efficacy(last["test_accuracy"], back["nfe_backward"] or 0.0),
        "backsolve_problem": back["problem"],
        "history": history,
    }


def backsolve_cost(run: Run, batches: int, work: Work) -> dict[str, Any]:
    """Mean NFE of the continuous adjoint over the first ``batches`` training batches of the run's first
    epoch, with its last weights; or, under "problem", why it cannot be had (nfe_backward is then None)."""
    again, sums = Again(run, work), EpochSums()
    for x, y in again.batches(batches):
        try:
            batch = again.step(x, y, gradient=Backsolve())
        except CANNOT_BE_SOLVED as error:
            return {"nfe_backward": None, "problem": f"{type(error).__name__}: {error}"}
        sums.add(len(y), batch.loss, batch.score, (batch.nfe_forward, batch.nfe_backward))
    return {"nfe_backward": sums.mean("nfe_backward"), "problem": ""}


def judge(settings: Fig2Settings, outcome: Outcome) -> list[Claim]:
    """Each claim for each data set, with differences paired over seeds; the last epoch's numbers."""
    return [claim for section in sections(settings, outcome.rows) for claim in _claims(settings, section)]


def _claims(settings: Fig2Settings, section: Section) -> list[Claim]:
    others = [model for model in settings.models if model != "adamnode"]

    def best(claim: str, name: str, measure: Callable[..., Interval], direction: str = "") -> Claim:
        mine = section.by_seed("adamnode", name)
        leads = {model: measure(mine, section.by_seed(model, name)) for model in others}
        told = {"mean": section.mean("adamnode", name), "leads": WORDS.each(f"{claim} lead", leads)}
        return WORDS.claim(claim, verdict_best(leads), direction=direction, **told, **section.about)

    def gained(other: str, direction: str, name: str) -> Claim:
        lead = gain(section.by_seed("adamnode", name), section.by_seed(other, name))
        told = {"other": other, "paper": OVER[other], "direction": direction, "lead": lead}
        return WORDS.claim("gain", verdict_gain(lead, OVER[other]), **told, **section.about)

    claims = [best("loss", "train_loss", lambda mine, theirs: difference(theirs, mine))]
    claims += [best("efficacy", name, gain, direction) for name, direction in DIRECTIONS.items()]
    for other in OVER:
        claims.append(gained(other, "forward", "efficacy_forward"))
        claims.append(gained(other, "backward", "efficacy_backward_backsolve"))
    if "mnist" in section.stands_for:
        claims.append(_accuracy(section, others, settings.test_size or MNIST_TEST))
    return claims


def _accuracy(section: Section, others: Sequence[str], images: int) -> Claim:
    """Against the other model with the highest mean: the best of five in each seed would be favoured.

    images: of the test set, which is the same for every seed: intervals over the seeds know nothing of it.
    """
    means = {model: section.mean(model, "test_accuracy") for model in others}
    known = {model: value for model, value in means.items() if value is not None}
    best = max(known, key=known.__getitem__, default="")
    mine, other = (section.by_seed(model, "test_accuracy") for model in ("adamnode", best))
    lead = difference(*({seed: 100 * value for seed, value in each.items()} for each in (mine, other)))
    finest = 100 * resolution(known.get(best, 0.0), images)
    told = len(known) == len(others) and finest <= MNIST_POINTS
    verdict = verdict_gain(lead, MNIST_POINTS) if told else UNTOLD
    tested = {"images": images, "finest": finest, "smaller": finest > MNIST_POINTS}
    numbers = {"lead": lead, "paper": MNIST_POINTS, "best": best or None, "mean": 100 * known.get(best, 0.0)}
    return WORDS.claim("accuracy", verdict, **numbers, **tested, **section.about)


def resolution(accuracy: float, images: int) -> float:
    """The difference of two models' accuracies that so many test images tell from chance, at 95 %: each
    model's number of right answers taken for binomial, and the two for independent."""
    return 1.96 * math.sqrt(2 * accuracy * (1 - accuracy) / images)


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
