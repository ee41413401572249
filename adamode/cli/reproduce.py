"""``adamode reproduce``."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..reproduce.catalogue import ALL, DATASETS, FIGURES, check_name, load, seconds_left
from .status import reports_errors

if TYPE_CHECKING:
    from ..reproduce.machinery.figure import Figure
    from ..reproduce.machinery.result import Result
    from ..reproduce.machinery.work import Allowed

LARGEST_SEED = 2**32 - 1  # numpy's
_WITH_DATASET = ", ".join(name for name, entry in FIGURES.items() if entry.by_dataset)
_Figure = Annotated[
    str,
    typer.Argument(
        metavar="FIGURE",
        help="; ".join(
            [*(f"{n}: {e.about}" for n, e in FIGURES.items()), f"all: {', '.join(ALL)}, in this order"]
        )
        + ".",
    ),
]
_Dataset = Annotated[
    str | None,
    typer.Option(help=f"{' or '.join(DATASETS)}; for {_WITH_DATASET}.", show_default="the scale's"),
]
_Scale = Annotated[
    str,
    typer.Option(
        help="smoke: seconds to a few minutes, no data files, shows that it runs; sample: what a desk "
        "computer can do; full-small: a night, all images of small sample files, three models, one seed; "
        "paper: the paper's sizes."
    ),
]
_OutputDir = Annotated[
    str | None,
    typer.Option(
        help="Folder of the figures, their training runs and the report.", show_default="paper-SCALE"
    ),
]
_Jobs = Annotated[
    int,
    typer.Option(min=0, help="Training runs at once; 0: train nothing, take what is finished."),
]
_Seed = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=LARGEST_SEED,
        help="The first of the seeds, where a figure draws at random.",
        show_default="the scale's",
    ),
]


@reports_errors
def reproduce(
    figure: _Figure,
    dataset: _Dataset = None,
    scale: _Scale = "sample",
    output_dir: _OutputDir = None,
    data_dir: Annotated[
        str, typer.Option(help="Folder of the data files.", show_default="$ADAMODE_DATA")
    ] = "",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of torch, for each run.")] = 1,
    jobs: _Jobs = 2,
    seed: _Seed = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the result only.")] = False,
) -> None:
    """Make a figure or table of the AdamNODE paper, and judge its claims.

    Writes to OUTPUT_DIR/FIGURE the pictures and result.json: rows, claims with the paper's number, ours and
    a verdict, settings, versions. OUTPUT_DIR/report/index.html shows all figures made so far.

    What is finished is kept: the same command goes on where it was stopped.

    A claim that does not hold is a result: the exit status is 0. It is 1 if the computing failed.
    """
    _check(figure, dataset, scale, output_dir)
    place = Path(f"paper-{scale}" if output_dir is None else output_dir)
    names = ALL if figure == "all" else (figure,)

    def say(words: str) -> None:
        if not quiet:
            typer.echo(words)

    allowed = _allowed(data_dir, device, threads, jobs, say)
    try:
        with _stopped_by_signals():
            failed = _make(names, scale, place, allowed, _Changes(dataset, seed, figure), quiet)
    except KeyboardInterrupt as stop:
        typer.echo(
            f"\ninterrupted. What is done is kept in {str(place)!r}; the same command goes on from there.",
            err=True,
        )
        raise typer.Exit(128 + getattr(stop, "signum", signal.SIGINT)) from None
    if failed:
        raise typer.Exit(1)


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """SIGINT and SIGTERM end the call: training runs, processes of their own, must be asked to end too.

    As `train` does, it hears SIGINT also where a script started it in the background, with SIGINT ignored.
    """
    from ..train.interrupt import Interrupted

    def stop(signum: int, frame: FrameType | None) -> None:
        raise Interrupted(signum)

    if threading.current_thread() is not threading.main_thread():
        yield  # Python allows no handlers here
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _check(figure: str, dataset: str | None, scale: str, output_dir: str | None) -> None:
    from ..reproduce.machinery.figure import SCALES
    from ..solvers.errors import ArgumentError, check_choice

    check_name(figure, ("all",))
    check_choice("--scale", scale, SCALES)
    if output_dir is not None and not output_dir.strip():
        raise ArgumentError(f"--output-dir={output_dir!r} names no folder; leave it out for paper-{scale}.")
    if dataset is None:
        return
    check_choice("--dataset", dataset, DATASETS)
    if figure == "all" or not FIGURES[figure].by_dataset:
        raise ArgumentError(f"--dataset={dataset!r} says nothing about {figure}; it is for {_WITH_DATASET}.")


def _allowed(data_dir: str, device: str, threads: int, jobs: int, say: Callable[[str], None]) -> Allowed:
    import torch

    from ..reproduce.machinery.work import Allowed
    from ..train.device import checked_device

    torch.set_num_threads(threads)
    return Allowed(data_dir, str(checked_device(device)), threads, jobs, say)


class _Changes:
    """The options that change a figure's settings."""

    def __init__(self, dataset: str | None, seed: int | None, asked: str):
        self.dataset, self.seed, self.asked = dataset, seed, asked

    def of(self, figure: Figure, scale: str) -> dict[str, Any]:
        """The settings with their new values. Raises: ArgumentError for a seed that nothing is drawn with."""
        from ..solvers.errors import ArgumentError

        changes: dict[str, Any] = {} if self.dataset is None else {"datasets": (self.dataset,)}
        if self.seed is not None:
            settings = figure.settings[scale]
            if hasattr(settings, "seeds"):
                if self.seed + len(settings.seeds) > LARGEST_SEED + 1:
                    raise ArgumentError(
                        f"--seed={self.seed}: {figure.name} takes {len(settings.seeds)} seeds from there on, "
                        f"and the largest is {LARGEST_SEED}; give a smaller one."
                    )
                changes["seeds"] = tuple(range(self.seed, self.seed + len(settings.seeds)))
            elif hasattr(settings, "seed"):
                changes["seed"] = self.seed
            elif self.asked != "all":
                raise ArgumentError(
                    f"--seed={self.seed}: {figure.name} draws nothing at random; leave it out."
                )
        return changes


