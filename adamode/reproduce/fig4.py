"""Fig. 4: how long an epoch of training takes.

What the paper says: AdamNODE's training time is about that of HBNODE and GHBNODE.
What it leaves open: the machine, what "about" is (here: within a factor of 1.25), the number of seeds.
What its authors' code does: torchdiffeq 0.2.2's continuous adjoint on a GPU. Seconds here are those of this
project's solver with the exact derivative of the steps, on the machine of the runs, so only their ratios can
be compared, and they rest on the sizes of the models as well as on the NFE.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch

from ..train.objective import Objective
from ..train.step import descend
from .fig2 import by_seed, epoch_of
from .machinery.curves import HATCH_OF, LOOK_OF, legend_below, mean_line
from .machinery.figure import UNTOLD, Claim, Figure, Outcome, Picture
from .machinery.paired import gain, verdict_alike
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


@dataclasses.dataclass(frozen=True)
class Fig4Settings(TrainingSettings):
    """The runs; the factor within which two times count as alike; and on how many training batches, after
    one that warms up, a step is timed by itself."""

    alike: float = 1.25
    timed_batches: int = 3


SETTINGS = {scale: Fig4Settings(**size) for scale, size in SIZES.items()}


def compute(settings: Fig4Settings, work: Work) -> Outcome:
    """One row a run: seconds of an epoch's training steps, their mean over the epochs, and every epoch's."""
    runs, missing = training_runs(settings, work)
    stands_for = data_sets(settings)
    rows = [_row(run, stands_for[run.dataset], settings, work) for run in runs]
    for row in rows:
        alike = [other for other in rows if other["dataset"] == row["dataset"]]
        reference = by_seed(alike, "hbnode", "seconds_per_step").get(row["seed"])
        row["relative_to_hbnode"] = None if reference is None else row["seconds_per_step"] / reference
    count_seeds(settings, rows)
    on_cpu = torch.device(work.allowed.device).type == "cpu"
    clock = "processor time, which other work on the machine lengthens less," if on_cpu else "the clock's"
    return Outcome(
        rows,
        {"step_clock": "processor" if on_cpu else "wall"},
        findings=(
            *missing,
            "Seconds an epoch are those of the wall clock, with all else in them that ran on the machine, "
            "such as other runs where several were trained at once. "
            f"Seconds a step are {clock} of training steps by themselves, one model after another, with the "
            "trained weights: the claims are judged by these.",
            "Seconds go with the NFE: seconds_per_nfe is an epoch's seconds ÷ (NFE forward + NFE backward), "
            "what one evaluation of the field, forwards or backwards, took for all batches of an epoch.",
        ),
    )


def seconds_per_step(run: Run, batches: int, work: Work) -> float:
    """Median seconds of a training step, forward and backward, over ``batches`` after one that warms up.

    Processor time, which other work on the machine lengthens less; on a CUDA device the clock's.
    """
    loaded, data = loaded_again(run, work)
    objective, config = Objective.of(data), loaded.config
    on_cpu = loaded.device.type == "cpu"
    took = []
    loaded.model.train()
    for x, y in itertools.islice(first_batches(loaded, data, config.batch_size), batches + 1):
        start = time.process_time() if on_cpu else time.perf_counter()
        descend(loaded.model, x, y, objective, total=len(y), parts=1, amp=config.amp)
        if not on_cpu:
            torch.cuda.synchronize(loaded.device)
        took.append((time.process_time() if on_cpu else time.perf_counter()) - start)
    return statistics.median(took[1:] or took)


def _row(run: Run, stands_for: tuple[str, ...], settings: Fig4Settings, work: Work) -> dict[str, Any]:
    step = work.part(
        f"step-{run.dataset}-{run.model}-seed={run.seed}",
        lambda: seconds_per_step(run, settings.timed_batches, work),
    )
    history = [epoch_of(row) for row in run.history]
    seconds = [row["seconds"] for row in run.history]
    nfe = sum(row["nfe_forward"] + row["nfe_backward"] for row in run.history)
    for epoch, so_far in zip(history, itertools.accumulate(seconds), strict=True):
        epoch["seconds_so_far"] = so_far
    return {
        "dataset": run.dataset,
        "stands_for": list(stands_for),
        "model": run.model,
        "seed": run.seed,
        "parameters": run.final["parameters"],
        "seconds_per_step": step,
        "seconds_per_epoch": sum(seconds) / len(seconds),
        "seconds_per_nfe": sum(seconds) / nfe,
        "nfe_forward": run.history[-1]["nfe_forward"],
        "nfe_backward": run.history[-1]["nfe_backward"],
        "test_accuracy": history[-1]["test_accuracy"],
        "history": history,
    }


def judge(settings: Fig4Settings, outcome: Outcome) -> list[Claim]:
    """For each data set, AdamNODE's time against HBNODE's and GHBNODE's, ratios paired over seeds."""
    claims = []
    for section in sections(settings, outcome.rows):
        mine = by_seed(section.rows, "adamnode", "seconds_per_step")
        for model in ("hbnode", "ghbnode"):
            lead = gain(mine, by_seed(section.rows, model, "seconds_per_step"))
            claims.append(
                Claim(
                    f"{section.where}: AdamNODE's training time is about {MODEL_NAMES[model]}'s",
                    "about the same",
                    lead.told("{:+.0f}", "%"),
                    UNTOLD if settings.stand_in else verdict_alike(lead, settings.alike),
                    f"About: within a factor of {settings.alike:g}. {section.title}; "
                    f"{sizes_told(settings, section.rows)}. {_time(outcome).capitalize()} of a training step "
                    "with the trained weights; intervals: 95 %, paired over seeds.",
                )
            )
    return claims


