"""``adamode verify``."""

from __future__ import annotations

import json
import os
from typing import Annotated, Any

import typer

from .status import reports_errors


@reports_errors
def verify(
    model: Annotated[str | None, typer.Option(help="Which model.", show_default="all")] = None,
    denominator: Annotated[
        str | None, typer.Option(help="exact, softplus or sigmoid.", show_default="all")
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            help="exact, paper (Eq. 15 as printed) or paper-rates (with 1−α, 1−β put in).",
            show_default="all",
        ),
    ] = None,
    gradient: Annotated[
        str | None, typer.Option(help="discrete, interpolating or backsolve.", show_default="all")
    ] = None,
    json_path: Annotated[
        str | None,
        typer.Option(
            "--json", metavar="PATH|-", help="Write the rows as JSON; - is the standard output, alone."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the weights, the start and the loss.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of torch.")] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the result only.")] = False,
) -> None:
    """Check the hand-derived gradients against autograd and finite differences.

    For each block a_h, a_m, a_v and each parameter: the relative error against autograd through the
    same steps and against central differences, in float64.

    The paper's printed Eq. 15 is measured beside it and not judged.

    Exit status 1 if the exact form misses a bound.
    """
    # A path that cannot be written is said before the work and not after it.
    if json_path not in (None, "-"):
        _check_folder(json_path)
    import torch

    from ..train.device import checked_device
    from ..verify import DENOMINATORS, FORMS, GRADIENTS, MODELS, verify_models

    torch.set_num_threads(threads)
    report = verify_models(
        models=MODELS if model is None else (model,),
        denominators=DENOMINATORS if denominator is None else (denominator,),
        forms=FORMS if form is None else (form,),
        gradients=GRADIENTS if gradient is None else (gradient,),
        seed=seed,
        device=str(checked_device(device)),
    )
    if json_path is not None:
        text = json.dumps(report.as_dict(), indent=1, allow_nan=False)
        if json_path == "-":
            typer.echo(text)
        else:
            from ..train.write_aside import write_aside

            write_aside(json_path, text + "\n")
    if json_path != "-":
        typer.echo(conclusion(report) if quiet else f"{tables(report)}\n{conclusion(report)}")
    if not report.ok:
        raise typer.Exit(1)


def _check_folder(path: str) -> None:
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder) or os.path.isdir(path):
        typer.echo(f"error: --json {path!r}: it must be a file in a folder that exists.", err=True)
        raise typer.Exit(2)


def tables(report: Any) -> str:
    """One table for each denominator, gradient and stepping mode. report: a `ModelReport`."""
    from ..verify import aligned

    cases: dict[tuple[str, ...], list[Any]] = {}
    for row in report.rows:
        cases.setdefault((row.model, row.denominator, row.gradient, row.stepping), []).append(row)
    lines = []
    for case, rows in cases.items():
        model, denominator, gradient, stepping = case
        lines.append(f"{model}, denominator {denominator}, gradient {gradient}, stepping {stepping}")
        # Errors by column; a column is a form and a reference.
        columns = list(dict.fromkeys((row.form, row.reference) for row in rows))
        quantities = list(dict.fromkeys(row.quantity for row in rows))
        found = {(row.quantity, row.form, row.reference): row for row in rows}
        head = ["", *(_heading(*column) for column in columns), ""]
        body = []
        for quantity in quantities:
            cells = [found[(quantity, *column)] for column in columns]
            errors = [f"{cell.relative_error:.1e}" for cell in cells]
            judged = [cell.ok for cell in cells if cell.ok is not None]
            verdict = "" if not judged else "ok" if all(judged) else "FAILS"
            body.append([quantity, *errors, verdict])
        bounds = {
            column: next(r.bound for r in rows if (r.form, r.reference) == column) for column in columns
        }
        body.append(["bound", *("none" if bounds[c] is None else f"{bounds[c]:.0e}" for c in columns), ""])
        lines += ["  " + line for line in aligned([head, *body])]
        lines.append("")
    return "\n".join(lines)


def _heading(form: str, reference: str) -> str:
    name = {"autograd": "autograd", "finite-differences": "differences"}.get(reference, reference)
    return name if form == "exact" else f"{form} (wrong)"


def conclusion(report: Any) -> str:
    """The last lines: the printed form's error, and the verdict. report: a `ModelReport`."""
    lines = []
    if report.printed:
        lines.append("The paper's printed adjoint, Eq. 15, is wrong by tens of per cent and more:")
        lines += [f"  {error.sentence()}" for error in report.printed]
    judged = [row for row in report.rows if row.ok is not None]
    failed = [row for row in judged if not row.ok]
    if not judged:
        lines.append("Nothing was judged: printed forms have no bound.")
    elif not failed:
        lines.append(f"ok: all {len(judged)} comparisons of the exact form are within their bounds.")
    else:
        worst = max(failed, key=lambda row: row.relative_error / (row.bound or 1.0))
        lines.append(
            f"FAILED: {len(failed)} of {len(judged)} comparisons of the exact form miss their bounds, the "
            f"worst {worst.quantity} against {worst.reference} ({worst.denominator}, {worst.gradient}, "
            f"{worst.stepping}): {worst.relative_error:.1e} for {worst.bound:.0e}."
        )
    return "\n".join(lines)
