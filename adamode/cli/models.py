"""``adamode models``."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from ..models.known import MODELS, TASKS, check_model, check_task
from ..train.text import aligned, wrapped
from .paths import check_output_file, write_json
from .status import reports_errors


@reports_errors
def models(
    task: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(TASKS)}.",
            show_default="all",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(MODELS)}.",
            show_default="all",
        ),
    ] = None,
    match_parameters: Annotated[
        int | None,
        typer.Option(metavar="N", help="Pick each model's width so that it learns about N parameters."),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Say instead which path each model takes: its field, hand-written VJP or autograd, memory "
            "layout, and what --compile would do.",
        ),
    ] = False,
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
    if model is not None:
        check_model(model)
    if task is not None:
        check_task(task)
    from ..models import defaults, sizes

    if model is not None and task is not None:
        defaults(model, task)  # refused where the model is none for the task
    if explain:
        rows = _paths(task, model, match_parameters)
    else:
        rows = [_row(size) for size in sizes(task, match_parameters) if model in (None, size.model)]
    if json_path is not None:
        write_json(rows, json_path, indent=1)
    if json_path != "-" and not quiet:
        typer.echo(_explained(rows) if explain else _table(rows))


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


def _paths(task: str | None, model: str | None, match_parameters: int | None) -> list[dict[str, Any]]:
    """The rows of --explain; no weights are drawn."""
    import torch

    from ..models import create, names, tasks
    from ..models.explain import explain
    from ..solvers.errors import ArgumentError

    if match_parameters is not None:
        raise ArgumentError(
            f"--match-parameters {match_parameters}: --explain looks at types, which no width changes; leave "
            "one of the two out."
        )
    rows = []
    for each in tasks() if task is None else (task,):
        for name in names() if model is None else (model,):
            if each not in tasks(name):
                continue
            with torch.device("meta"):
                model_of: Any = create(name, each)
            told = explain(model_of.block.dynamics)
            rows.append({"model": name, "task": each, **dataclasses.asdict(told)})
    return rows


def _explained(rows: list[dict[str, Any]]) -> str:
    lines = []
    for row in rows:
        layout = "channels-last for images" if row["channels_last"] else "as it comes"
        fast = (
            "hand-written (the fast path)" if row["vjp"] == "hand-written" else "by autograd (the slow path)"
        )
        programs = "attempts and steps back become compiled programs, one for each batch size"
        lines += [
            f"{row['model']} on {row['task']}",
            f"  dynamics  {row['dynamics']}, VJP hand-written",
            f"  field     {row['field']}, VJP {fast}",
            f"  state     {layout}",
            f"  compile   {'does nothing: ' + row['not_compiled'] if row['not_compiled'] else programs}",
        ]
    return "\n".join(wrapped(line, " " * 12) for line in lines)


def _table(rows: list[dict[str, Any]]) -> str:
    table = [("task", "model", "width", "parameters", "target", "difference")]
    for row in rows:
        width = " ".join(f"{name} {value}" for name, value in row["width"].items())
        off = f"{row['difference']:+,} ({100 * row['relative_difference']:+.2f} %)"
        table.append((row["task"], row["model"], width, f"{row['parameters']:,}", f"{row['target']:,}", off))
    return "\n".join(aligned(table, right=(3, 4, 5)))
