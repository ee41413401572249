"""``adamode train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..train.checks import check_settings
from .options import with_settings
from .status import reports_errors


@with_settings
@reports_errors
def train(
    settings: dict[str, Any],
    config: Annotated[Path | None, typer.Option(help="TOML file of settings; options win over it.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the result only.")] = False,
) -> None:
    """Train a model; the run is kept in OUTPUT_DIR/NAME.

    With no options: AdamNODE on handwritten digits, in under two minutes.

    Ctrl-C leaves a checkpoint; the same command with --resume goes on from it.

    A finished run with --schedule constant or decay is made longer by --resume with more --epochs.

    Several processes: torchrun --nproc-per-node N -m adamode train …
    """
    check_settings(settings)  # what is misspelt is said before torch is imported
    from ..sample_pictures import SamplePictures
    from ..train import TrainConfig, Trainer, TrainResult

    chosen = TrainConfig(**settings) if config is None else TrainConfig.from_toml(config, **settings)
    pictures = SamplePictures(quiet=quiet)
    trainer = Trainer(chosen, quiet=quiet, on_epoch=pictures)
    result: TrainResult | None = None
    picture: Path | None = None
    try:
        result = trainer.fit(resume=resume)
    finally:  # an interrupted run has a picture too
        first = getattr(trainer, "ranks", None) is None or trainer.ranks.rank == 0
        if first and trainer.position.history:
            from ..plotting import draw_run

            picture = draw_run(trainer.folder)
    if not first:  # one process speaks for all
        return
    if not result.trained:
        typer.echo("This run is finished already; nothing was trained. Another --name makes a new one.")
    typer.echo(summary(result, trainer.objective.unit, with_folder=quiet))
    typer.echo(f"picture   {picture}")
    samples = pictures.of_the_best(trainer.model, result.best_epoch)
    if samples is not None:
        typer.echo(f"samples   {samples}")


def summary(result: Any, unit: str = "", *, with_folder: bool = True) -> str:
    """The lines that end a run.

    result: `adamode.train.TrainResult`.
    with_folder: whether the run's folder is said; its first lines have said it already.
    """
    seconds = sum(row["seconds"] for row in result.history)
    measure, n = result.quality, len(result.history)
    both = (result.efficacy_forward, "forward"), (result.efficacy_backward, "backward")
    lines = [
        f"test      {measure.in_full(result.value, unit)}, loss {result.test_loss:.4f}{measure.loss_unit}",
        f"          (weights of epoch {result.best_epoch}, the best in validation)",
        *(f"          {name}: {measure.in_full(v, unit)}" for name, v in result.more_tests.items()),
        f"NFE       {result.nfe_forward:.1f} forward (test), {result.nfe_backward:.1f} backward (last epoch)",
        f"efficacy  {told_efficacy(measure, *both)}",
        f"time      {seconds:.1f} s in {n} {'epoch' if n == 1 else 'epochs'}",
    ]
    return "\n".join([*lines, f"run       {result.folder}"] if with_folder else lines)


def told_efficacy(measure: Any, *values: tuple[float | None, str]) -> str:
    """Efficacies for people, each (value, of which pass), or why there is none. measure: the quality."""
    known = [f"{value:.4f} {way}" for value, way in values if value is not None]
    if not known:
        return f"none: {measure.no_efficacy}"
    return f"{', '.join(known)} (test accuracy ÷ NFE)"