def _time(outcome: Outcome) -> str:
    return "processor time" if outcome.variants["step_clock"] == "processor" else "time"


_HEIGHT = 3.3


def draw(figure: Any, settings: Fig4Settings, outcome: Outcome) -> None:
    """A row a data set: seconds of a step as bars, accuracy over the seconds of training so far."""
    for part, section in draw_sections(figure, settings, outcome.rows, height=_HEIGHT, more=0.6):
        rows = section.rows
        part.suptitle(f"{section.title}: {sizes_told(settings, rows)}", fontsize=10)
        left, right = part.subplots(1, 2)
        _bars(left, settings.models, rows)
        left.set_title(f"seconds of a training step ({_time(outcome)})", fontsize=9)
        for model in settings.models:
            mean_line(right, rows, model, "seconds_so_far", "test_accuracy")
        right.set_xlabel("seconds of training (tests left out)")
        right.set_title("test accuracy", fontsize=9)
    legend_below(figure, settings.models)


def _bars(axis: Any, models: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    for place, model in enumerate(models):
        seconds = list(by_seed(rows, model, "seconds_per_step").values())
        if not seconds:
            continue
        mean = sum(seconds) / len(seconds)
        ends = [[mean - min(seconds)], [max(seconds) - mean]]
        axis.bar(
            place,
            mean,
            yerr=ends if len(seconds) > 1 else None,
            color=LOOK_OF[model]["color"],
            hatch=HATCH_OF[model],
            edgecolor="white",
            capsize=3,
            ecolor="#888888",  # seen on a black bar too
        )
    axis.set_xticks(range(len(models)), [MODEL_NAMES[model] for model in models], fontsize=8)
    axis.grid(visible=False, axis="x")


FIGURE = Figure(
    name="fig4",
    title="Fig. 4: training time",
    says="AdamNODE trains about as fast as HBNODE and GHBNODE.",
    settings=SETTINGS,
    compute=compute,
    judge=judge,
    pictures={
        "fig4": Picture(
            draw,
            (10.5, 2 * _HEIGHT + 0.6),
            "Time of a training step, on a processor the time that it computed, and test accuracy over the "
            "clock's seconds of training so far, with all else in them that ran on the machine. Bars and "
            "lines are means over the seeds, whiskers and bands go from the least to the largest.",
        )
    },
    columns={
        "dataset": "data",
        "model": "model",
        "seed": "seed",
        "seeds": "finished",
        "parameters": "parameters",
        "seconds_per_step": "seconds a step",
        "relative_to_hbnode": "÷ HBNODE's",
        "seconds_per_epoch": "seconds an epoch (clock)",
        "seconds_per_nfe": "seconds an epoch ÷ NFE",
        "nfe_forward": "NFE forward (training)",
        "nfe_backward": "NFE backward",
        "test_accuracy": "test accuracy",
    },
)
