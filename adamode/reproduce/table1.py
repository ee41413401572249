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
finished); on the CPU by the storages of all
tensors (`memory.LiveStorage`), on CUDA by torch's allocator.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..adjoint.gradient import Backsolve, Direct, Discrete, Gradient, Interpolating
from ..train.evaluation import LoadedRun
from ..train.metrics import EpochSums
from ..train.objective import Objective
from ..train.step import CANNOT_BE_SOLVED, descend, solving_with, start_seen
from .machinery.curves import log_scale
from .machinery.figure import FAILS, HOLDS, IN_PART, UNTOLD, Claim, Figure, Outcome, Picture
from .machinery.memory import MIB, parameter_bytes, peak_of
from .machinery.section import draw_sections, sections
from .machinery.training import (
    MODEL_NAMES,
    SIZES,
    Run,
    TrainingSettings,
    data_sets,
    first_batches,
    loaded_again,
    plan_runs,
    training_runs,
    untrained,
)
from .machinery.work import Work

PAPER_MIB = {"node": 2469, "anode": 2485, "sonode": 2863, "hbnode": 2891, "ghbnode": 2889, "adamnode": 3531}
OF_DATA = "cifar10"  # the data set of these numbers
# In the order of the table: the paper's way first.
ADJOINTS: Mapping[str, Gradient] = {
    "backsolve": Backsolve(),
    "interpolating": Interpolating(),
    "discrete_state": Discrete(keep="state"),
    "discrete_stages": Discrete(keep="stages"),
    "direct": Direct(),
}
ADJOINT_NAMES = {
    "backsolve": "backsolve",
    "interpolating": "interpolating",
    "discrete_state": "discrete, states kept",
    "discrete_stages": "discrete, stages kept",
    "direct": "direct (autograd)",
}


@dataclasses.dataclass(frozen=True)
class Table1Settings(TrainingSettings):
    """The runs whose weights are taken.

    batch_size: images of the step.  near: two ratios to NODE count as the same where they differ by no
    more than this part of the paper's.
    """

    datasets: tuple[str, ...] = ("cifar10",)
    batch_size: int = 64
    near: float = 0.1


SETTINGS = {scale: Table1Settings(**size) for scale, size in SIZES.items()}
SETTINGS["smoke"] = dataclasses.replace(SETTINGS["smoke"], batch_size=8)


def compute(settings: Table1Settings, work: Work) -> Outcome:
    """One row a model; the steps themselves, one a model and adjoint, are the variant "steps"."""
    runs, missing = training_runs(settings, work, needed=False)
    stands_for = data_sets(settings)
    rows, steps, ones = [], [], []
    for dataset, paper in stands_for.items():
        first = _of_one_seed(settings, [run for run in runs if run.dataset == dataset])
        if first and first[0].seed != settings.seeds[0]:
            missing.append(f"{dataset}: weights of seed {first[0].seed}, not {settings.seeds[0]}.")
        first = _with_untrained(first, dataset, settings, work)
        if lack := [MODEL_NAMES[run.model] for run in first if not run.history]:
            missing.append(f"{dataset}: no finished run, so untrained weights of {', '.join(lack)}.")
        mine = [_step(run, name, settings, work) for run in first for name in ADJOINTS]
        ones += [{"dataset": dataset, "model": run.model, **_one(run, settings, work)} for run in first]
        rows += _rows(first, mine, paper, [run for run in runs if run.dataset == dataset], settings)
        steps += mine
    findings = [
        *missing,
        "MiB are the tensors that lived at most during one forward and backward pass, above what lived "
        "before (parameters and the batch); the paper's are of a GPU's process, with CUDA's context and "
        "workspaces, and of torchdiffeq 0.2.2's adjoint, which has θ in its state. Compare the ratios to "
        "NODE, roughly.",
        *(
            f"{ADJOINT_NAMES[step['adjoint']]} raises for {MODEL_NAMES[step['model']]}: {step['problem']}"
            for step in steps
            if step["problem"]
        ),
    ]
    findings += [_why(dataset, [o for o in ones if o["dataset"] == dataset]) for dataset in stands_for]
    return Outcome(rows, {"steps": steps, "evaluations": ones}, tuple(findings))


