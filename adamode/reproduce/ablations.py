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
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import models
from ..adjoint.gradient import Backsolve, Discrete
from ..plotting import LOOKS
from ..solvers.errors import CheckpointError, SolverError, TrainingError
from ..train.config import TrainConfig
from ..train.data import load_data, model_task
from ..train.device import checked_device
from ..train.metrics import last_stats
from ..train.position import EpochRecord
from ..train.reproducible import seed_everything
from ..train.runs import RunFolder
from ..train.step import on_device
from ..train.trainer import Trainer
from .machinery.training import epoch_of
from .machinery.curves import whole_numbers
from .machinery.figure import FAILS, HOLDS, UNTOLD, Claim, Figure, Outcome, Picture
from .machinery.training import DATA_NAMES
from .machinery.work import Work


@dataclasses.dataclass(frozen=True)
class Variant:
    """AdamNODE with parts of it chosen. denominator, eps: D(v).  form: of the adjoint ("paper" is Eq. 15 as
    printed, "paper-rates" the same with the rates put in).  gradient: "discrete" or "backsolve"."""

    name: str
    title: str
    denominator: str = "softplus"
    eps: float = 1e-8
    form: str = "exact"
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
    "paper": AblationSettings(epochs=10, train_size=0, val_size=0, test_size=0),
}


def variants(settings: AblationSettings) -> tuple[Variant, ...]:
    """What is trained; the first is the authors' MNIST model, and each other differs from it in one part."""
    return (
        Variant("released", "softplus (released for MNIST)"),
        Variant("sigmoid", "sigmoid (released for CIFAR-10)", denominator="sigmoid"),
        Variant(
            "exact", f"exact, ε = {settings.exact_eps:g} (Eq. 7)", denominator="exact", eps=settings.exact_eps
        ),
        Variant("printed", "gradient as printed (Eq. 15)", form="paper"),
        Variant("printed-rates", "the same with the rates", form="paper-rates"),
        Variant("backsolve", "gradient by backsolve", gradient="backsolve"),
    )


def config_of(variant: Variant, settings: AblationSettings, work: Work) -> TrainConfig:
    """The run of a variant. ε and the form of the adjoint are no settings of a run: its name says them."""
    return TrainConfig(
        model="adamnode",
        dataset=settings.dataset,
        epochs=settings.epochs,
        seed=settings.seed,
        denominator=variant.denominator,
        gradient=variant.gradient,
        train_size=settings.train_size,
        val_size=settings.val_size,
        test_size=settings.test_size,
        normalise=settings.normalise,
        test_every_epoch=True,
        checkpoint_every=5,
        data_dir=work.allowed.data_dir,
        device=work.allowed.device,
        threads=work.allowed.threads,
        output_dir=str(work.folder / "runs"),
        name=f"adamnode-{settings.dataset}-{variant.name}-eps={variant.eps:g}-form={variant.form}",
    )


def build(config: TrainConfig, variant: Variant) -> nn.Module:
    """The registered AdamNODE with the variant's ε and form, which a run's configuration does not have."""
    return models.create(
        "adamnode",
        task=model_task(config.dataset),
        denominator=variant.denominator,
        eps=variant.eps,
        adjoint_form=variant.form,
        gradient=Backsolve() if variant.gradient == "backsolve" else Discrete(),
        rtol=config.rtol,
        atol=config.atol,
        method=config.method,
        stepping=config.stepping,
    )


