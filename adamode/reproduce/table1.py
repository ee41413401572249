"""Table 1: memory of a training step on CIFAR-10.

What the paper says: MiB of the six models, with the continuous adjoint of torchdiffeq 0.2.2.
What it leaves open: how it was measured (its numbers are of a GPU's process, so the context of CUDA and the
workspaces of cuDNN are in them, the same for all models or nearly so), and at which batch; its training
takes 64.
What its authors' code does: torchdiffeq's adjoint, whose reverse solve has θ's adjoint in its state, several
times over in its stages; the adjoints here keep θ out of it. So MiB cannot be compared, and ratios to NODE
only roughly: a constant that is in all of the paper's numbers brings its ratios nearer to 1.
What is measured here: the most that lives at one moment during the forward and backward pass of one batch,
above what lived before it, with the trained weights of the first seed (untrained ones where a run is not
finished); on the CPU by the storages of all tensors (`adamode.memory.LiveStorage`), on CUDA by torch's
allocator. Every way to the gradient goes through the same network, torchdiffeq's adjoint too, which is what
the paper's claim is of.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..adjoint.gradients import Backsolve, Direct, Discrete, Gradient, Interpolating, Reversible
from ..memory import MIB, metered, parameter_bytes, peak_of
from ..plotting import gaps, legend_below, log_scale
from ..train.step import CANNOT_BE_SOLVED, EpochSums, solving_with, start_seen
from .machinery import training
from .machinery.figure import FAILS, HOLDS, IN_PART, UNTOLD, Claim, Outcome, Row, Words
from .machinery.section import Section, draw_sections, name_bars, sections
from .machinery.theirs import CANNOT, absent, installed, their_step
from .machinery.training import MODEL_NAMES, PAPER_MODELS, Again, Run
from .machinery.work import Work

WORDS = Words("table1")
PAPER_MIB = {"node": 2469, "anode": 2485, "sonode": 2863, "hbnode": 2891, "ghbnode": 2889, "adamnode": 3531}
OF_DATA = "cifar10"  # the data set of these numbers
THEIRS = "torchdiffeq"  # its `odeint_adjoint`, the paper's way
JUDGED = (THEIRS, "backsolve")  # the continuous adjoint, theirs and ours
# In the order of the table.
ADJOINTS: Mapping[str, Gradient] = {
    "backsolve": Backsolve(),
    "interpolating": Interpolating(),
    "discrete_state": Discrete(keep="state"),
    "discrete_stages": Discrete(keep="stages"),
    "reversible": Reversible(),
    "direct": Direct(),
}
COLUMNS = (THEIRS, *ADJOINTS)
# Of the bars in the picture: name, colour, hatch.
LOOKS = {
    "paper": ("the paper's", "#666666", ""),
    THEIRS: ("torchdiffeq's adjoint", "#F0E442", "oo"),
    "backsolve": ("backsolve", "#0072B2", "///"),
    "interpolating": ("interpolating", "#56B4E9", "..."),
    "discrete_state": ("discrete, states kept", "#009E73", "xxx"),
    "discrete_stages": ("discrete, stages kept", "#D55E00", "\\\\\\"),
    "reversible": ("reversible", "#E69F00", "--"),
    "direct": ("direct (autograd)", "#CC79A7", "++"),
}


@dataclasses.dataclass(frozen=True)
class Table1Settings(training.TrainingSettings):
    """The runs whose weights are taken.

    measured: the models, those that are not trained as they begin.  batch_size: images of the step.
    near: two ratios to NODE count as the same where they differ by no more than this part of the paper's.
    """

    datasets: tuple[str, ...] = ("cifar10",)
    measured: tuple[str, ...] = PAPER_MODELS
    batch_size: int = 64
    near: float = 0.1


SETTINGS = {scale: Table1Settings(**size) for scale, size in training.SIZES.items()}
SETTINGS["smoke"] = dataclasses.replace(SETTINGS["smoke"], batch_size=8)


def compute(settings: Table1Settings, work: Work) -> Outcome:
    """One row a model; the steps themselves, one a model and adjoint, are the variant "steps"."""
    runs, missing = training.training_runs(settings, work, needed=False)
    rows, steps, ones = [], [], []
    for dataset in training.data_sets(settings):
        finished = [run for run in runs if run.dataset == dataset]
        chosen = _of_one_seed(settings, finished, dataset, work)
        if finished and chosen[0].seed != settings.seeds[0]:
            seeds = {"seed": chosen[0].seed, "wanted": settings.seeds[0]}
            missing.append(WORDS.say("other seed", dataset=dataset, **seeds))
        if lack := [MODEL_NAMES[run.model] for run in chosen if not run.history]:
            missing.append(WORDS.say("untrained", dataset=dataset, models=", ".join(lack)))
        mine = [_step(run, name, settings, work) for run in chosen for name in COLUMNS]
        ones += [{"dataset": dataset, "model": run.model, **_one(run, settings, work)} for run in chosen]
        rows += _rows(chosen, mine, finished, settings)
        steps += mine
    failed = [step for step in steps if step["problem"] and step["problem"] != absent()]
    raised = [WORDS.say("raises", name=LOOKS[step["adjoint"]][0], **step) for step in failed]
    missing += [absent()] if absent() else []
    why = [_why(d, [o for o in ones if o["dataset"] == d]) for d in training.data_sets(settings)]
    like = [
        _like(dataset, [row for row in rows if row["dataset"] == dataset]) for dataset in _judged(settings)
    ]
    findings = (*missing, WORDS.say("counted"), *like, *raised, *why)
    return Outcome(rows, {"steps": steps, "evaluations": ones}, findings)


def _judged(settings: Table1Settings) -> list[str]:
    """The data sets that the paper's numbers are of, where none stands in for them."""
    return [] if settings.stand_in else [name for name in training.data_sets(settings) if name == OF_DATA]


