"""``adamode data``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..train.known import check_dataset
from ..train.text import wrapped
from .paths import check_output_file, write_json
from .status import reports_errors


@reports_errors
def data(
    name: Annotated[str | None, typer.Argument(help="Which data set.", show_default="all")] = None,
    data_dir: Annotated[
        str | None,
        typer.Option("--data-dir", envvar="ADAMODE_DATA", help="Folder that holds the files."),
    ] = None,
    own: Annotated[
        str | None,
        typer.Option("--data", help="Your own data: a folder of pictures by class, an .npz, a recording."),
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Let torchvision fetch NAME into the folder if it is missing.")
    ] = False,
    json_path: Annotated[
        str | None,
        typer.Option("--json", metavar="PATH|-", help="Write the cards as JSON; - is the standard output."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only what is wrong.")] = False,
) -> None:
    """Show what each data set is: counts, shape, source, checksums.

    The data are read and checked: exit status 2 says that a file is damaged, or NAME is not there.

    Without NAME, missing data sets are listed with what was looked for.
    """
    from ..solvers.errors import ArgumentError, MissingDataError

    check_output_file("--json", json_path)
    if name is not None:
        check_dataset(name)
    if download and name is None:
        raise ArgumentError("--download fetches one data set: say which, for instance adamode data mnist.")
    from ..train.data import DATASETS, DataOptions, load_data
    from ..train.data.own import load_own

    if own is not None:
        if name is not None:
            raise ArgumentError(f"{name!r} and --data {own!r}: give one of the two.")
        card = load_own(DataOptions(path=own)).card
        if json_path is not None:
            write_json({"data": [card.as_dict()]}, json_path, indent=1, ensure_ascii=False)
        if json_path != "-" and not quiet:
            typer.echo(wrapped(str(card), " " * 10))
        return
    cards: list[dict[str, Any]] = []
    for known in DATASETS if name is None else (name,):
        entry: dict[str, Any] = {"name": known, "about": DATASETS[known].about, "available": True}
        try:
            card = load_data(known, DataOptions(data_dir=data_dir, download=download)).card
            entry.update(card.as_dict())
            text = str(card)
        except MissingDataError as error:  # a damaged file ends the list
            if name is not None:
                raise
            entry.update(available=False, error=str(error))
            text = f"data      {known}: not here ({DATASETS[known].about})\nmissing   {error}"
        cards.append(entry)
        if json_path != "-" and not quiet:
            text = wrapped(text, " " * 10)
            typer.echo(text if name is not None else f"{text}\n")
    if json_path is not None:
        write_json({"data": cards}, json_path, indent=1, ensure_ascii=False, allow_nan=False)
