"""Fig. 2: what its claims are worth after each epoch, and in the end.

A verdict is one of the steps that were made. The paper's claims are of a training many times as long, so
that in the end they are judged only where at least half as many steps were made.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...solvers.methods import get_method
from ..machinery.figure import FAILS, UNTOLD, Claim, Row, Words
from ..machinery.paired import Interval, difference, gain, verdict_best, verdict_gain, widened
from ..machinery.section import Section
from ..machinery.training import MODEL_NAMES

WORDS = Words("fig2")
OVER, MNIST_POINTS = {"hbnode": 20.0, "node": 80.0}, 0.95
MNIST_TEST = 10_000  # images
GUESS, LEARNT = math.log(10), 0.5  # the loss of a guess among ten; a model has learnt at so much of it
LONG_ENOUGH = 0.5  # of the paper's steps; validation takes a tenth of them away at scale paper
DIRECTIONS = WORDS.table("directions")
LAST_ONLY = ("backsolve", "torchdiffeq")  # measured with the last weights


@dataclasses.dataclass(frozen=True)
class Judged:
    """A claim after some steps. name: of its words; verdict; but: why it cannot be told, a name of a sentence
    or ""; told: the values of its words."""

    name: str
    verdict: str
    but: str
    told: Mapping[str, Any]


def claims(section: Section) -> list[Claim]:
    """Each claim in the end."""
    return [_claim(section, one) for one in judged_after(section, section.epochs)]


def by_epoch(section: Section) -> list[Row]:
    """Each claim that every epoch tells something of, after each: {"claim", "epoch", "steps", "ours",
    "verdict", "but"}."""
    rows = []
    for epoch in range(1, section.epochs + 1):
        for one in judged_after(section, epoch):
            if not str(one.told.get("by", "")).endswith(LAST_ONLY):
                rows.append(_epoch_row(section, one, epoch))
    return rows


def _epoch_row(section: Section, one: Judged, epoch: int) -> Row:
    claim = WORDS.claim(one.name, one.verdict, **_values(section, one, epoch), at="")
    about = {"claim": claim.claim, "epoch": epoch, "steps": section.steps(epoch), "of": section.paper_steps}
    return {**about, "ours": claim.ours, "verdict": claim.verdict, "but": one.but}


def _claim(section: Section, one: Judged) -> Claim:
    """The claim with the verdict on the paper's training: none where the runs are too short for it."""
    long = section.steps() >= LONG_ENOUGH * section.paper_steps
    values, verdict = _values(section, one, section.epochs), one.verdict
    values["at"] = WORDS.say("after", **values)
    if not long and verdict != UNTOLD:
        values["reason"], verdict = WORDS.say("but length", word=verdict, **values), UNTOLD
    return WORDS.claim(one.name, verdict, **values)


def _values(section: Section, one: Judged, epoch: int) -> dict[str, Any]:
    about = {**section.about, "steps": section.steps(epoch), "of": section.paper_steps}
    reason = WORDS.say(f"but {one.but}", **one.told) if one.but else ""
    return {**about, **one.told, "reason": reason}


def judged_after(section: Section, epoch: int) -> list[Judged]:
    """Every claim by the numbers of an epoch; those of `LAST_ONLY` by the last weights."""
    return list(_judged(section.at(epoch) if epoch else section))


def _judged(now: Section) -> Iterator[Judged]:
    yield _loss(now)
    for name, direction in DIRECTIONS.items():
        yield _highest(now, name, direction)
    for other in OVER:
        for name, direction in DIRECTIONS.items():
            yield _gained(now, other, name, direction)
    if "mnist" in now.stands_for:
        yield _accuracy(now)


def _others() -> list[str]:
    return [model for model in MODEL_NAMES if model != "adamnode"]


def _not_learnt(now: Section, models: Sequence[str]) -> list[str]:
    """Of the models those whose training loss says that they have learnt nothing to speak of."""
    losses = {model: now.mean(model, "train_loss") for model in models}
    return [model for model, loss in losses.items() if loss is not None and loss > LEARNT * GUESS]


def _named(models: Sequence[str]) -> str:
    return ", ".join(MODEL_NAMES[model] for model in models)


def _of_seeds(*leads: Interval) -> str:
    """Why intervals over seeds do not tell."""
    least = min(lead.n for lead in leads)
    return "missing" if least == 0 else "one seed" if least == 1 else "seeds"


def _best_of(now: Section, leads: dict[str, Interval], blurred: dict[str, Interval]) -> tuple[str, str, str]:
    """(Verdict, why it cannot be told, who has not learnt). A model that has not learnt leads nobody, and is
    held against nobody."""
    idle = _not_learnt(now, [*leads, "adamnode"])
    sure = {model: lead for model, lead in blurred.items() if model not in idle}
    if "adamnode" in idle:
        return UNTOLD, "not learnt", _named(idle)
    verdict = verdict_best(sure)
    if verdict == FAILS:
        return verdict, "", ""
    if idle:
        return UNTOLD, "not learnt", _named(idle)
    if verdict == UNTOLD:
        return verdict, "resolution" if verdict_best(leads) != UNTOLD else _of_seeds(*leads.values()), ""
    return verdict, "", ""


