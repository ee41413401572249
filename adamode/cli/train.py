"""``adamode train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .status import reports_errors


def _option(help_text: str, default: str | None = None, *names: str) -> Any:
    """An option that is None where not given; ``default`` is what the help says it then is."""
    return typer.Option(*names, help=help_text, show_default=default or False)


@reports_errors
def train(
    model: Annotated[str | None, _option("Which model.", "adamnode")] = None,
    dataset: Annotated[str | None, _option("Which data set; digits need no download.", "digits")] = None,
    block: Annotated[
        str | None, _option("ode, or identity: the same model without it, as a control.", "ode")
    ] = None,
    epochs: Annotated[int | None, _option("Passes over the training set.", "digits: 20")] = None,
    batch_size: Annotated[int | None, _option("Samples of one optimiser step.", "digits: 32")] = None,
    lr: Annotated[float | None, _option("Adam's first step size.", "digits: 0.01")] = None,
    schedule: Annotated[
        str | None, _option("cosine brings the step size down to 0; constant.", "digits: cosine")
    ] = None,
    clip: Annotated[float | None, _option("Largest norm of a gradient.", "digits: 1.0")] = None,
    rtol: Annotated[float | None, _option("The solver's relative tolerance.", "digits: 0.001")] = None,
    atol: Annotated[float | None, _option("The solver's absolute tolerance.", "digits: 0.001")] = None,
    method: Annotated[str | None, _option("The solver's method.", "dopri5")] = None,
    stepping: Annotated[
        str | None, _option("shared: one step size for the batch; per_sample.", "shared")
    ] = None,
    gradient: Annotated[
        str | None, _option("discrete, interpolating, backsolve or direct.", "discrete")
    ] = None,
    denominator: Annotated[
        str | None, _option("AdamNODE's D(v): exact, softplus or sigmoid.", "exact")
    ] = None,
    seed: Annotated[int | None, _option("Of the weights and the order of the samples.", "0")] = None,
    device: Annotated[str | None, _option("cpu, cuda, cuda:1 …", "cpu")] = None,
    threads: Annotated[int | None, _option("CPU threads of torch.", "1")] = None,
    checkpoint_every: Annotated[
        int | None, _option("Optimiser steps between checkpoints inside an epoch.", "100")
    ] = None,
    name: Annotated[str | None, _option("Name of the run's folder.", "MODEL-DATASET")] = None,
    output_dir: Annotated[str | None, _option("Folder that holds the runs.", "runs")] = None,
    config: Annotated[Path | None, _option("TOML file of settings; options win over it.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the result only.")] = False,
) -> None:
    """Train a model; the run is kept in OUTPUT_DIR/NAME.

    With no options: AdamNODE on handwritten digits, in under two minutes.

    Ctrl-C leaves a checkpoint; the same command with --resume goes on from it.

    A finished run with --schedule constant is made longer by --resume with more --epochs.
    """
    given = {k: v for k, v in locals().items() if k not in ("config", "resume", "quiet") and v is not None}

    from ..plotting import draw_run
    from ..train import TrainConfig, Trainer, TrainResult

    settings = TrainConfig(**given) if config is None else TrainConfig.from_toml(config, **given)
    trainer = Trainer(settings, quiet=quiet)
    result: TrainResult | None = None
    try:
        result = trainer.fit(resume=resume)
    finally:  # an interrupted run has a picture too
        picture = draw_run(trainer.folder) if trainer.position.history else None
    if not result.trained:
        typer.echo("This run is finished already; nothing was trained. Another --name makes a new one.")
    typer.echo(summary(result))
    typer.echo(f"picture   {picture}")


def summary(result: Any) -> str:
    """The lines that end a run. result: `adamode.train.TrainResult`."""

    def efficacy(value: float | None) -> str:
        return "none (nothing is solved)" if value is None else f"{value:.4f}"

    seconds = sum(row["seconds"] for row in result.history)
    return "\n".join(
        (
            f"test      accuracy {100 * result.test_accuracy:.2f} %, loss {result.test_loss:.4f} "
            f"(weights of epoch {result.best_epoch}, the best in validation)",
            f"NFE       {result.nfe_forward:.1f} forward (test), {result.nfe_backward:.1f} backward "
            "(last epoch)",
            f"efficacy  {efficacy(result.efficacy_forward)} forward, "
            f"{efficacy(result.efficacy_backward)} backward (test accuracy ÷ NFE)",
            f"time      {seconds:.1f} s in {len(result.history)} epochs",
            f"run       {result.folder}",
        )
    )
