"""``adamode predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .evaluate import DataDir, Device, Json, OutputDir, Run, Threads, Weights, find_run
from .paths import check_output_file, write_json
from .status import reports_errors


@reports_errors
def predict(
    run: Run,
    pictures: Annotated[list[Path], typer.Argument(help="Pictures: PNG, JPEG …", show_default=False)],
    invert: Annotated[
        bool, typer.Option("--invert", help="Dark ink on light paper (the digits are light on dark).")
    ] = False,
    top: Annotated[int, typer.Option(help="How many classes to show.", min=1)] = 3,
    weights: Weights = "best",
    device: Device = None,
    threads: Threads = 1,
    data_dir: DataDir = None,
    output_dir: OutputDir = Path("runs"),
    to_json: Json = None,
) -> None:
    """Ask a trained model what is on a picture; it is cut down to the size that the model knows."""
    import torch

    from ..train.evaluation import load_data_of, load_run, probabilities, read_picture

    check_output_file("--json", to_json)
    torch.set_num_threads(threads)
    loaded = load_run(find_run(run, output_dir), weights=weights, device=device)
    data = load_data_of(loaded, data_dir=data_dir)
    inputs = [read_picture(path, data, invert=invert) for path in pictures]  # refused before any answer
    answers = []
    for path, x in zip(pictures, inputs, strict=True):
        p = probabilities(loaded, x)
        best = sorted(range(len(p)), key=lambda k: -p[k])
        answers.append({"picture": str(path), "class": best[0], "probabilities": p})
        if to_json != "-":
            listed = ", ".join(f"{k} ({100 * p[k]:.1f} %)" for k in best[:top])
            typer.echo(f"{path}: {listed}")
    if to_json is not None:
        write_json(answers, to_json)