def _why(dataset: str, ones: Sequence[Mapping[str, Any]]) -> str:
    """What decides the memory: the width of the network, or the size of the state."""
    told = "; ".join(
        f"{MODEL_NAMES[o['model']]} {o['state_mib']:.1f}, {o['evaluation_mib']:.0f}" for o in ones
    )
    return (
        f"{dataset}: MiB of the state, and of one evaluation of f with its VJP: {told}. Sizes are matched in "
        "parameters, so models with more channels have the narrower network. Every way back here keeps the "
        "activations of a step's evaluations at least, as the parameters' gradients of a step are one "
        "product a layer; where, as in torchdiffeq, an adjoint's stages hold states and adjoints, and one "
        f"evaluation at a time has a graph, memory grows with the state.{_widest(ones)}"
    )


def _widest(ones: Sequence[Mapping[str, Any]]) -> str:
    """What follows where NODE's network, the widest, needs the most for an evaluation."""
    most = max(ones, key=lambda one: one["evaluation_mib"])
    state = max(ones, key=lambda one: one["state_mib"])
    if most["model"] != "node" or state["model"] == "node":
        return ""
    return (
        " Here the activations decide, and NODE's network is the widest; its state is not the largest, "
        f"which is {MODEL_NAMES[state['model']]}'s."
    )


def _one(run: Run, settings: Table1Settings, work: Work) -> dict[str, float]:
    return work.part(
        f"evaluation-{run.dataset}-{run.model}-seed={run.seed}{'' if run.history else '-untrained'}",
        lambda: evaluated(run, settings, work),
    )


def _of_one_seed(settings: Table1Settings, runs: Sequence[Run]) -> list[Run]:
    """The runs of the first seed that most models have."""
    best: list[Run] = []
    for seed in settings.seeds:
        mine = [run for run in runs if run.seed == seed]
        best = mine if len(mine) > len(best) else best
    return best


def _with_untrained(runs: Sequence[Run], dataset: str, settings: Table1Settings, work: Work) -> list[Run]:
    """All models in their order; those without a finished run as they would begin."""
    found = {run.model: run for run in runs}
    seed = runs[0].seed if runs else settings.seeds[0]
    for job in plan_runs(settings, work):
        config = job.config
        if (config.dataset, config.seed) == (dataset, seed) and config.model not in found:
            found[config.model] = untrained(config)
    return [found[model] for model in settings.models]


def _step(run: Run, adjoint: str, settings: Table1Settings, work: Work) -> dict[str, Any]:
    step = work.part(
        f"memory-{run.dataset}-{run.model}-{adjoint}-seed={run.seed}{'' if run.history else '-untrained'}",
        lambda: measured(run, ADJOINTS[adjoint], settings, work),
    )
    return {"dataset": run.dataset, "model": run.model, "seed": run.seed, "adjoint": adjoint, **step}


def measured(run: Run, gradient: Gradient, settings: Table1Settings, work: Work) -> dict[str, Any]:
    """Peak memory and NFE of one training step of the run's model, or the problem that it met."""
    loaded, data = loaded_again(run, work)
    x, y = next(first_batches(loaded, data, settings.batch_size))
    held = {
        "batch_size": len(y),
        "parameters": run.final["parameters"],
        "parameters_mib": parameter_bytes(loaded.model) / MIB,
    }
    sums: list[EpochSums] = []
    try:
        peak = peak_of(
            lambda: sums.append(_descend(loaded, Objective.of(data), x, y, gradient)), loaded.device
        )
    except CANNOT_BE_SOLVED as error:
        empty = {"peak_mib": None, "with_parameters_mib": None, "nfe_forward": None, "nfe_backward": None}
        return {**held, **empty, "problem": f"{type(error).__name__}: {error}"}
    return {
        **held,
        "peak_mib": peak / MIB,
        "with_parameters_mib": (peak + parameter_bytes(loaded.model)) / MIB,
        "nfe_forward": sums[0].mean("nfe_forward"),
        "nfe_backward": sums[0].mean("nfe_backward") or None,  # autograd's own walk counts nothing
        "problem": "",
    }


