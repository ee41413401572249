"""What AdamNODE's parts are worth: its denominator, its printed gradient, its way to the gradient. One model.

What the paper says: the denominator is 1/√(v+ε) (Eq. 7), the adjoint Eq. 15; efficacy is accuracy ÷ NFE.
What it leaves open: ε.
What its authors' code does: 1/(√softplus(v)+ε) on MNIST and 1/(√sigmoid(v)+ε) on CIFAR-10, ε = 1e-8, and a
gradient by autograd inside torchdiffeq's adjoint, so that the printed Eq. 15 is not what was trained with.
What is done here: the same model from the same first weights, trained with one part changed at a time. The
exact denominator takes ε = 1e-3, well above the tolerance: with 1e-8 the untrained model needs several times
the evaluations, which is measured on the first batch. One seed, so that differences between lines may be
those of the seed.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import models
from ..adjoint.gradients import Backsolve, Discrete
from ..plotting import LOOKS, legend_below, name_panel
from ..solvers.errors import CheckpointError, SolverError, TrainingError
from ..train.config import TrainConfig
from ..train.data import load_data, model_task
from ..train.device import checked_device
from ..train.position import EpochRecord
from ..train.reproducible import seed_everything
from ..train.runs import RunFolder
from ..train.step import last_stats, on_device
from ..train.trainer import Trainer
from .machinery.figure import FAILS, HOLDS, Claim, Outcome, Words
from .machinery.training import DATA_NAMES, METRICS, epoch_of, run_options
from .machinery.work import Work

WORDS = Words("ablations")


@dataclasses.dataclass(frozen=True)
class Variant:
    """AdamNODE with parts of it chosen. denominator, eps: D(v).  adjoint_form: "paper" is Eq. 15 as printed,
    "paper-rates" the same with the rates put in.  gradient: "discrete" or "backsolve"."""

    name: str
    title: str
    denominator: str = "softplus"
    eps: float = 1e-8
    adjoint_form: str = "exact"
    gradient: str = "discrete"


@dataclasses.dataclass(frozen=True)
class AblationSettings:
    """dataset, seed, epochs, train_size, val_size, test_size, normalise: as in `TrainConfig`.

    exact_eps: ε of the exact denominator.  stands_in: the data are there only to see the figure made.
    """

    dataset: str = "mnist"
    seed: int = 0
    epochs: int = 3
    train_size: int = 320
    val_size: int = 50
    test_size: int = 200
    normalise: str = "unit"
    exact_eps: float = 1e-3
    stands_in: bool = False


SETTINGS = {
    "smoke": AblationSettings("digits", 0, 2, 64, 32, 32, stands_in=True),
    "sample": AblationSettings(),
    "full-small": AblationSettings(epochs=10, train_size=4500, val_size=500, test_size=1000),
    "paper": AblationSettings(epochs=10, train_size=0, val_size=0, test_size=0),
}


def variants(settings: AblationSettings) -> tuple[Variant, ...]:
    """What is trained; the first is the authors' MNIST model, and each other differs from it in one part."""
    eps = settings.exact_eps
    return (
        Variant("released", "softplus (released for MNIST)"),
        Variant("sigmoid", "sigmoid (released for CIFAR-10)", denominator="sigmoid"),
        Variant("exact", f"exact, ε = {eps:g} (Eq. 7)", denominator="exact", eps=eps),
        Variant("printed", "gradient as printed (Eq. 15)", adjoint_form="paper"),
        Variant("printed-rates", "the same with the rates", adjoint_form="paper-rates"),
        Variant("backsolve", "gradient by backsolve", gradient="backsolve"),
    )


def config_of(variant: Variant, settings: AblationSettings, work: Work) -> TrainConfig:
    """The run of a variant. ε and the form of the adjoint are no settings of a run: its name says them."""
    return TrainConfig(
        **run_options(settings, work.allowed),
        model="adamnode",
        dataset=settings.dataset,
        seed=settings.seed,
        denominator=variant.denominator,
        gradient=variant.gradient,
        checkpoint_every=5,
        output_dir=str(work.folder / "runs"),
        name=f"adamnode-{settings.dataset}-{variant.name}-eps={variant.eps:g}-form={variant.adjoint_form}",
    )


