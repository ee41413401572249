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
import itertools
import math
from collections.abc import Sequence
from typing import Any

from ..adjoint.gradient import Backsolve
from ..solvers.methods import get_method
from ..train.metrics import EpochSums, efficacy
from ..train.objective import Objective
from ..train.step import CANNOT_BE_SOLVED, descend, solving_with
from .machinery.curves import legend_below, log_scale, mean_line, whole_numbers
from .machinery.figure import UNTOLD, Claim, Figure, Outcome, Picture
from .machinery.paired import RULE_OF_GAINS, Interval, difference, gain, verdict_best, verdict_gain
from .machinery.section import count_seeds, draw_sections, sections, sizes_told
from .machinery.training import (
    MODEL_NAMES,
    SIZES,
    Run,
    TrainingSettings,
    data_sets,
    first_batches,
    loaded_again,
    training_runs,
)
from .machinery.work import Work

OVER_HBNODE, OVER_NODE, MNIST_POINTS = 20.0, 80.0, 0.95
MNIST_TEST = 10_000  # images


@dataclasses.dataclass(frozen=True)
class Fig2Settings(TrainingSettings):
    """The runs, and on how many training batches the continuous adjoint's NFE is measured."""

    backward_batches: int = 2


SETTINGS = {scale: Fig2Settings(**size) for scale, size in SIZES.items()}
SETTINGS["smoke"] = dataclasses.replace(SETTINGS["smoke"], backward_batches=1)


def compute(settings: Fig2Settings, work: Work) -> Outcome:
    """One row a run: its last epoch's numbers, and every epoch's under ``history``."""
    runs, missing = training_runs(settings, work)
    stands_for = data_sets(settings)
    rows = [_row(run, stands_for[run.dataset], settings, work) for run in runs]
    count_seeds(settings, rows)
    raised = [row for row in rows if row["backsolve_problem"]]
    findings = [
        *missing,
        "Efficacy: test accuracy ÷ mean NFE of the test pass (forward), ÷ mean NFE backward of the training "
        "epoch (backward).",
        "Training took the exact derivative of the steps; the backward NFE of the paper is that of a "
        "continuous adjoint, measured here with the trained weights (nfe_backward_backsolve).",
        *(
            f"backsolve raises for {MODEL_NAMES[row['model']]} on {row['dataset']}, seed {row['seed']}: "
            f"{row['backsolve_problem']}"
            for row in raised
        ),
        *(told for dataset in stands_for for told in _by_epoch(rows, dataset)),
        *(told for run in {run.dataset: run for run in runs}.values() for told in _by_step(rows, run)),
    ]
    return Outcome(rows, findings=tuple(findings))


def _by_epoch(rows: Sequence[dict[str, Any]], dataset: str) -> list[str]:
    """Whether the claim about efficacy depends on the epoch at which one looks: a sentence, or none."""
    mine = [row for row in rows if row["dataset"] == dataset]
    means: dict[str, list[float]] = {}
    for model in {row["model"] for row in mine}:
        curves = [[e["efficacy_forward"] or 0.0 for e in r["history"]] for r in mine if r["model"] == model]
        means[model] = [sum(each) / len(each) for each in zip(*curves, strict=False)]
    ours = means.pop("adamnode", [])
    if not ours or not means:
        return []
    leads = []
    for epoch, value in enumerate(ours):
        best = max(means, key=lambda model: means[model][epoch])
        leads.append(f"{100 * (value / means[best][epoch] - 1):+.0f} % ({MODEL_NAMES[best]})")
    return [
        f"{dataset}: AdamNODE's forward efficacy over the best other model's, epoch by epoch, means over the "
        f"seeds: {', '.join(leads)}."
    ]


def _by_step(rows: Sequence[dict[str, Any]], run: Run) -> list[str]:
    """How much of an efficacy one attempted step of the solver is, for the data set and method of ``run``:
    a sentence, or none where a model or the claim's rival is missing."""
    mine = [row for row in rows if row["dataset"] == run.dataset]
    tableau = get_method(run.config.method)
    cost = tableau.n_stages - tableau.fsal
    shares = []
    for model in ("adamnode", "hbnode"):
        nfe = by_seed(mine, model, "nfe_forward")
        if not nfe:
            return []
        shares.append(f"{100 * cost / _mean(nfe):.0f} % of {MODEL_NAMES[model]}'s mean {_mean(nfe):.3g}")
    passes = [epoch["nfe_forward"] for row in mine for epoch in row["history"]]
    # f at the start, and one to choose the first step.
    whole = sum(math.isclose((nfe - 2) % cost, 0.0, abs_tol=1e-9) for nfe in passes)
    return [
        f"{run.dataset}: an attempted step of {run.config.method} is {cost} evaluations, which is "
        f"{' and '.join(shares)} of the test pass; the claim between these two is {OVER_HBNODE:g} %. Of "
        f"{len(passes)} test passes (models, seeds, epochs) {whole} have a mean NFE of 2 + {cost}n with a "
        "whole n: efficacy goes in steps of that size."
    ]