def _make(
    names: tuple[str, ...], scale: str, place: Path, allowed: Allowed, changes: _Changes, quiet: bool
) -> list[str]:
    """Makes the figures in turn, prints each, refreshes the page. Returns the names of those that failed."""
    from ..reproduce.machinery.result import finished
    from ..reproduce.machinery.result import reproduce as make
    from ..reproduce.machinery.training import duration
    from ..solvers.errors import AdamodeError

    spent: dict[str, float] = {}
    failed = []
    for i, name in enumerate(names):
        figure = load(name)
        changed = changes.of(figure, scale)
        result = finished(figure, scale, place, allowed, **changed)
        if len(names) > 1:
            left = seconds_left(spent, names[i:], scale)
            estimate = "" if left is None or result is not None else f" (about {duration(left)} left)"
            allowed.say(f"figure {i + 1} of {len(names)}, {name}: {FIGURES[name].about}{estimate}")
        if result is not None:
            allowed.say(f"{name}: finished before")
        if result is None:
            start = time.perf_counter()
            try:
                result = make(figure, scale, place, allowed, **changed)
            except RuntimeError as error:
                # As in a sweep, a figure that cannot be computed stops no other; a wrong call stops all.
                if len(names) == 1 or not isinstance(error, AdamodeError):
                    raise
                typer.echo(f"error: {name}: {error}", err=True)
                failed.append(name)
                continue
            spent[name] = time.perf_counter() - start
        _print(result, place / name, quiet)
        _refresh(place, scale, allowed)
    return failed


def _print(result: Result, folder: Path, quiet: bool) -> None:
    typer.echo(f"{result.figure}, scale {result.scale}")
    for claim in result.claims:
        typer.echo(f"  {claim.claim}")
        typer.echo(f"    paper    {claim.paper}\n    ours     {claim.ours}\n    verdict  {claim.verdict}")
        if claim.why and not quiet:
            typer.echo(f"    why      {claim.why}")
    for finding in result.findings if not quiet else ():
        typer.echo(f"  found    {finding}")
    for file in ["result.json", *(picture["file"] for picture in result.pictures)] if not quiet else ():
        typer.echo(f"written   {folder / file}")


def _refresh(place: Path, scale: str, allowed: Allowed) -> None:
    from ..reproduce.machinery.report import write_report
    from ..solvers.errors import ArgumentError

    try:
        path, left_out = write_report(place, scale)
    except OSError as error:
        raise ArgumentError(
            f"--output-dir: the report in {str(place)!r} cannot be written ({error}); choose another."
        ) from error
    for line in left_out:
        typer.echo(f"not in the report: {line}", err=True)
    allowed.say(f"report    {path}")