def build(config: TrainConfig, variant: Variant) -> nn.Module:
    """The registered AdamNODE with the variant's ε and form, which a run's configuration does not have."""
    return models.create(
        "adamnode",
        task=model_task(config.dataset),
        **{name: getattr(variant, name) for name in ("denominator", "eps", "adjoint_form")},
        gradient=Backsolve() if variant.gradient == "backsolve" else Discrete(),
        **{name: getattr(config, name) for name in ("rtol", "atol", "method", "stepping")},
    )


def compute(settings: AblationSettings, work: Work) -> Outcome:
    """One row a variant; the variant "first_batch" is what the untrained model says about its gradients."""
    rows, findings = [], []
    for variant in variants(settings):
        part = f"train-{variant.name}"
        if work.allowed.jobs == 0 and not (work.folder / "parts" / f"{part}.json").exists():
            findings.append(WORDS.say("not trained", title=variant.title))
            continue
        try:
            history = work.part(part, functools.partial(_trained, variant, settings, work))
        except TrainingError as error:  # no finished piece: the next call goes on with it
            findings.append(WORDS.say("failed", title=variant.title, error=str(error)))
            history = _history_of(config_of(variant, settings, work))
        rows.append(_row(variant, settings, history))
    if not rows:
        raise CheckpointError(
            f"{str(work.folder)!r} holds no trained variant, and nothing may be trained: allow --jobs 1."
        )
    first = work.part("first-batch", lambda: first_batch(settings, work))
    each = WORDS.each("first batch each", first["nfe_forward"], ", ")
    findings.append(WORDS.say("first batch", each=each))
    findings.append(WORDS.say("one seed", seed=settings.seed))
    return Outcome(rows, {"first_batch": first}, tuple(findings))


def _trained(variant: Variant, settings: AblationSettings, work: Work) -> list[dict[str, Any]]:
    config = config_of(variant, settings, work)

    def on_epoch(record: EpochRecord) -> None:
        epoch, loss, seconds = (record.row[name] for name in ("epoch", "train_loss", "seconds"))
        said = f"epoch {epoch} of {config.epochs}, loss {loss:.4g}, {seconds:.0f} s"
        work.allowed.say(f"{work.folder.name}: {variant.name}: {said}")

    trainer = Trainer(config, build=lambda c: build(c, variant), on_epoch=on_epoch, quiet=True)
    finished = any(row.get("final") for row in trainer.folder.read_metrics())
    result = trainer.fit(resume=trainer.folder.checkpoint.exists() and not finished)
    return [epoch_of(row) for row in result.history]


def _history_of(config: TrainConfig) -> list[dict[str, Any]]:
    """The finished epochs of a run."""
    return [epoch_of(row) for row in RunFolder(config.folder).read_metrics() if not row.get("final")]


def _row(variant: Variant, settings: AblationSettings, history: Sequence[dict[str, Any]]) -> dict[str, Any]:
    last, parts = history[-1] if history else {}, dataclasses.asdict(variant)
    seconds = sum(epoch["seconds"] for epoch in history)
    return {
        "model": "adamnode",
        "variant": parts.pop("name"),
        "dataset": settings.dataset,
        **parts,
        "seed": settings.seed,
        "epochs": len(history),
        **{name: last.get(name) for name in METRICS},
        "seconds_per_epoch": seconds / len(history) if history else None,
        "history": list(history),
    }