def _like(dataset: str, rows: Sequence[Row]) -> str:
    """How the paper's numbers go with those of torchdiffeq's adjoint: on a straight line or not."""
    pairs = [(row[f"mib_{THEIRS}"], row["paper_mib"]) for row in rows if row[f"mib_{THEIRS}"] is not None]
    if len(pairs) < 3:
        return WORDS.say("unlike", dataset=dataset)
    ours, paper = (torch.tensor(column, dtype=torch.float64) for column in zip(*pairs, strict=True))
    away = ours - ours.mean()
    slope = float((away * paper).sum() / away.square().sum())
    start = float(paper.mean()) - slope * float(ours.mean())
    off = float((paper - start - slope * ours).abs().max())
    numbers = {"slope": slope, "start": start, "off": off, "n": len(pairs)}
    return WORDS.say("like", dataset=dataset, above=start > 0 < slope, **numbers)


def _why(dataset: str, ones: Sequence[Row]) -> str:
    """What decides the memory: the width of the network, or the size of the state."""
    most, state = (max(ones, key=lambda one: one[name]) for name in ("evaluation_mib", "state_mib"))
    decide = state["model"] if most["model"] == "node" != state["model"] else None
    return WORDS.say("state", dataset=dataset, each=WORDS.each("state each", ones), decide=decide)


def _of_one_seed(settings: Table1Settings, finished: Sequence[Run], dataset: str, work: Work) -> list[Run]:
    """All models in their order, of the first seed that most have; without a finished run as they begin."""
    of_seed = [{run.model: run for run in finished if run.seed == seed} for seed in settings.seeds]
    found = max(of_seed, key=len)
    seed = settings.seeds[of_seed.index(found)]
    for job in training.plan_runs(
        dataclasses.replace(settings, models=settings.measured, cifar10_models=()), work
    ):
        config = job.config
        if (config.dataset, config.seed) == (dataset, seed) and config.model not in found:
            found[config.model] = training.untrained(config)
    return [found[model] for model in settings.measured]


def _one(run: Run, settings: Table1Settings, work: Work) -> dict[str, float]:
    return work.part(run.piece("evaluation"), lambda: evaluated(run, settings, work))