def evaluated(run: Run, settings: Table1Settings, work: Work) -> dict[str, float]:
    """MiB of the state z at the block's start, and of one evaluation of f(t, z) with its VJP, alone."""
    loaded, data = loaded_again(run, work)
    x, _ = next(first_batches(loaded, data, settings.batch_size))
    block: Any = loaded.model.block
    with torch.no_grad(), start_seen(block) as start, solving_with(loaded.model, rtol=0.1, atol=0.1):
        loaded.model(x)
    z = block.state(**{"h0" if name == "h0" else name.rstrip("0"): value for name, value in start.items()})
    t = torch.zeros((), dtype=z.dtype, device=z.device)

    def once() -> None:
        with torch.no_grad():
            dz, saved = block.dynamics.forward(t, z)
            _, deltas = block.dynamics.vjp(saved, torch.ones_like(dz))
            block.dynamics.parameter_gradients([saved], [deltas], None)

    return {
        "state_mib": z.numel() * z.element_size() / MIB,
        "evaluation_mib": peak_of(once, loaded.device) / MIB,
    }


def _descend(loaded: LoadedRun, objective: Objective, x: Any, y: Any, gradient: Gradient) -> EpochSums:
    model = loaded.model.train()
    with solving_with(model, gradient=gradient):
        return descend(model, x, y, objective, total=len(y), parts=1, amp=loaded.config.amp)


def _rows(
    first: Sequence[Run],
    steps: Sequence[dict[str, Any]],
    paper: Sequence[str],
    runs: Sequence[Run],
    settings: Table1Settings,
) -> list[dict[str, Any]]:
    found = {(step["model"], step["adjoint"]): step for step in steps}
    rows, judged = [], OF_DATA in paper
    for run in first:
        mine = [other for other in runs if other.model == run.model]
        step = found[run.model, "discrete_stages"]
        row = {
            "dataset": run.dataset,
            "stands_for": list(paper),
            "model": run.model,
            "seeds": f"{len(mine)} of {len(settings.seeds)} seeds",
            "parameters": run.final["parameters"],
            "weights": f"{len(run.history)} epochs" if run.history else "untrained",
            "nfe_forward": step["nfe_forward"],
            "nfe_backward": step["nfe_backward"],
            "paper_mib": PAPER_MIB[run.model] if judged else None,
            "paper_relative": PAPER_MIB[run.model] / PAPER_MIB["node"] if judged else None,
            "batch_size": found[run.model, "backsolve"]["batch_size"],
        }
        for name in ADJOINTS:
            step, node = found[run.model, name], found.get(("node", name))
            row[f"mib_{name}"] = step["peak_mib"]
            row[f"relative_{name}"] = (
                step["peak_mib"] / node["peak_mib"]
                if node and node["peak_mib"] and step["peak_mib"]
                else None
            )
        rows.append(row)
    return rows


def judge(settings: Table1Settings, outcome: Outcome) -> list[Claim]:
    """By backsolve, the paper's way, and by the exact derivative of the steps, the default of training."""
    claims = []
    for section in sections(settings, outcome.rows):
        rows = {row["model"]: row for row in section.rows}
        size = next((row["batch_size"] for row in rows.values()), settings.batch_size)
        why = f"{section.title}, a batch of {size}, one set of weights a model; bytes of tensors."
        for name in ("backsolve", "discrete_stages"):
            for claim in (_most(rows, name), _ratio(rows, name, settings)):
                if OF_DATA not in section.stands_for:
                    claim = dataclasses.replace(claim, paper="none: its table is of CIFAR-10", why="")
                untold = settings.stand_in or OF_DATA not in section.stands_for
                verdict = UNTOLD if untold else claim.verdict
                claims.append(dataclasses.replace(claim, verdict=verdict, why=f"{claim.why} {why}".strip()))
    return claims


def _most(rows: Mapping[str, dict[str, Any]], name: str) -> Claim:
    claim = f"AdamNODE needs the most memory of the six ({ADJOINT_NAMES[name]})"
    mib = {model: row[f"mib_{name}"] for model, row in rows.items() if row[f"mib_{name}"] is not None}
    told = ", ".join(f"{MODEL_NAMES[model]} {value:.1f}" for model, value in mib.items())
    if set(mib) != set(MODEL_NAMES):
        return Claim(
            claim, "3531 MiB, NODE 2469", f"MiB: {told}" if told else "none", UNTOLD, "Some are missing."
        )
    verdict = HOLDS if max(mib, key=mib.__getitem__) == "adamnode" else FAILS
    return Claim(claim, "3531 MiB, NODE 2469", f"MiB: {told}", verdict)


