"""The program with its commands. Nothing here imports torch: ``--help`` answers at once."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import __version__
from .cache import cache
from .cite import cite
from .data import data
from .evaluate import evaluate
from .export import export
from .inspect import inspect
from .models import models
from .predict import predict
from .reproduce import reproduce
from .runs import runs
from .sweep import sweep
from .train import train
from .verify import verify


def paragraphs(text: str | None) -> str:
    """A docstring with a line a paragraph, which the help then breaks where the terminal ends."""
    return "\n\n".join(" ".join(part.split()) for part in (text or "").split("\n\n"))


app = typer.Typer(
    help="Adaptive ODE solvers for PyTorch with hand-derived adjoints, and the AdamNODE models.",
    epilog="Exit status: 0 done, 1 the check or the run failed, 2 the call was wrong.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    *(train, evaluate, predict, export, runs, sweep),
    *(models, data, verify, inspect, reproduce, cite),
):
    app.command(help=paragraphs(command.__doc__))(command)
app.add_typer(cache, name="cache")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"adamode {__version__}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Options of the program itself."""