def compute(settings: AblationSettings, work: Work) -> Outcome:
    """One row a variant; the variant "first_batch" is what the untrained model says about its gradients."""
    rows, findings = [], []
    for variant in variants(settings):
        part = f"train-{variant.name}"
        if work.allowed.jobs == 0 and not (work.folder / "parts" / f"{part}.json").exists():
            findings.append(f"{variant.title}: not trained yet.")
            continue
        try:
            history = work.part(part, functools.partial(_trained, variant, settings, work))
        except TrainingError as error:  # no finished piece: the next call goes on with it
            findings.append(f"{variant.title}: {error}")
            history = _history_of(config_of(variant, settings, work))
        rows.append(_row(variant, settings, history))
    if not rows:
        raise CheckpointError(
            f"{str(work.folder)!r} holds no trained variant, and nothing may be trained: allow --jobs 1."
        )
    first = work.part("first-batch", lambda: first_batch(settings, work))
    told = ", ".join(f"{name} {nfe or 'not solved'}" for name, nfe in first["nfe_forward"].items())
    findings.append(f"NFE of the untrained model's first batch: {told}.")
    findings.append(f"One seed, {settings.seed}: differences between variants may be those of the seed.")
    return Outcome(rows, {"first_batch": first}, tuple(findings))


def _trained(variant: Variant, settings: AblationSettings, work: Work) -> list[dict[str, Any]]:
    config = config_of(variant, settings, work)

    def on_epoch(record: EpochRecord) -> None:
        row = record.row
        said = (
            f"epoch {row['epoch']} of {config.epochs}, loss {row['train_loss']:.4g}, {row['seconds']:.0f} s"
        )
        work.allowed.say(f"{work.folder.name}: {variant.name}: {said}")

    trainer = Trainer(config, build=lambda c: build(c, variant), on_epoch=on_epoch, quiet=True)
    result = trainer.fit(resume=trainer.folder.checkpoint.exists() and not _finished(trainer))
    return [epoch_of(row) for row in result.history]


def _history_of(config: TrainConfig) -> list[dict[str, Any]]:
    """The finished epochs of a run."""
    return [epoch_of(row) for row in RunFolder(config.folder).read_metrics() if not row.get("final")]


def _finished(trainer: Trainer) -> bool:
    return any(row.get("final") for row in trainer.folder.read_metrics())


