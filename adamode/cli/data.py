"""``adamode data``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..solvers.errors import ArgumentError, MissingDataError
from ..train.known import ABOUT, check_dataset
from ..train.places import PLACES
from ..train.text import aligned, columns, wrapped
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
    check: Annotated[
        bool, typer.Option("--check", help="Read and check all data sets that are there, as one by NAME.")
    ] = False,
    json_path: Annotated[
        str | None,
        typer.Option("--json", metavar="PATH|-", help="Write the same as JSON; - is the standard output."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only what is wrong.")] = False,
) -> None:
    """List the data sets and what is missing; with NAME read one: counts, shape, source, checksums.

    The list looks for files and reads none.

    With NAME or --check the data are read and checked: exit status 2 says that a file is damaged, or NAME is
    not there.
    """
    check_output_file("--json", json_path)
    if name is not None:
        check_dataset(name)
    if download and name is None:
        raise ArgumentError("--download fetches one data set: say which, for instance adamode data mnist.")
    if own is not None and (name is not None or check):
        raise ArgumentError(f"{name or '--check'!r} and --data {own!r}: give one of the two.")
    shown = json_path != "-" and not quiet
    if own is not None:
        rows = [_own(own, shown=shown)]
    elif name is None and not check:
        rows = _listed(data_dir)
        if shown:
            typer.echo(_table(rows))
    else:
        known = list(ABOUT) if name is None else [name]
        rows = [_read(each, data_dir, download, one=name is not None, shown=shown) for each in known]
    if json_path is not None:
        write_json({"data": rows}, json_path, indent=1, ensure_ascii=False, allow_nan=False)


def _listed(data_dir: str | None) -> list[dict[str, Any]]:
    """A row for each data set: what it is, whether its files are there, else what was looked for."""
    rows = []
    for name, about in ABOUT.items():
        missing = PLACES[name].missing(data_dir) if name in PLACES else ""
        row = {"name": name, "about": about, "available": not missing}
        rows.append({**row, "error": missing} if missing else row)
    return rows


def _table(rows: list[dict[str, Any]]) -> str:
    states = {row["name"]: ("there" if row["available"] else "missing") for row in rows}
    cells = [(name, state if name in PLACES else "none", ABOUT[name]) for name, state in states.items()]
    lines = aligned([("data set", "files", "what it is"), *cells])
    indent = " " * lines[0].index("what it is")
    parts = [wrapped(line, indent, columns()) for line in lines]
    for said in dict.fromkeys(row["error"] for row in rows if not row["available"]):
        parts.append("\n" + wrapped(f"missing   {said}", " " * 10))
    parts.append("\n`adamode data NAME` reads one and shows its card, `--check` all that are there.")
    return "\n".join(parts)


def _read(name: str, data_dir: str | None, download: bool, *, one: bool, shown: bool) -> dict[str, Any]:
    """The card of a data set that is read; printed where shown. one: missing data are an error."""
    from ..train.data import DataOptions, load_data

    row: dict[str, Any] = {"name": name, "about": ABOUT[name], "available": True}
    try:
        card = load_data(name, DataOptions(data_dir=data_dir, download=download)).card
        row.update(card.as_dict())
        text = str(card)
    except MissingDataError as error:  # a damaged file ends the list
        if one:
            raise
        row.update(available=False, error=str(error))
        text = f"data      {name}: not here ({ABOUT[name]})\nmissing   {error}"
    if shown:
        typer.echo(wrapped(text, " " * 10) + ("" if one else "\n"))
    return row


def _own(path: str, *, shown: bool) -> dict[str, Any]:
    """The card of the user's own data; printed where shown."""
    from ..train.data import DataOptions
    from ..train.data.own import load_own

    card = load_own(DataOptions(path=path)).card
    if shown:
        typer.echo(wrapped(str(card), " " * 10))
    told: dict[str, Any] = card.as_dict()
    return told
