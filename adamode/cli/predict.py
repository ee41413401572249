"""``adamode predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..train.known import check_run
from .evaluate import DataDir, Device, Json, OutputDir, OwnData, Run, Threads, Weights, find_run
from .paths import check_output_file, write_json
from .status import reports_errors

ROWS = 10  # of a file that are shown; --json and --output have all


@reports_errors
def predict(
    run: Run,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Pictures (PNG, JPEG …), .npz with x, recordings as .csv or .mat.", show_default=False
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(help="Densities: number of draws to write, in the data's own units.", min=1),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draws.", min=0)] = 0,
    invert: Annotated[
        bool, typer.Option("--invert", help="Dark ink on light paper (the digits are light on dark).")
    ] = False,
    top: Annotated[int, typer.Option(help="How many classes to show.", min=1)] = 3,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Write all answers, or the draws, to a .npz or .csv.", show_default="draws: RUN/samples.npz"
        ),
    ] = None,
    weights: Weights = "best",
    device: Device = None,
    threads: Threads = 1,
    data_dir: DataDir = None,
    own: OwnData = None,
    output_dir: OutputDir = Path("runs"),
    to_json: Json = None,
) -> None:
    """Ask a trained model about pictures, arrays or recordings, or a learnt density for samples (--samples).

    A picture is cut down to the size that the model knows; arrays are as they were for training.

    A recording needs its outputs in the first rows only; what follows is simulated from its inputs.
    """
    from ..solvers.errors import ArgumentError
    from ..solvers.write_aside import check_numbers_file

    if bool(files) == (samples is not None):
        raise ArgumentError("give files, or --samples N of a run that learnt a density: one of the two.")
    check_output_file("--json", to_json)
    check_output_file("--output", None if output is None else str(output))
    if output is not None:
        check_numbers_file(output)
    folder = find_run(run, output_dir)
    check_run(folder, weights)
    import torch

    torch.set_num_threads(threads)
    if samples is None:
        of_run = {"weights": weights, "device": device, "data_dir": data_dir, "own": own}
        lines, found = _ask(folder, files or [], invert, top, output, of_run)
    else:
        where = folder / "samples.npz" if output is None else output
        lines, found = _draw(folder, samples, where, seed, {"weights": weights, "device": device})
    if to_json is not None:
        write_json(found, to_json)
    for line in lines if to_json != "-" else []:
        typer.echo(line)


def _ask(
    folder: Path, files: list[Path], invert: bool, top: int, output: Path | None, of_run: dict[str, Any]
) -> tuple[list[str], Any]:
    """The answers for files, which are written to ``output``: as lines, and for JSON."""
    from ..train.evaluation import load_data_of, load_run
    from ..train.prediction import predict_file, write_predictions

    loaded = load_run(folder, weights=of_run["weights"], device=of_run["device"])
    data = load_data_of(loaded, data_dir=of_run["data_dir"], path=of_run["own"])
    answers = [predict_file(loaded, data, path, invert=invert) for path in files]  # all, before any is told
    if output is not None:
        write_predictions(output, answers)
    lines = [line for answer in answers for line in _lines(answer, top)]
    wrote = [] if output is None else [f"wrote     {output}"]
    return lines + wrote, [told for answer in answers for told in answer.as_dicts()]


def _draw(
    folder: Path, samples: int, output: Path, seed: int, of_run: dict[str, Any]
) -> tuple[list[str], Any]:
    """Writes samples of a run's density: what was written, as lines and for JSON."""
    from ..train.evaluation import load_run
    from ..train.samples import samples_of_run, write_samples

    loaded = load_run(folder, **of_run)
    drawn = samples_of_run(loaded, samples, seed=seed)
    write_samples(output, drawn)
    shape = list(drawn.shape[1:])
    told = f"wrote     {output}: {samples} samples of shape {tuple(shape)}, weights of epoch {loaded.epoch}, "
    found = {"output": str(output), "shape": shape, "seed": seed, "epoch": loaded.epoch}
    return [f"{told}seed {seed}"], found


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
