"""``adamode export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .evaluate import DataDir, Json, OutputDir, OwnData, Run, Threads, Weights, find_run
from .paths import check_output_file, write_json
from .status import reports_errors


@reports_errors
def export(
    run: Run,
    output: Annotated[
        Path | None, typer.Option(help="The file to write.", show_default="RUN/model.pt2")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(help="Equal steps of the run's method.", show_default="as the tolerance asks", min=1),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing.")] = False,
    weights: Weights = "best",
    device: Annotated[str, typer.Option(help="Where the program will run: cpu, cuda …")] = "cpu",
    threads: Threads = 1,
    data_dir: DataDir = None,
    own: OwnData = None,
    output_dir: OutputDir = Path("runs"),
    to_json: Json = None,
) -> None:
    """Write a trained model as a torch.export program: fixed steps, any batch size, no adamode needed."""
    folder = find_run(run, output_dir)
    check_output_file("--output", None if output is None else str(output))
    check_output_file("--json", to_json)
    import torch

    from ..models.export import with_fixed_steps
    from ..train.evaluation import load_data_of, load_run
    from ..train.export import export_run

    torch.set_num_threads(threads)
    loaded = load_run(folder, weights=weights, device=device)
    with_fixed_steps(loaded.model, 1 if steps is None else steps)  # refused before the data are read
    data = load_data_of(loaded, data_dir=data_dir, path=own)
    done = export_run(loaded, data, folder / "model.pt2" if output is None else output, steps=steps)
    if to_json is not None:
        write_json(done.as_dict(), to_json)
    if quiet or to_json == "-":
        return
    chosen = done.chosen
    typer.echo(
        f"wrote     {done.path}: {loaded.config.model}, weights of epoch {done.epoch}, {done.bytes:,} bytes\n"
        f"input     [batch, {', '.join(map(str, done.shape))}] of {loaded.config.dtype} on {device}"
    )
    if chosen.steps:
        typer.echo(
            f"steps     {chosen.steps} of {loaded.config.method}, {chosen.evaluations} evaluations of f\n"
            f"adaptive  differs by {chosen.difference:.3g} at most on {chosen.samples} validation samples; "
            f"the tolerance allows {chosen.bound:.3g}"
            f"{_why_more(chosen.difference, chosen.bound, chosen.converged)}"
        )
    sizes = ", ".join(map(str, done.batch_sizes))
    typer.echo(
        f"reloaded  in batches of {sizes}: differs by {done.reloaded:.3g} at most from the same steps in "
        f"eager mode, by {done.adaptive:.3g} from the run"
    )


def _why_more(difference: float, bound: float, converged: bool) -> str:
    if difference <= bound:
        return ""
    if converged:
        return "\n          (the equal steps have converged: this is the adaptive solve's own error)"
    return "\n          (more --steps come nearer)"
