"""``adamode runs``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..train.known import find_runs
from ..train.text import within, wrapped
from .paths import check_output_file, write_json
from .status import reports_errors

COLUMNS = ("run", "state", "epochs", "test", "validation", "NFE f/b", "efficacy f/b", "parameters", "seconds")


@reports_errors
def runs(
    names: Annotated[
        list[str] | None, typer.Argument(help="Which runs to compare.", show_default="all")
    ] = None,
    output_dir: Annotated[Path, typer.Option(help="Folder that holds the runs.")] = Path("runs"),
    to_json: Annotated[
        str | None, typer.Option("--json", help="Write the runs as JSON: a file, or - .")
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(help="Where to draw them.", show_default="OUTPUT_DIR/runs.png if several have begun"),
    ] = None,
    no_picture: Annotated[bool, typer.Option("--no-picture", help="Draw nothing.")] = False,
) -> None:
    """List runs and compare them: where they differ in settings, their results, a picture."""
    check_output_file("--json", to_json)
    check_output_file("--picture", None if picture is None else str(picture))
    find_runs(output_dir, names or ())
    from ..train.listing import differing_settings, list_runs

    found = list_runs(output_dir, names or ())
    drawn = None
    if not no_picture and (picture is not None or sum(bool(run.history) for run in found) > 1):
        from ..plotting import draw_runs

        drawn = draw_runs(found, output_dir / "runs.png" if picture is None else picture)
    if to_json is not None:
        write_json({"runs": [run.as_dict() for run in found]}, to_json)
    if to_json == "-":
        return
    if not found:
        typer.echo(f"no runs in {str(output_dir)!r}; `adamode train` makes one.")
        return
    typer.echo(table([COLUMNS, *map(line_of, found)]))
    differing = differing_settings(found)
    if differing:
        rows = [("run", *differing)]
        rows += [
            (run.name, *("" if run.settings is None else str(run.settings.get(n, "")) for n in differing))
            for run in found
        ]
        typer.echo("\nsettings that differ\n" + table(rows))
    for run in found:
        if run.problem:
            typer.echo(wrapped(f"{run.name}: {run.problem}", "  "), err=True)
    if drawn is not None:
        typer.echo(f"\npicture   {drawn}")


def table(rows: list[tuple[str, ...]]) -> str:
    """Rows of texts under each other; the first is the heading, which stands above each block of columns."""
    lines, n = within(rows), len(rows) + 1  # an empty line after each block
    blocks = [lines[i : i + n] for i in range(0, len(lines), n)]
    ruled = [line for block in blocks for line in (block[0], "─" * max(map(len, block)), *block[1:])]
    return "\n".join(ruled)


def results(output_dir: str | Path, names: Sequence[str]) -> str:
    """What came out of some runs: a table of their results."""
    from ..train.listing import list_runs

    chosen = [COLUMNS.index(name) for name in ("run", "state", "test", "NFE f/b", "seconds")]
    rows = [COLUMNS, *map(line_of, list_runs(output_dir, names))]
    return table([tuple(row[i] for i in chosen) for row in rows])


def line_of(run: Any) -> tuple[str, ...]:
    """What `COLUMNS` name. run: `adamode.train.listing.RunSummary`."""
    from ..train.measures import measure_of

    last, final = run.history[-1] if run.history else {}, run.final or {}

    def measured(row: dict[str, Any], part: str) -> str:
        measure = measure_of(row, part)
        if measure is None:
            return ""
        value = row[f"{part}_{measure.name}"]
        return f"{100 * value:.2f} %" if measure.name == "accuracy" else measure.told(value)

    def pair(row: dict[str, Any], name: str, form: str) -> str:
        both = [row.get(f"{name}_{direction}") for direction in ("forward", "backward")]
        return "" if None in both else " / ".join(format(value, form) for value in both)

    epochs = "" if run.settings is None else f"{len(run.history)}/{run.settings['epochs']}"
    return (
        run.name,
        run.state,
        epochs,
        measured(final, "test"),
        measured(run.best_row, "val"),
        pair(last, "nfe", ".1f"),
        pair(final, "efficacy", ".4f"),
        f"{final['parameters']:,}" if "parameters" in final else "",
        f"{sum(row['seconds'] for row in run.history):.0f}" if run.history else "",
    )