def _loss(now: Section) -> Judged:
    mine = now.by_seed("adamnode", "train_loss")
    leads = {model: difference(now.by_seed(model, "train_loss"), mine) for model in _others()}
    verdict, but, idle = _best_of(now, leads, leads)
    told = {"mean": now.mean("adamnode", "train_loss"), "leads": WORDS.each("loss lead", leads)}
    return Judged("loss", verdict, but, {**told, "idle": idle})


def _highest(now: Section, name: str, direction: str) -> Judged:
    leads = {model: _lead(now, model, name) for model in _others()}
    coarse = {model: _coarseness(now, model, name) for model in leads}
    blurred = {model: widened(lead, coarse[model]["part"]) for model, lead in leads.items()}
    verdict, but, idle = _best_of(now, leads, blurred)
    told = {"mean": now.mean("adamnode", name), "leads": WORDS.each("efficacy lead", leads)}
    most = max(coarse.values(), key=lambda one: one["part"])
    return Judged(
        "efficacy", verdict, but, {**told, **most, "idle": idle, "direction": direction, "by": name}
    )


def _gained(now: Section, other: str, name: str, direction: str) -> Judged:
    lead, coarse = _lead(now, other, name), _coarseness(now, other, name)
    idle = _not_learnt(now, ("adamnode", other))
    verdict, but = verdict_gain(widened(lead, coarse["part"]), OVER[other]), ""
    if idle:
        verdict, but = UNTOLD, "not learnt"
    elif verdict == UNTOLD:
        but = "resolution" if verdict_gain(lead, OVER[other]) != UNTOLD else _of_seeds(lead)
    told = {"other": other, "paper": OVER[other], "direction": direction, "lead": lead, "by": name}
    return Judged("gain", verdict, but, {**told, **coarse, "idle": _named(idle)})


def _lead(now: Section, other: str, name: str) -> Interval:
    return gain(now.by_seed("adamnode", name), now.by_seed(other, name))


def _coarseness(now: Section, other: str, name: str) -> dict[str, Any]:
    """By what part an efficacy's lead may be off for what no seed shows: an attempted step of the solver, and
    what so many test images tell of two accuracies."""
    cost, images = attempt_cost("dopri5"), _images(now)
    column = name.replace("efficacy", "nfe")
    known = [nfe for model in ("adamnode", other) if (nfe := now.mean(model, column))]
    accuracy = now.mean("adamnode", "test_accuracy") or 0.0
    share = cost / min(known) if known else 0.0
    finest = resolution(accuracy, images)
    part = share + (finest / accuracy if accuracy else 0.0)
    return {"cost": cost, "share": share, "images": images, "finest": 100 * finest, "part": part}


def attempt_cost(method: str) -> int:
    """Evaluations of an attempted step."""
    tableau = get_method(method)
    return int(tableau.n_stages - tableau.fsal)


def _images(now: Section) -> int:
    return now.settings.test_size or MNIST_TEST  # CIFAR-10 has as many


def _accuracy(now: Section) -> Judged:
    """Against the other model with the highest mean: the best of five in each seed would be favoured.

    The test set is the same for every seed: intervals over the seeds know nothing of its size.
    """
    means = {model: now.mean(model, "test_accuracy") for model in _others()}
    known = {model: value for model, value in means.items() if value is not None}
    best, images = max(known, key=known.__getitem__, default=""), _images(now)
    mine, other = (now.by_seed(model, "test_accuracy") for model in ("adamnode", best))
    lead = difference(*({seed: 100 * value for seed, value in each.items()} for each in (mine, other)))
    finest = 100 * resolution(known.get(best, 0.0), images)
    idle = _not_learnt(now, ("adamnode", best)) if best else []
    verdict, but = verdict_gain(lead, MNIST_POINTS), ""
    if len(known) < len(means):
        verdict, but = UNTOLD, "missing"
    elif idle:
        verdict, but = UNTOLD, "not learnt"
    elif finest > MNIST_POINTS:
        verdict, but = UNTOLD, "images"
    elif verdict == UNTOLD:
        but = _of_seeds(lead)
    numbers = {"lead": lead, "paper": MNIST_POINTS, "best": best or None, "mean": 100 * known.get(best, 0.0)}
    tested = {"images": images, "finest": finest, "idle": _named(idle)}
    return Judged("accuracy", verdict, but, {**numbers, **tested})


def resolution(accuracy: float, images: int) -> float:
    """The difference of two models' accuracies that so many test images tell from chance, at 95 %: each
    model's number of right answers taken for binomial, and the two for independent."""
    return 1.96 * math.sqrt(2 * accuracy * (1 - accuracy) / images)