def _row(variant: Variant, settings: AblationSettings, history: Sequence[dict[str, Any]]) -> dict[str, Any]:
    last = history[-1] if history else {}
    names = (
        "train_loss",
        "test_accuracy",
        "nfe_forward",
        "nfe_backward",
        "efficacy_forward",
        "efficacy_backward",
    )
    return {
        "model": "adamnode",
        "variant": variant.name,
        "title": variant.title,
        "dataset": settings.dataset,
        "denominator": variant.denominator,
        "eps": variant.eps,
        "adjoint_form": variant.form,
        "gradient": variant.gradient,
        "seed": settings.seed,
        "epochs": len(history),
        **{name: last.get(name) for name in names},
        "seconds_per_epoch": sum(epoch["seconds"] for epoch in history) / len(history) if history else None,
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
    indices = list(range(min(config.batch_size, len(data.train))))
    dtype = getattr(torch, config.dtype)
    x, y = on_device(data.train.__getitems__(indices), checked_device(config.device), dtype)
    stiff = Variant("exact-released-eps", "exact, ε = 1e-8", denominator="exact")
    nfe: dict[str, float | None] = {}
    for variant in (released, *(v for v in others if v.form == "exact" and v.gradient == "discrete"), stiff):
        nfe[f"{variant.denominator}, ε = {variant.eps:g}"] = _nfe(_untrained(config, variant, x), x)
    exact = _gradient(_untrained(config, released, x), x, y)
    forms = {}
    for variant in others:
        if variant.form != "exact":
            wrong = _gradient(_untrained(config, variant, x), x, y)
            forms[variant.form] = {
                "relative_error": float((wrong - exact).norm() / exact.norm()),
                "cosine": float(wrong @ exact / (wrong.norm() * exact.norm())),
            }
    return {"images": len(y), "nfe_forward": nfe, "gradient": forms}


def _untrained(config: TrainConfig, variant: Variant, x: Tensor) -> nn.Module:
    seed_everything(config.seed)
    return build(config, variant).to(x.device, x.dtype)


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
    rows = {row["variant"]: row for row in outcome.rows}
    printed = outcome.variants["first_batch"]["gradient"]["paper"]
    off = printed["relative_error"]
    losses = [
        f"{words} {rows[name]['train_loss']:.4g}"
        for name, words in (
            ("released", "exact"),
            ("printed", "as printed"),
            ("printed-rates", "with the rates"),
        )
        if name in rows and rows[name]["train_loss"] is not None
    ]
    verdict = HOLDS if off <= 0.01 else FAILS
    return [
        Claim(
            "The adjoint of Eq. 15 gives the gradient of the loss",
            "exact",
            f"{100 * off:.0f} % off on the first batch, cosine {printed['cosine']:.3f}",
            UNTOLD if settings.stands_in else verdict,
            f"Against the exact derivative of the same steps. Training loss after {settings.epochs} epochs, "
            f"one seed: {'; '.join(losses) or 'none finished'}. It holds where off by 1 % at most.",
        )
    ]


def draw(figure: Any, settings: AblationSettings, outcome: Outcome) -> None:
    """Loss and accuracy over the epochs; accuracy over evaluations and over seconds."""
    axes = figure.subplots(2, 2)
    looks = {v.name: look for v, look in zip(variants(settings), LOOKS, strict=True)}
    for row in outcome.rows:
        history = row["history"]
        loss, accuracy = ([epoch[name] for epoch in history] for name in ("train_loss", "test_accuracy"))
        epochs = [epoch["epoch"] for epoch in history]
        nfe = _so_far([epoch["nfe_forward"] + epoch["nfe_backward"] for epoch in history])
        seconds = _so_far([epoch["seconds"] for epoch in history])
        panels = ((epochs, loss), (epochs, accuracy), (nfe, accuracy), (seconds, accuracy))
        for axis, (x, y) in zip(axes.flat, panels, strict=True):
            axis.plot(x, y, label=row["title"], markersize=4.5, linewidth=1.3, **looks[row["variant"]])
    labels = (
        ("training loss", "epoch"),
        ("test accuracy", "epoch"),
        ("test accuracy over evaluations", "NFE forward + backward of a batch, summed over the epochs"),
        ("test accuracy over time", "seconds of training so far"),
    )
    for axis, (title, below) in zip(axes.flat, labels, strict=True):
        axis.set_title(title, fontsize=9)
        axis.set_xlabel(below)
    for axis in axes[0]:
        whole_numbers(axis)
    images = (
        f"{settings.train_size:,} training, {settings.test_size:,} test" if settings.train_size else "all"
    )
    figure.suptitle(
        f"AdamNODE on {DATA_NAMES[settings.dataset]}{', standing in for MNIST' * settings.stands_in}: "
        f"{images} images, {settings.epochs} epochs, 1 seed",
        fontsize=10,
    )
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, handlelength=3.2)


def _so_far(values: Sequence[float]) -> list[float]:
    return [sum(values[: k + 1]) for k in range(len(values))]


FIGURE = Figure(
    name="ablations",
    title="What AdamNODE's parts are worth",
    says="AdamNODE is Eq. 7 with the denominator 1/√(v+ε), trained with the adjoint of Eq. 15.",
    settings=SETTINGS,
    compute=compute,
    judge=judge,
    pictures={
        "ablations": Picture(
            draw,
            (10.5, 7.5),
            "AdamNODE trained from the same first weights with one part changed at a time: its denominator, "
            "the gradient as Eq. 15 prints it, the way to the gradient. Loss and accuracy over the epochs, "
            "and accuracy over the evaluations and the seconds that training took.",
        )
    },
    columns={
        "title": "variant",
        "denominator": "denominator",
        "eps": "ε",
        "adjoint_form": "adjoint",
        "gradient": "gradient",
        "epochs": "epochs",
        "train_loss": "training loss",
        "test_accuracy": "test accuracy",
        "nfe_forward": "NFE forward",
        "nfe_backward": "NFE backward",
        "efficacy_forward": "efficacy forward",
        "efficacy_backward": "efficacy backward",
        "seconds_per_epoch": "seconds an epoch",
    },
)
