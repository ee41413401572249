"""``adamode predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .evaluate import DataDir, Device, Json, OutputDir, OwnData, Run, Threads, Weights, find_run
from .paths import check_output_file, write_json
from .status import reports_errors

ROWS = 10  # of a file that are shown; --json and --output have all


@reports_errors
def predict(
    run: Run,
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Pictures (PNG, JPEG …), .npz with x, recordings as .csv or .mat.", show_default=False
        ),
    ],
    invert: Annotated[
        bool, typer.Option("--invert", help="Dark ink on light paper (the digits are light on dark).")
    ] = False,
    top: Annotated[int, typer.Option(help="How many classes to show.", min=1)] = 3,
    output: Annotated[
        Path | None, typer.Option(help="Write all answers to a .npz or .csv.", show_default="none")
    ] = None,
    weights: Weights = "best",
    device: Device = None,
    threads: Threads = 1,
    data_dir: DataDir = None,
    own: OwnData = None,
    output_dir: OutputDir = Path("runs"),
    to_json: Json = None,
) -> None:
    """Ask a trained model about pictures, arrays or recordings.

    A picture is cut down to the size that the model knows; arrays are as they were for training.

    A recording needs its outputs in the first rows only; what follows is simulated from its inputs.
    """
    import torch

    from ..train.evaluation import load_data_of, load_run
    from ..train.prediction import predict_file, write_predictions

    check_output_file("--json", to_json)
    check_output_file("--output", None if output is None else str(output))
    torch.set_num_threads(threads)
    loaded = load_run(find_run(run, output_dir), weights=weights, device=device)
    data = load_data_of(loaded, data_dir=data_dir, path=own)
    answers = [predict_file(loaded, data, path, invert=invert) for path in files]  # all, before any is told
    if output is not None:
        write_predictions(output, answers)
    if to_json is not None:
        write_json([told for answer in answers for told in answer.as_dicts()], to_json)
    if to_json == "-":
        return
    for answer in answers:
        for line in _lines(answer, top):
            typer.echo(line)
    if output is not None:
        typer.echo(f"wrote     {output}")


def _lines(answer: Any, top: int) -> list[str]:
    """What is shown of a file's answers. answer: `adamode.train.prediction.Prediction`."""
    if answer.given:
        rows = answer.values.shape[1]
        rmse = "" if answer.rmse is None else f"; rmse {answer.rmse:.4g}"
        return [f"{name}: {rows:,} rows after {answer.given} given ones{rmse}" for name in answer.names]
    lines = []
    for i, name in enumerate(answer.names[:ROWS]):
        if answer.values is not None:
            flat = answer.values[i].reshape(-1)
            told = ", ".join(f"{v:.6g}" for v in flat[:top]) + (" …" if len(flat) > top else "")
        else:
            p = answer.probabilities[i].tolist()
            best = sorted(range(len(p)), key=lambda k: -p[k])[:top]
            told = ", ".join(f"{answer.labels[k] if answer.labels else k} ({100 * p[k]:.1f} %)" for k in best)
        lines.append(f"{name}: {told}")
    more = len(answer.names) - ROWS
    return [*lines, f"… and {more:,} more (--json and --output have all)"] if more > 0 else lines