def _step(run: Run, adjoint: str, settings: Table1Settings, work: Work) -> Row:
    about = {"dataset": run.dataset, "model": run.model, "seed": run.seed, "adjoint": adjoint}
    if adjoint == THEIRS and absent():  # not kept: it may be installed later
        return {**about, **dict.fromkeys(_NUMBERS), "problem": absent()}
    name = run.piece("memory", f"{THEIRS}-{installed()}" if adjoint == THEIRS else adjoint)
    return {**about, **work.part(name, lambda: measured(run, adjoint, settings, work))}


_NUMBERS = ("peak_mib", "with_parameters_mib", "nfe_forward", "nfe_backward")


def measured(run: Run, adjoint: str, settings: Table1Settings, work: Work) -> Row:
    """Peak memory and NFE of one training step of the run's model, or the problem that it met."""
    again = Again(run, work)
    (x, y), own = next(again.batches(1, settings.batch_size)), parameter_bytes(again.model) / MIB
    held = {"batch_size": len(y), "parameters": run.final["parameters"], "parameters_mib": own}

    def step() -> EpochSums:
        return their_step(again, x, y) if adjoint == THEIRS else again.step(x, y, gradient=ADJOINTS[adjoint])

    try:
        sums, peak = metered(step, again.device)
    except (*CANNOT_BE_SOLVED, *CANNOT) as error:
        return {**held, **dict.fromkeys(_NUMBERS), "problem": f"{type(error).__name__}: {error}"}
    return {
        **held,
        "peak_mib": peak / MIB,
        "with_parameters_mib": peak / MIB + own,
        "nfe_forward": sums.mean("nfe_forward"),
        "nfe_backward": sums.mean("nfe_backward") or None,  # autograd's own walk counts nothing
        "problem": "",
    }


def evaluated(run: Run, settings: Table1Settings, work: Work) -> dict[str, float]:
    """MiB of the state z at the block's start, and of one evaluation of f(t, z) with its VJP, alone."""
    again = Again(run, work)
    x, _ = next(again.batches(1, settings.batch_size))
    block: Any = again.model.block
    with torch.no_grad(), start_seen(block) as start, solving_with(again.model, rtol=0.1, atol=0.1):
        again.model(x)
    z = block.state(**{"h0" if name == "h0" else name.rstrip("0"): value for name, value in start.items()})
    t = torch.zeros((), dtype=z.dtype, device=z.device)

    def once() -> None:
        with torch.no_grad():
            dz, saved = block.dynamics.forward(t, z)
            _, deltas = block.dynamics.vjp(saved, torch.ones_like(dz))
            block.dynamics.parameter_gradients([saved], [deltas], None)

    mib = peak_of(once, again.device) / MIB
    return {"state_mib": z.numel() * z.element_size() / MIB, "evaluation_mib": mib}


def _rows(
    chosen: Sequence[Run], steps: Sequence[Row], finished: Sequence[Run], settings: Table1Settings
) -> list[Row]:
    """A row for each model of a data set; finished: all its runs there, to be counted."""
    found = {(step["model"], step["adjoint"]): step for step in steps}
    models = [run.model for run in finished]

    def relative(model: str, adjoint: str) -> float | None:
        mine, node = (found.get((name, adjoint), {}).get("peak_mib") for name in (model, "node"))
        return mine / node if mine and node else None

    def row(run: Run) -> Row:
        model, paper = run.model, training.data_sets(settings)[run.dataset]
        step, judged = found[model, "discrete_stages"], OF_DATA in paper
        return {
            "dataset": run.dataset,
            "stands_for": list(paper),
            "model": model,
            "seeds": f"{models.count(model)} of {len(settings.seeds)} seeds",
            "parameters": run.final["parameters"],
            "weights": f"{len(run.history)} epochs" if run.history else "untrained",
            "nfe_forward": step["nfe_forward"],
            "nfe_backward": step["nfe_backward"],
            "paper_mib": PAPER_MIB[model] if judged else None,
            "paper_relative": PAPER_MIB[model] / PAPER_MIB["node"] if judged else None,
            "batch_size": found[model, "backsolve"]["batch_size"],
            **{f"mib_{name}": found[model, name]["peak_mib"] for name in COLUMNS},
            **{f"relative_{name}": relative(model, name) for name in COLUMNS},
        }

    return [row(run) for run in chosen]