def epoch_of(row: dict[str, Any]) -> dict[str, Any]:
    """An epoch of a run as the figure needs it, from its row of metrics."""
    accuracy = row["test_accuracy"]
    return {
        "epoch": row["epoch"],
        "train_loss": row["train_loss"],
        "test_accuracy": accuracy,
        "nfe_forward": row["test_nfe_forward"],
        "nfe_backward": row["nfe_backward"],
        "efficacy_forward": efficacy(accuracy, row["test_nfe_forward"]),
        "efficacy_backward": efficacy(accuracy, row["nfe_backward"]),
        "seconds": row["seconds"],
    }


def _row(run: Run, stands_for: tuple[str, ...], settings: Fig2Settings, work: Work) -> dict[str, Any]:
    history = [epoch_of(row) for row in run.history]
    back = work.part(
        f"backsolve-{run.dataset}-{run.model}-seed={run.seed}",
        lambda: backsolve_cost(run, settings.backward_batches, work),
    )
    last = history[-1]
    return {
        "dataset": run.dataset,
        "stands_for": list(stands_for),
        "model": run.model,
        "seed": run.seed,
        "parameters": run.final["parameters"],
        **{name: value for name, value in last.items() if name != "seconds"},
        "nfe_backward_backsolve": back["nfe_backward"],
        "efficacy_backward_backsolve": efficacy(last["test_accuracy"], back["nfe_backward"] or 0.0),
        "backsolve_problem": back["problem"],
        "history": history,
    }


def backsolve_cost(run: Run, batches: int, work: Work) -> dict[str, Any]:
    """Mean NFE of the continuous adjoint over the first ``batches`` training batches of the run's first
    epoch, with its last weights; or, under "problem", why it cannot be had (nfe_backward is then None)."""
    loaded, data = loaded_again(run, work)
    config, sums = loaded.config, EpochSums()
    model, objective = loaded.model.train(), Objective.of(data)
    for x, y in itertools.islice(first_batches(loaded, data, config.batch_size), batches):
        model.zero_grad(set_to_none=True)
        try:
            with solving_with(model, gradient=Backsolve()):
                batch = descend(model, x, y, objective, total=len(y), parts=1, amp=config.amp)
        except CANNOT_BE_SOLVED as error:
            return {"nfe_backward": None, "problem": f"{type(error).__name__}: {error}"}
        sums.add(len(y), batch.loss, batch.score, (batch.nfe_forward, batch.nfe_backward))
    return {"nfe_backward": sums.mean("nfe_backward"), "problem": ""}


def by_seed(rows: Sequence[dict[str, Any]], model: str, name: str) -> dict[int, float]:
    """A quantity of a model's rows by seed; rows that do not have it are left out."""
    return {row["seed"]: row[name] for row in rows if row["model"] == model and row[name] is not None}


def judge(settings: Fig2Settings, outcome: Outcome) -> list[Claim]:
    """Each claim for each data set, with differences paired over seeds; the last epoch's numbers."""
    claims: list[Claim] = []
    others = [model for model in settings.models if model != "adamnode"]
    for section in sections(settings, outcome.rows):
        rows = section.rows
        sizes = f"{section.title}; {sizes_told(settings, rows)}"
        found = [_lowest_loss(rows, others), *_highest_efficacy(rows, others), *_gains(rows)]
        if "mnist" in section.stands_for:
            found.append(_accuracy(rows, others, settings.test_size or MNIST_TEST))
        for claim in found:
            verdict = UNTOLD if settings.stand_in else claim.verdict
            words = f"{section.where}: {claim.claim}"
            why = f"{claim.why} {sizes}. Intervals: 95 %, paired over seeds.".strip()
            claims.append(Claim(words, claim.paper, claim.ours, verdict, why))
    return claims


def _told(leads: dict[str, Interval], form: str) -> str:
    """Against each of the others."""
    return "; ".join(f"{MODEL_NAMES[model]} {lead.told(form)}" for model, lead in leads.items())


def _mean(values: dict[int, float]) -> float:
    return sum(values.values()) / len(values)


def _lowest_loss(rows: Sequence[dict[str, Any]], others: Sequence[str]) -> Claim:
    mine = by_seed(rows, "adamnode", "train_loss")
    leads = {model: difference(by_seed(rows, model, "train_loss"), mine) for model in others}
    ours = f"AdamNODE {_mean(mine):.4g}" if mine else "AdamNODE has no finished run"
    why = f"How much higher the others' loss is: {_told(leads, '{:+.3g}')}."
    return Claim("AdamNODE has the lowest training loss", "lowest of six", ours, verdict_best(leads), why)


def _highest_efficacy(rows: Sequence[dict[str, Any]], others: Sequence[str]) -> list[Claim]:
    claims = []
    for name, words in (
        ("efficacy_forward", "forward"),
        ("efficacy_backward", "backward (exact derivative of the steps)"),
        ("efficacy_backward_backsolve", "backward (continuous adjoint)"),
    ):
        mine = by_seed(rows, "adamnode", name)
        leads = {model: gain(mine, by_seed(rows, model, name)) for model in others}
        ours = f"AdamNODE {_mean(mine):.4g}" if mine else "AdamNODE has none"
        why = f"Its lead in per cent over {_told(leads, '{:+.0f}')}."
        words = f"AdamNODE has the highest efficacy, {words}"
        claims.append(Claim(words, "highest of six", ours, verdict_best(leads), why))
    return claims


