"""``adamode predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .evaluate import DataDir, Device, Json, OutputDir, Run, Threads, Weights, find_run
from .paths import check_output_file, write_json
from .status import reports_errors


@reports_errors
def predict(
    run: Run,
    pictures: Annotated[
        list[Path] | None, typer.Argument(help="Pictures: PNG, JPEG …", show_default=False)
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(help="Of a density: write so many draws, in the data's own units.", min=1),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The draws' file, .npz or .csv.", show_default="RUN/samples.npz")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draws.", min=0)] = 0,
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
    """Ask a trained model what is on a picture, or a learnt density for samples (--samples N).

    A picture is cut down to the size that the model knows.
    """
    import torch

    from ..solvers.errors import ArgumentError

    check_output_file("--json", to_json)
    if bool(pictures) == (samples is not None):
        raise ArgumentError("give pictures, or --samples N of a run that learnt a density: one of the two.")
    if output is not None and samples is None:
        raise ArgumentError(f"--output {str(output)!r} is of --samples; what is on pictures goes to --json.")
    torch.set_num_threads(threads)
    folder = find_run(run, output_dir)
    if samples is None:
        found: Any = _ask(folder, pictures or [], invert, top, to_json == "-", (weights, device, data_dir))
    else:
        where = folder / "samples.npz" if output is None else output
        found = _draw(folder, samples, where, seed, (weights, device))
        if to_json != "-":
            typer.echo(
                f"wrote     {found['output']}: {samples} samples of shape {tuple(found['shape'])}, "
                f"weights of epoch {found['epoch']}, seed {seed}"
            )
    if to_json is not None:
        write_json(found, to_json)


def _ask(
    folder: Path,
    pictures: list[Path],
    invert: bool,
    top: int,
    silent: bool,
    of_run: tuple[str, str | None, str | None],
) -> list[dict[str, Any]]:
    """The answers for pictures, which are told unless silent."""
    from ..train.evaluation import load_data_of, load_run, probabilities, read_picture

    weights, device, data_dir = of_run
    loaded = load_run(folder, weights=weights, device=device)
    data = load_data_of(loaded, data_dir=data_dir)
    inputs = [read_picture(path, data, invert=invert) for path in pictures]  # refused before any answer
    answers = []
    for path, x in zip(pictures, inputs, strict=True):
        p = probabilities(loaded, x)
        best = sorted(range(len(p)), key=lambda k: -p[k])
        answers.append({"picture": str(path), "class": best[0], "probabilities": p})
        if not silent:
            listed = ", ".join(f"{k} ({100 * p[k]:.1f} %)" for k in best[:top])
            typer.echo(f"{path}: {listed}")
    return answers


def _draw(
    folder: Path, samples: int, output: Path, seed: int, of_run: tuple[str, str | None]
) -> dict[str, Any]:
    """Writes samples of a run's density; what was written."""
    from ..train.evaluation import load_run
    from ..train.samples import check_suffix, samples_of_run, write_samples

    check_suffix(output)
    check_output_file("--output", str(output))
    weights, device = of_run
    loaded = load_run(folder, weights=weights, device=device)
    drawn = samples_of_run(loaded, samples, seed=seed)
    write_samples(output, drawn)
    return {"output": str(output), "shape": list(drawn.shape[1:]), "seed": seed, "epoch": loaded.epoch}
