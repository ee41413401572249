"""``adamode sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..models.known import MODELS
from ..train.checks import check_settings
from ..train.known import SETTINGS
from .options import SETTINGS as OPTIONS
from .options import with_settings
from .runs import results
from .status import reports_errors


@with_settings
@reports_errors
def sweep(
    settings: dict[str, Any],
    models: Annotated[str | None, typer.Option(help="Models, with commas; all: every one.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds, with commas, or a range such as 0-4.")] = None,
    vary: Annotated[
        list[str] | None, typer.Option(help="Another axis: SETTING=VALUE,VALUE … (lr=0.01,0.001).")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Runs at once, each in a process of its own.", min=1)] = 1,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings; options win over it.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be run.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the result only.")] = False,
) -> None:
    """Train every combination of models, seeds and other settings.

    Finished runs are not run again; unfinished ones are resumed. Every other option is that of
    adamode train and holds for all runs. A run that fails stops no other; the status is then 1.
    """
    base, axes = dict(settings), _axes(models, seeds, vary or [])
    for name, values in {**{name: [value] for name, value in base.items()}, **axes}.items():
        for value in values:
            check_settings({name: value})  # before torch is imported
    from ..train.config import TrainConfig
    from ..train.sweep import plan, run_sweep

    if config is not None:
        base = {**TrainConfig.table_of(config), **base}
    planned = plan({name: value for name, value in base.items() if name not in axes}, axes)
    left = [job for job in planned if job.state != "finished"]
    if not quiet or dry_run:
        for job in planned:
            typer.echo(f"{job.state:<11} {job.config.folder}")
    if dry_run:
        return

    def say(text: str) -> None:
        if not quiet:
            typer.echo(text)

    ended = run_sweep(
        left,
        at_once=jobs,
        on_start=lambda job: say(f"started     {job.config.name}"),
        on_end=lambda e: say(f"{'ended' if e.status == 0 else 'FAILED':<11} {e.job.config.name}"),
    )
    failed = [e for e in ended if e.status != 0]
    typer.echo(
        f"{len(planned)} {'run' if len(planned) == 1 else 'runs'}: "
        f"{len(planned) - len(left)} finished before, {len(ended) - len(failed)} now"
    )
    begun = [job for job in planned if job.config.folder.joinpath(SETTINGS).is_file()]
    if begun:
        place = begun[0].config.output_dir
        typer.echo(results(place, [job.config.name for job in begun]))
        typer.echo(f"runs      {place}; the same again, and a picture: adamode runs --output-dir {place}")
    for e in failed:
        typer.echo(f"{e.job.config.name} ended with status {e.status}: {e.said} ({e.job.log})", err=True)
    if failed:
        raise typer.Exit(1)


def _axes(models: str | None, seeds: str | None, vary: list[str]) -> dict[str, list[Any]]:
    """{setting: its values}, of what the sweep goes over."""
    from ..solvers.errors import ArgumentError, nearest

    axes: dict[str, list[Any]] = {}
    if models is not None:
        axes["model"] = list(MODELS) if models == "all" else _split("models", models)
    if seeds is not None:
        axes["seed"] = _seeds(seeds)
    kinds = {setting.name: setting.kind for setting in OPTIONS}
    for axis in vary:
        name, equals, values = axis.partition("=")
        name = name.strip().lstrip("-").replace("-", "_")
        if not equals or name not in kinds:
            raise ArgumentError(f"--vary {axis!r} must be SETTING=VALUE,VALUE: {nearest(name, kinds)}")
        if name in axes:
            raise ArgumentError(f"--vary {axis!r}: {name} is an axis already; give its values once.")
        axes[name] = [_value(name, kinds[name], text) for text in _split(f"vary {name}", values)]
    return axes


def _split(option: str, text: str) -> list[str]:
    from ..solvers.errors import ArgumentError

    values = [value.strip() for value in text.split(",")]
    if not all(values):
        raise ArgumentError(f"--{option} {text!r}: give values with commas between them, such as a,b.")
    return values


def _seeds(text: str) -> list[int]:
    first, dash, last = text.partition("-")
    if dash and first.isdigit() and last.isdigit() and int(first) <= int(last):
        return list(range(int(first), int(last) + 1))
    return [_value("seed", int, value) for value in _split("seeds", text)]


def _value(name: str, kind: type, text: str) -> Any:
    from ..solvers.errors import ArgumentError

    if kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        if kind is not bool:
            return kind(text)
    except ValueError:
        pass
    wanted = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
    raise ArgumentError(f"{name}={text!r} must be {wanted}.")
