"""``adamode train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

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
    from ..train import TrainConfig, Trainer, TrainResult

    chosen = TrainConfig(**settings) if config is None else TrainConfig.from_toml(config, **settings)
    trainer = Trainer(chosen, quiet=quiet)
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
    typer.echo(summary(result, trainer.objective.unit))
    typer.echo(f"picture   {picture}")


def summary(result: Any, unit: str = "") -> str:
    """The lines that end a run. result: `adamode.train.TrainResult`."""
    seconds = sum(row["seconds"] for row in result.history)
    of_values = result.test_accuracy is None
    return "\n".join(
        (
            f"test      {quality(result, unit)}, loss {result.test_loss:.4f} "
            f"(weights of epoch {result.best_epoch}, the best in validation)",
            *(f"          {name}: {measure(v, of_values, unit)}" for name, v in result.more_tests.items()),
            f"NFE       {result.nfe_forward:.1f} forward (test), {result.nfe_backward:.1f} backward "
            "(last epoch)",
            f"efficacy  {told_efficacy(result.efficacy_forward, of_values)} forward, "
            f"{told_efficacy(result.efficacy_backward, of_values)} backward (test accuracy ÷ NFE)",
            f"time      {seconds:.1f} s in {len(result.history)} epochs",
            f"run       {result.folder}",
        )
    )


def quality(result: Any, unit: str = "") -> str:
    """The test's accuracy or error for people."""
    of_values = result.test_accuracy is None
    return measure(result.test_rmse if of_values else result.test_accuracy, of_values, unit)


def measure(value: float, of_values: bool, unit: str) -> str:
    """An accuracy or an error for people."""
    return f"rmse {value:.4g} {unit}".rstrip() if of_values else f"accuracy {100 * value:.2f} %"


def told_efficacy(value: float | None, of_values: bool) -> str:
    """An efficacy for people, or why there is none."""
    if value is None:
        return "none (values are predicted)" if of_values else "none (nothing is solved)"
    return f"{value:.4f}"