def judge(settings: Table1Settings, outcome: Outcome) -> list[Claim]:
    """By torchdiffeq's adjoint, which the paper's claim is of, and by ours of the same kind."""
    return [
        claim
        for section in sections(settings, outcome.rows)
        for adjoint in JUDGED
        for claim in _claims(settings, section, adjoint)
    ]


def _size(settings: Table1Settings, section: Section) -> int:
    return section.rows[0]["batch_size"] if section.rows else settings.batch_size


def _claims(settings: Table1Settings, section: Section, adjoint: str) -> list[Claim]:
    """That AdamNODE needs the most, and by which factor."""
    judged = OF_DATA in section.stands_for
    about = {"title": section.title, "adjoint": LOOKS[adjoint][0], "judged": judged, "mib_of": PAPER_MIB}
    about |= {"told": judged and not settings.stand_in, "size": _size(settings, section)}
    column = f"mib_{adjoint}"
    mib = {row["model"]: row[column] for row in section.rows if row[column] is not None}
    lack = set(mib) != set(MODEL_NAMES)
    verdict = UNTOLD if lack else HOLDS if max(mib, key=mib.__getitem__) == "adamnode" else FAILS
    each = WORDS.each("mib", mib, ", ")
    about["whose"] = WORDS.say("theirs" if adjoint == THEIRS else "ours")
    most = WORDS.claim("most", verdict, each=each, lack=judged and lack, **about)
    times, near, verdict = PAPER_MIB["adamnode"] / PAPER_MIB["node"], settings.near, UNTOLD
    ratio = next((row[f"relative_{adjoint}"] for row in section.rows if row["model"] == "adamnode"), None)
    if ratio is not None:
        verdict = HOLDS if abs(ratio / times - 1) <= near else IN_PART if ratio > 1 else FAILS
    numbers = {"times": times, "ratio": ratio, "rule": judged and ratio is not None, "near": 100 * near}
    return [most, WORDS.claim("ratio", verdict, **numbers, **about)]


def draw(figure: Any, settings: Table1Settings, outcome: Outcome) -> None:
    """Bars relative to NODE, the paper's first; below them the MiB."""
    for part, section in draw_sections(figure, settings, outcome.rows, height=6.4):
        above, below = part.subplots(2, 1)
        _grouped(above, section.rows, {"paper": "paper_relative", **{n: f"relative_{n}" for n in COLUMNS}})
        above.axhline(1.0, color="black", linewidth=0.8)
        above.set_ylabel("memory ÷ NODE's")
        _grouped(below, section.rows, {name: f"mib_{name}" for name in COLUMNS})
        if section.rows:
            log_scale(below)
        below.set_ylabel("MiB at the peak, tensors only")
        what = f"memory of one training step, a batch of {_size(settings, section)}"
        part.suptitle(f"{section.title}: {what}; the paper's is that of a GPU's process", fontsize=10)
        legend_below(above, ncols=4, fontsize=8)


def _grouped(axis: Any, rows: Sequence[Row], columns: Mapping[str, str]) -> None:
    width = 0.86 / len(columns)
    for k, (name, column) in enumerate(columns.items()):
        places = [i + (k - (len(columns) - 1) / 2) * width for i in range(len(rows))]
        label, colour, hatch = LOOKS[name]
        look = {"color": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0.5}
        axis.bar(places, gaps([row[column] for row in rows]), width, label=label, **look)
    name_bars(axis, [row["model"] for row in rows])


FIGURE = WORDS.figure(SETTINGS, compute, judge, {"table1": (draw, (10.5, 6.4))})