def _gains(rows: Sequence[dict[str, Any]]) -> list[Claim]:
    claims = []
    for model, paper in (("hbnode", OVER_HBNODE), ("node", OVER_NODE)):
        for name, words in (("efficacy_forward", "forward"), ("efficacy_backward_backsolve", "backward")):
            lead = gain(by_seed(rows, "adamnode", name), by_seed(rows, model, name))
            claim = f"AdamNODE's efficacy is {paper:g} % above {MODEL_NAMES[model]}'s, {words}"
            verdict = verdict_gain(lead, paper)
            claims.append(Claim(claim, f"+{paper:g} %", lead.told("{:+.0f}", "%"), verdict, RULE_OF_GAINS))
    return claims


def _accuracy(rows: Sequence[dict[str, Any]], others: Sequence[str], images: int) -> Claim:
    """Against the other model with the highest mean: the best of five in each seed would be favoured.

    images: of the test set, which is the same for every seed: intervals over the seeds know nothing of it.
    """
    found = {model: by_seed(rows, model, "test_accuracy") for model in others}
    means = {model: _mean(values) for model, values in found.items() if values}
    best = max(means, key=means.__getitem__, default="")
    mine = {seed: 100 * value for seed, value in by_seed(rows, "adamnode", "test_accuracy").items()}
    other = {seed: 100 * value for seed, value in by_seed(rows, best, "test_accuracy").items()}
    lead = difference(mine, other)
    why = f"The best other is {MODEL_NAMES[best]} with {100 * means[best]:.2f} %." if best else ""
    words = f"AdamNODE's test accuracy is {MNIST_POINTS} points above the best other model's"
    ours = lead.told("{:+.2f}", "points")
    verdict = verdict_gain(lead, MNIST_POINTS) if len(means) == len(others) else UNTOLD
    if best:
        finest = 100 * resolution(means[best], images)
        why += f" {images:,} test images tell differences above {finest:.2g} points"
        if finest > MNIST_POINTS:
            verdict, why = UNTOLD, f"{why}, and the paper's is smaller"
        why += "."
    return Claim(words, f"+{MNIST_POINTS} points", ours, verdict, f"{why} {RULE_OF_GAINS}".strip())


def resolution(accuracy: float, images: int) -> float:
    """The difference of two models' accuracies that so many test images tell from chance, at 95 %: each
    model's number of right answers taken for binomial, and the two for independent."""
    return 1.96 * math.sqrt(2 * accuracy * (1 - accuracy) / images)


_PANELS = (
    ("train_loss", "training loss"),
    ("test_accuracy", "test accuracy"),
    ("nfe_forward", "NFE forward (test)"),
    ("nfe_backward", "NFE backward (training)"),
    ("efficacy_forward", "efficacy forward"),
    ("efficacy_backward", "efficacy backward"),
)
_HEIGHT = 5.2  # inches for a data set


def draw(figure: Any, settings: Fig2Settings, outcome: Outcome) -> None:
    """Six panels a data set: each quantity over the epochs, a line a model."""
    for part, section in draw_sections(figure, settings, outcome.rows, height=_HEIGHT, more=0.9):
        rows = section.rows
        part.suptitle(f"{section.title}: {sizes_told(settings, rows)}", fontsize=10)
        for axis, (name, title) in zip(part.subplots(2, 3).flat, _PANELS, strict=True):
            for model in settings.models:
                mean_line(axis, rows, model, "epoch", name)
            axis.set_title(title, fontsize=9)
            axis.set_xlabel("epoch")
            whole_numbers(axis)
        if rows:
            log_scale(part.axes[0])
    legend_below(figure, settings.models)


FIGURE = Figure(
    name="fig2",
    title="Fig. 2: training loss, accuracy, NFE and efficacy",
    says="AdamNODE has the lowest training loss and the highest efficacy (test accuracy ÷ NFE) of the six.",
    settings=SETTINGS,
    compute=compute,
    judge=judge,
    pictures={
        "fig2": Picture(
            draw,
            (10.5, 2 * _HEIGHT + 0.9),
            "Six models over the epochs of training: training loss, test accuracy, evaluations of the field "
            "(NFE) forwards in the test pass and backwards in the training epoch, and test accuracy ÷ each. "
            "A line is the mean over the seeds, its band goes from the least to the largest.",
        )
    },
    columns={
        "dataset": "data",
        "model": "model",
        "seed": "seed",
        "seeds": "finished",
        "parameters": "parameters",
        "train_loss": "training loss",
        "test_accuracy": "test accuracy",
        "nfe_forward": "NFE forward",
        "nfe_backward": "NFE backward",
        "nfe_backward_backsolve": "NFE backward, continuous adjoint",
        "efficacy_forward": "efficacy forward",
        "efficacy_backward": "efficacy backward",
        "efficacy_backward_backsolve": "efficacy backward, continuous adjoint",
    },
)
