"""``adamode export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..train.known import check_run
from .evaluate import DataDir, Json, OutputDir, OwnData, Run, Threads, Weights, find_run
from .paths import check_output_file, write_json
from .status import reports_errors

FORMS = {"pt2": "model.pt2", "onnx": "model.onnx", "safetensors": "model"}


@reports_errors
def export(
    run: Run,
    output: Annotated[
        Path | None, typer.Option(help="The file (or folder) to write.", show_default="RUN/model.pt2")
    ] = None,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="pt2: torch.export; onnx: for onnxruntime; safetensors: a folder for adamode.load.",
        ),
    ] = "pt2",
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
    """Write a trained model as a torch.export program: fixed steps, any batch size, no adamode needed.

    --format onnx writes the same for onnxruntime, safetensors the model itself with a card, for adamode.load.
    """
    from ..solvers.errors import check_choice

    check_choice("format", form, FORMS)
    folder = find_run(run, output_dir)
    check_run(folder, weights)
    if form != "safetensors":
        check_output_file("--output", None if output is None else str(output))
    check_output_file("--json", to_json)
    import torch

    from ..models.export import with_fixed_steps
    from ..train.evaluation import load_data_of, load_run
    from ..train.export import export_run

    torch.set_num_threads(threads)
    loaded = load_run(folder, weights=weights, device=device)
    if form == "safetensors":
        _save(loaded, load_data_of(loaded, data_dir=data_dir, path=own), folder, output, quiet)
        return
    with_fixed_steps(loaded.model, 1 if steps is None else steps)  # refused before the data are read
    data = load_data_of(loaded, data_dir=data_dir, path=own)
    where = folder / FORMS[form] if output is None else output
    done = export_run(loaded, data, where, steps=steps, onnx=form == "onnx")
    if to_json is not None:
        write_json(done.as_dict(), to_json)
    if not quiet and to_json != "-":
        typer.echo("\n".join(_lines(done, loaded.config, device)))


def _lines(done: Any, config: Any, device: str) -> list[str]:
    """What is told of an export. done: `adamode.train.export.Exported`."""
    chosen = done.chosen
    lines = [
        f"wrote     {done.path}: {config.model}, weights of epoch {done.epoch}, {done.bytes:,} bytes",
        f"input     [batch, {', '.join(map(str, done.shape))}] of {config.dtype} on {device}",
    ]
    if chosen.steps:
        lines += [
            f"steps     {chosen.steps} of {config.method}, {chosen.evaluations} evaluations of f",
            f"adaptive  differs by {chosen.difference:.3g} at most on {chosen.samples} validation samples; "
            f"the tolerance allows {chosen.bound:.3g}"
            f"{_why_more(chosen.difference, chosen.bound, chosen.converged)}",
        ]
    sizes = ", ".join(map(str, done.batch_sizes))
    return [
        *lines,
        f"reloaded  in batches of {sizes}: differs by {done.reloaded:.3g} at most from the same steps in "
        f"eager mode, by {done.adaptive:.3g} from the run",
    ]


def _save(loaded: Any, data: Any, folder: Path, output: Path | None, quiet: bool) -> None:
    """The model as a folder of JSON and safetensors."""
    from ..train.runs import RunFolder
    from ..train.saved import save_run

    where = folder / FORMS["safetensors"] if output is None else output
    rows = RunFolder(folder).read_metrics()
    made = save_run(loaded, data, where, rows)
    if not quiet:
        typer.echo(
            f"wrote     {made}: {loaded.config.model}, weights of epoch {loaded.epoch}; adamode.load reads it"
        )


def _why_more(difference: float, bound: float, converged: bool) -> str:
    if difference <= bound:
        return ""
    if converged:
        return "\n          (the equal steps have converged: this is the adaptive solve's own error)"
    return "\n          (more --steps come nearer)"