def _ratio(rows: Mapping[str, dict[str, Any]], name: str, settings: Table1Settings) -> Claim:
    paper = PAPER_MIB["adamnode"] / PAPER_MIB["node"]
    claim = f"AdamNODE needs {paper:.2f} times NODE's memory ({ADJOINT_NAMES[name]})"
    ratio = rows.get("adamnode", {}).get(f"relative_{name}")
    if ratio is None:
        return Claim(claim, f"{paper:.2f}", "not measured", UNTOLD)
    near = abs(ratio / paper - 1) <= settings.near
    verdict = HOLDS if near else IN_PART if ratio > 1 else FAILS
    why = f"Holds within {100 * settings.near:.0f} % of the ratio, in part where it is at least above 1."
    return Claim(claim, f"{paper:.2f}", f"{ratio:.2f}", verdict, why)


_BARS = (
    ("paper", {"color": "#666666"}),
    ("backsolve", {"color": "#0072B2", "hatch": "///"}),
    ("interpolating", {"color": "#56B4E9", "hatch": "..."}),
    ("discrete_state", {"color": "#009E73", "hatch": "xxx"}),
    ("discrete_stages", {"color": "#D55E00", "hatch": "\\\\\\"}),
    ("direct", {"color": "#CC79A7", "hatch": "++"}),
)


def draw(figure: Any, settings: Table1Settings, outcome: Outcome) -> None:
    """Bars relative to NODE, the paper's first; below them the MiB."""
    for part, section in draw_sections(figure, settings, outcome.rows, height=6.4):
        rows = section.rows
        size = rows[0]["batch_size"] if rows else settings.batch_size
        above, below = part.subplots(2, 1)
        _grouped(
            above,
            rows,
            {name: f"{'paper_' if name == 'paper' else ''}relative{_tail(name)}" for name, _ in _BARS},
        )
        above.axhline(1.0, color="black", linewidth=0.8)
        above.set_ylabel("memory ÷ NODE's")
        _grouped(below, rows, {name: f"mib_{name}" for name, _ in _BARS if name != "paper"})
        if rows:
            log_scale(below)
        below.set_ylabel("MiB at the peak, tensors only")
        part.suptitle(
            f"{section.title}: memory of one training step, a batch of {size}; the paper's is "
            "that of a GPU's process",
            fontsize=10,
        )
        part.legend(*above.get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=8)


def _tail(name: str) -> str:
    return "" if name == "paper" else f"_{name}"


def _grouped(axis: Any, rows: Sequence[dict[str, Any]], columns: Mapping[str, str]) -> None:
    looks, width = dict(_BARS), 0.86 / len(columns)
    for k, (name, column) in enumerate(columns.items()):
        places = [i + (k - (len(columns) - 1) / 2) * width for i in range(len(rows))]
        heights = [row[column] if row[column] is not None else float("nan") for row in rows]
        label = "the paper's" if name == "paper" else ADJOINT_NAMES[name]
        axis.bar(places, heights, width, label=label, edgecolor="white", linewidth=0.5, **looks[name])
    axis.set_xticks(range(len(rows)), [MODEL_NAMES[row["model"]] for row in rows])
    axis.grid(visible=False, axis="x")


FIGURE = Figure(
    name="table1",
    title="Table 1: memory",
    says="On CIFAR-10 AdamNODE needs the most memory of the six, 1.43 times NODE's.",
    settings=SETTINGS,
    compute=compute,
    judge=judge,
    pictures={
        "table1": Picture(
            draw,
            (10.5, 6.4),
            "Peak memory of one training step relative to NODE's, the paper's beside that of each way to the "
            "gradient, and below it in MiB. Only tensors are counted; the paper's numbers have a GPU's "
            "context and workspaces in them.",
        )
    },
    columns={
        "dataset": "data",
        "model": "model",
        "seeds": "finished",
        "parameters": "parameters",
        "weights": "weights",
        "nfe_forward": "NFE forward (this step)",
        "nfe_backward": "NFE backward",
        "paper_mib": "paper, MiB",
        "paper_relative": "paper ÷ NODE",
        "mib_backsolve": "backsolve, MiB",
        "relative_backsolve": "÷ NODE",
        "mib_interpolating": "interpolating, MiB",
        "mib_discrete_state": "discrete, states kept, MiB",
        "mib_discrete_stages": "discrete, stages kept, MiB",
        "relative_discrete_stages": "÷ NODE (stages kept)",
        "mib_direct": "direct, MiB",
    },
)