def first_batch(settings: AblationSettings, work: Work) -> dict[str, Any]:
    """Of the untrained model on the first training images: NFE forward by denominator, and the gradients of
    the printed forms (of everything before the head) against the exact one.

    relative_error: ‖g − g_exact‖ ÷ ‖g_exact‖.  cosine: of the angle between them.
    """
    released, *others = variants(settings)
    config = config_of(released, settings, work)
    data = load_data(config.dataset, config.data_options())
    images = data.train.__getitems__(list(range(min(config.batch_size, len(data.train)))))
    x, y = on_device(images, checked_device(config.device), getattr(torch, config.dtype))

    def untrained(variant: Variant) -> nn.Module:
        seed_everything(config.seed)
        return build(config, variant).to(x.device, x.dtype)

    stiff = Variant("exact-released-eps", "exact, ε = 1e-8", denominator="exact")
    plain = [v for v in others if v.adjoint_form == "exact" and v.gradient == "discrete"]
    nfe = {f"{v.denominator}, ε = {v.eps:g}": _nfe(untrained(v), x) for v in (released, *plain, stiff)}
    exact, forms = _gradient(untrained(released), x, y), {}
    for variant in (v for v in others if v.adjoint_form != "exact"):
        wrong = _gradient(untrained(variant), x, y)
        forms[variant.adjoint_form] = {
            "relative_error": float((wrong - exact).norm() / exact.norm()),
            "cosine": float(wrong @ exact / (wrong.norm() * exact.norm())),
        }
    return {"images": len(y), "nfe_forward": nfe, "gradient": forms}


def _nfe(model: nn.Module, x: Tensor) -> float | None:
    """None where it cannot be solved."""
    try:
        with torch.no_grad():
            model(x)
    except SolverError:
        return None
    return float(last_stats(model).nfe)


def _gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    nn.functional.cross_entropy(model(x), y).backward()
    before = [p.grad for name, p in model.named_parameters() if not name.startswith("head.")]
    return torch.cat([grad.double().flatten() for grad in before if grad is not None])


def judge(settings: AblationSettings, outcome: Outcome) -> list[Claim]:
    """The printed adjoint against the exact one; nothing else here is a claim of the paper."""
    names = {"released": "exact", "printed": "as printed", "printed-rates": "with the rates"}
    found = {row["variant"]: row for row in outcome.rows if row["train_loss"] is not None}
    losses = [{**found[variant], "name": name} for variant, name in names.items() if variant in found]
    printed = outcome.variants["first_batch"]["gradient"]["paper"]
    off, told = printed["relative_error"], WORDS.each("loss", losses) or "none finished"
    numbers = {"off": 100 * off, "cosine": printed["cosine"], "epochs": settings.epochs}
    verdict = HOLDS if off <= 0.01 else FAILS
    return [WORDS.claim("printed", verdict, told=not settings.stands_in, losses=told, **numbers)]


def draw(figure: Any, settings: AblationSettings, outcome: Outcome) -> None:
    """Loss and accuracy over the epochs; accuracy over evaluations and over seconds."""
    axes = figure.subplots(2, 2)
    looks = {v.name: look for v, look in zip(variants(settings), LOOKS, strict=True)}
    for row in outcome.rows:
        columns = ("epoch", "train_loss", "test_accuracy", "nfe_forward", "nfe_backward", "seconds")
        of = {name: [epoch[name] for epoch in row["history"]] for name in columns}
        epochs, accuracy = of["epoch"], of["test_accuracy"]
        nfe = map(sum, zip(of["nfe_forward"], of["nfe_backward"], strict=True))
        so_far = (list(itertools.accumulate(each)) for each in (nfe, of["seconds"]))
        lines = ((epochs, of["train_loss"]), (epochs, accuracy), *((x, accuracy) for x in so_far))
        for axis, (x, y) in zip(axes.flat, lines, strict=True):
            axis.plot(x, y, label=row["title"], markersize=4.5, linewidth=1.3, **looks[row["variant"]])
    for axis, (title, below) in zip(axes.flat, WORDS.table("panels").items(), strict=True):
        name_panel(axis, title, below)
    sizes = f"{settings.train_size:,} training, {settings.test_size:,} test"
    where = f"{DATA_NAMES[settings.dataset]}{', standing in for MNIST' * settings.stands_in}"
    of_all = f"{sizes if settings.train_size else 'all'} images, {settings.epochs} epochs, 1 seed"
    figure.suptitle(f"AdamNODE on {where}: {of_all}", fontsize=10)
    legend_below(axes[0, 0], ncols=3, handlelength=3.2)


FIGURE = WORDS.figure(SETTINGS, compute, judge, {"ablations": (draw, (10.5, 7.5))})
