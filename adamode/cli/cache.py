"""``adamode cache``: the programs on disk. No command here imports torch."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from ..train.text import aligned
from .status import reports_errors

cache = typer.Typer(
    help="List the compiled programs on disk, say where they are, remove them.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COLUMNS = ("model", "method", "shapes", "size", "age", "last used")


@cache.command(name="list")
@reports_errors
def list_packages() -> None:
    """Print a line for each program, the last used first."""
    from ..solvers.device.packages import store

    found = _checked(store()).packages()
    if not found:
        typer.echo(f"no programs in {str(store().root)!r}.")
        return
    now = time.time()
    rows = [
        (
            *(str(package.about.get(name, "")) for name in ("model", "method", "shapes")),
            size_text(package.bytes),
            age_text(now - package.made),
            age_text(now - package.used),
        )
        for package in found
    ]
    typer.echo("\n".join(aligned([COLUMNS, *rows])))


@cache.command()
@reports_errors
def path() -> None:
    """Print the folder."""
    from ..solvers.device.packages import store

    typer.echo(str(_checked(store()).root))


@cache.command()
@reports_errors
def size() -> None:
    """Print how much the programs take together, and how much they may."""
    from ..solvers.device.packages import size_limit, store

    found = _checked(store()).packages()
    total = sum(package.bytes for package in found)
    programs = "1 program" if len(found) == 1 else f"{len(found)} programs"
    typer.echo(f"{programs}, {size_text(total)} of {size_text(size_limit())}")


@cache.command()
@reports_errors
def clear(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove all programs; later solves build them anew."""
    from ..solvers.device.packages import store

    found = _checked(store())
    n = len(found.packages())
    if n and not yes:
        typer.confirm(f"Remove {n} programs in {str(found.root)!r}?", abort=True)
    n, total = found.clear()
    typer.echo(f"removed {n}, {size_text(total)}")


def _checked(found: Any) -> Any:
    """The store; why solves do not use it, where they do not, goes to stderr."""
    trouble = found.trouble()
    if trouble is not None:
        typer.echo(f"not used: {trouble}", err=True)
    return found


def size_text(n: float) -> str:
    """Bytes with a unit that leaves at most four digits."""
    for unit in ("B", "KB", "MB"):
        if n < 1000:
            return f"{n:.4g} {unit}"
        n /= 1000
    return f"{n:.4g} GB"


def age_text(seconds: float) -> str:
    """How long, in the largest unit that is full."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(int(seconds), 0)} s"
