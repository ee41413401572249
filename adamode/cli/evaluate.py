"""``adamode evaluate`` and what it shares with ``adamode predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..train.known import check_run
from .paths import check_output_file, write_json
from .status import reports_errors
from .train import told_efficacy

Run = Annotated[
    Path, typer.Argument(help="The folder of a run, or its name in OUTPUT_DIR.", show_default=False)
]
OutputDir = Annotated[Path, typer.Option(help="Folder that holds the runs.")]
Weights = Annotated[str, typer.Option(help="best in validation, or last.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda …", show_default="the run's")]
Threads = Annotated[int, typer.Option(help="CPU threads of torch.", min=1)]
DataDir = Annotated[
    str | None, typer.Option(help="Folder of the data files.", show_default="the run's, or $ADAMODE_DATA")
]
OwnData = Annotated[
    str | None,
    typer.Option("--data", help="Your own data's folder or file, if elsewhere.", show_default="the run's"),
]
Json = Annotated[str | None, typer.Option("--json", help="Write the result as JSON: a file, or - .")]


@reports_errors
def evaluate(
    run: Run,
    part: Annotated[str, typer.Option(help="train, val, test or a further test set.")] = "test",
    weights: Weights = "best",
    one_step: Annotated[
        bool,
        typer.Option(
            "--one-step", help="Recordings: each row from the measured rows before it, not a free run."
        ),
    ] = False,
    draws: Annotated[
        int | None,
        typer.Option(
            help="Densities with momenta: draws of them a sample; 1 is the evidence bound.",
            show_default="training's: 16",
            min=1,
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Samples in one batch.", show_default="the run's", min=1)
    ] = None,
    device: Device = None,
    threads: Threads = 1,
    data_dir: DataDir = None,
    own: OwnData = None,
    output_dir: OutputDir = Path("runs"),
    to_json: Json = None,
) -> None:
    """Judge a trained model: loss, accuracy, error or likelihood, NFE and efficacy on a part of its data."""
    check_output_file("--json", to_json)
    folder = find_run(run, output_dir)
    check_run(folder, weights)
    import torch

    from ..train.evaluation import judge, load_data_of, load_run
    from ..train.measures import MEASURES

    torch.set_num_threads(threads)
    loaded = load_run(folder, weights=weights, device=device)
    data = load_data_of(loaded, data_dir=data_dir, path=own)
    result = judge(loaded, data, part, batch_size=batch_size, one_step=one_step, draws=draws)
    if to_json is not None:
        asked = {"weights": weights, "one_step": one_step, "draws": draws}
        write_json({"run": str(folder), **asked, **result.as_dict()}, to_json)
    if to_json == "-":
        return
    measure = MEASURES[result.quality]
    typer.echo(
        f"{result.part:<9} {measure.in_full(result.value, result.unit)}, "
        f"loss {result.loss:.4f}{measure.loss_unit}\n"
        f"          ({result.samples} samples; weights of epoch {result.epoch})\n"
        f"NFE       {result.nfe_forward:.1f} forward\n"
        f"efficacy  {told_efficacy(measure, (result.efficacy_forward, 'forward'))}\n"
        f"model     {loaded.config.model}: {result.parameters:,} parameters"
    )


def find_run(run: Path, output_dir: Path) -> Path:
    """The folder called ``run``, or the run of that name in output_dir."""
    return output_dir / run if not run.exists() and (output_dir / run).is_dir() else run
