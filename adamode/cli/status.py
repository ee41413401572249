"""From errors to a message on stderr and an exit status: 1 the run failed, 2 the call was wrong."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable
from typing import ParamSpec

import typer

P = ParamSpec("P")


def reports_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Wraps a command: the project's errors become one message and an exit status."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt as stop:
            signum = getattr(stop, "signum", None)
            kept = "" if signum is None else " The checkpoint is saved; go on with --resume."
            typer.echo(f"\ninterrupted.{kept}", err=True)
            raise typer.Exit(128 + (signum or signal.SIGINT)) from None
        except BrokenPipeError:
            raise  # the reader of stdout has left, as `head` does: typer ends quietly, with status 1
        except (ValueError, TypeError, RuntimeError, OSError) as error:
            from ..solvers.errors import AdamodeError

            if not isinstance(error, AdamodeError | OSError):
                raise
            typer.echo(f"error: {error}", err=True)
            # Bad arguments and bad files are also ValueErrors or TypeErrors; failures are neither.
            raise typer.Exit(2 if isinstance(error, ValueError | TypeError) else 1) from None

    return wrapped
