"""``adamode cite``. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .status import reports_errors


@reports_errors
def cite(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Methods, gradients, models, data sets (dopri5 adamnode silverbox), or folders of runs.",
            show_default="adamode alone",
        ),
    ] = None,
    form: Annotated[str, typer.Option("--format", help="bibtex, or text to read.")] = "bibtex",
    listed: Annotated[bool, typer.Option("--list", help="List the names that have sources.")] = False,
    output_dir: Annotated[Path, typer.Option(help="Folder that holds the runs.")] = Path("runs"),
) -> None:
    """Print what to cite: adamode, and the sources of what you used.

    A run is cited by its settings: its model, data set, method and gradient.
    """
    from ..citation import KINDS, as_bibtex, as_text, known_as, names_in_run
    from ..solvers.errors import check_choice
    from ..train.text import wrapped

    check_choice("--format", form, ("bibtex", "text"))
    if listed:
        for kind, known in KINDS.items():
            typer.echo(wrapped(f"{kind + ':':<11}{', '.join(known)}", " " * 11))
        return
    wanted: list[str] = []
    for name in names or ():
        folder = Path(name) if Path(name).is_dir() else output_dir / name
        # A folder may have a method's name: ./digits is the folder, digits the data.
        if known_as(name) is not None or not folder.is_dir():
            wanted.append(name)
        else:
            wanted += names_in_run(folder)
    typer.echo((as_bibtex if form == "bibtex" else as_text)(wanted))
