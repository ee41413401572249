"""``adamode verify``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from ..known import FORMS, GRADIENTS, SUITES
from ..models.known import DENOMINATORS, MODELS, SATURATIONS
from .paths import check_output_file, write_json
from .status import reports_errors

Full = Annotated[
    bool,
    typer.Option(
        "--full", help="Also every adaptive method, other fields, decreasing times, more seeds (minutes)."
    ),
]
JsonPath = Annotated[
    str | None,
    typer.Option("--json", metavar="PATH|-", help="Write the rows as JSON; - is the standard output, alone."),
]
HtmlPath = Annotated[
    str | None,
    typer.Option("--html", metavar="PATH", help="Write a page: each number beside its derivation."),
]

Suite = Annotated[
    str | None,
    typer.Option(
        help="In place of the gradients: published, against published solutions and gradients; stiff, "
        "implicit methods against published solutions (minutes each).",
        show_default="none",
    ),
]
ModelName = Annotated[
    str | None,
    typer.Option(
        help=f"{', '.join(MODELS)}.",
        show_default="all",
    ),
]
Activation = Annotated[
    str | None,
    typer.Option(
        help="σ of GHBNODE (tanh or hardtanh) and of GNesterovNODE (identity, too).", show_default="all"
    ),
]


@reports_errors
def verify(
    suite: Suite = None,
    model: ModelName = None,
    denominator: Annotated[
        str | None, typer.Option(help="AdamNODE's: exact, softplus or sigmoid.", show_default="all")
    ] = None,
    activation: Activation = None,
    form: Annotated[
        str | None,
        typer.Option(
            help="exact, paper (Eq. 15 as printed) or paper-rates (with 1−α, 1−β put in).",
            show_default="all",
        ),
    ] = None,
    gradient: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(GRADIENTS[:-1])} or {GRADIENTS[-1]}.",
            show_default="all",
        ),
    ] = None,
    full: Full = False,
    json_path: JsonPath = None,
    html_path: HtmlPath = None,
    seed: Annotated[int, typer.Option(help="Seed of the weights, the start and the loss.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of torch.")] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the result only.")] = False,
) -> None:
    """Check the hand-derived gradients of the nine models, or with --suite the solvers.

    For each block a_h, a_m, a_v and each parameter, in float64 and both stepping modes: the relative
    error against autograd and central differences through the same steps, against a solve at a
    tolerance of 1e-12, and against closed solutions.

    The paper's printed Eq. 15 and its other statements about the adjoint are measured beside it and not
    judged.

    --suite published solves DETEST, Arenstorf's orbits and the Pleiades with every adaptive method, and two
    published gradients with every adjoint; each error has a bound that follows from its problem.

    --suite stiff solves 37 stiff problems with implicit methods and auto, on the CPU, beside scipy's Radau
    where it is installed: ends within 100 tolerances, with 1.5 times its calls of f at most, and no more on
    average.

    Exit status 1 if the exact form, or a number of the suite, misses a bound.
    """
    # A path that cannot be written is said before the work and not after it.
    _check_names(model, denominator, activation, form, gradient)
    check_output_file("--json", json_path)
    check_output_file("--html", html_path)
    chosen = {
        "models": _only(model),
        "denominators": _only(denominator),
        "activations": _only(activation),
        "forms": _only(form),
        "gradients": _only(gradient),
    }
    given = {name: value for name, value in chosen.items() if value}
    if suite is not None:
        others = {"full": full, "html": html_path}
        _check_suite(
            suite, [*(name.removesuffix("s") for name in given), *(n for n, v in others.items() if v)]
        )
        run = _published if suite == "published" else _stiff
        if not run(json_path, device, threads, quiet):
            raise typer.Exit(1)
        return
    report = _verified(given, full, seed, device, threads)
    _write(report, json_path, html_path, f"seed {seed}, device {device}{', full' if full else ''}")
    if json_path != "-":
        _print(report, quiet)
    if not report.ok:
        raise typer.Exit(1)


def _verified(chosen: dict[str, Any], full: bool, seed: int, device: str, threads: int) -> Any:
    import warnings

    import torch

    from ..train.device import checked_device
    from ..verify import verify_models

    torch.set_num_threads(threads)
    # Of torch's own rules of forward mode, which it compiles when they are first asked for.
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
    return verify_models(**chosen, full=full, seed=seed, device=str(checked_device(device)))


def _check_names(*given: str | None) -> None:
    """Raises ArgumentError, with the nearest names, for an unknown one: before torch is imported."""
    from ..solvers.errors import check_choice

    known = {
        "model": MODELS,
        "denominator": DENOMINATORS,
        "activation": SATURATIONS,
        "form": FORMS,
        "gradient": GRADIENTS,
    }
    for (argument, names), value in zip(known.items(), given, strict=True):
        if value is not None:
            check_choice(argument, value, names)


def _check_suite(suite: str, given: Sequence[str]) -> None:
    """Raises ArgumentError for an unknown suite, and for options that are of the gradients' check."""
    from ..solvers.errors import ArgumentError, check_choice

    check_choice("--suite", suite, SUITES)
    if given:
        raise ArgumentError(
            f"--{given[0]} belongs to the check of the models' gradients: leave it out, or leave out --suite."
        )


def _published(json_path: str | None, device: str, threads: int, quiet: bool) -> bool:
    """Runs the suite and says what it found; whether all of it holds."""
    import torch

    from ..train.device import checked_device
    from ..verify.published import verify_published
    from ..verify.published.layout import conclusion, text_tables

    torch.set_num_threads(threads)
    say = (lambda problem: None) if quiet else (lambda problem: typer.echo(problem, err=True))
    report = verify_published(device=str(checked_device(device)), say=say)
    if json_path is not None:
        write_json(report.as_dict(), json_path, indent=1, allow_nan=False)
    if json_path != "-":
        typer.echo(conclusion(report) if quiet else f"{text_tables(report)}\n{conclusion(report)}")
    return report.ok


def _stiff(json_path: str | None, device: str, threads: int, quiet: bool) -> bool:
    """Runs the suite of stiff problems and says what it found; whether all of it holds."""
    import torch

    from ..verify.stiff import verify_stiff
    from ..verify.stiff.report import conclusion, text_table

    torch.set_num_threads(threads)
    report = verify_stiff(say=(lambda problem: None) if quiet else (lambda name: typer.echo(name, err=True)))
    if json_path is not None:
        write_json(report.as_dict(), json_path, indent=1, allow_nan=False)
    if json_path != "-":
        typer.echo(conclusion(report) if quiet else f"{text_table(report)}\n{conclusion(report)}")
    return report.ok


def _print(report: Any, quiet: bool) -> None:
    from ..verify.layout import conclusion, text_tables

    typer.echo(conclusion(report) if quiet else f"{text_tables(report)}\n{conclusion(report)}")


def _only(value: str | None) -> tuple[str, ...] | None:
    return None if value is None else (value,)


def _write(report: Any, json_path: str | None, html_path: str | None, settings: str) -> None:
    if html_path is not None:
        import torch

        from ..solvers.write_aside import write_aside
        from ..verify.page import html_page

        write_aside(html_path, html_page(report, f"adamode verify: {settings}, torch {torch.__version__}."))
    if json_path is not None:
        write_json(report.as_dict(), json_path, indent=1, allow_nan=False)
