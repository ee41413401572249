"""``adamode models``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .paths import check_output_file, write_json
from .status import reports_errors


@reports_errors
def models(
    task: Annotated[
        str | None,
        typer.Option(
            help="digits, mnist, cifar10, silverbox, silverbox-network, spiral, circles.",
            show_default="all",
        ),
    ] = None,
    match_parameters: Annotated[
        int | None,
        typer.Option(metavar="N", help="Pick each model's width so that it learns about N parameters."),
    ] = None,
    json_path: Annotated[
        str | None,
        typer.Option("--json", metavar="PATH|-", help="Write the rows as JSON; - is the standard output."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print no table.")] = False,
) -> None:
    """List the models by task: width, learnt parameters, how far from matched.

    Without --match-parameters the widths are the registered ones (MNIST, CIFAR-10 and Silverbox: the
    authors') and the parameters are compared with AdamNODE's.
    """
    check_output_file("--json", json_path)
    from ..models import sizes

    rows = [_row(size) for size in sizes(task, match_parameters)]
    if json_path is not None:
        write_json(rows, json_path, indent=1)
    if json_path != "-" and not quiet:
        typer.echo(_table(rows))


def _row(size: Any) -> dict[str, Any]:
    """One row of the JSON. size: `adamode.models.Size`."""
    return {
        "model": size.model,
        "task": size.task,
        "width": size.width,
        "parameters": size.parameters,
        "target": size.target,
        "difference": size.difference,
        "relative_difference": size.difference / size.target,
    }


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'task':<10} {'model':<9} {'width':<30} {'parameters':>10} {'target':>8} {'difference':>19}"]
    for row in rows:
        off = f"{row['difference']:+,} ({100 * row['relative_difference']:+.2f} %)"
        width = " ".join(f"{name} {value}" for name, value in row["width"].items())
        lines.append(
            f"{row['task']:<10} {row['model']:<9} {width:<30} {row['parameters']:>10,} "
            f"{row['target']:>8,} {off:>19}"
        )
    return "\n".join(lines)
