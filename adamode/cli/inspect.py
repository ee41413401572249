"""``adamode inspect``."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..inspect.known import check_problem
from ..models.known import MODELS
from ..train.text import wrapped
from .inspect_adjoint import AdjointOptions, Output, check_adjoint, check_page, inspect_adjoint
from .status import reports_errors

if TYPE_CHECKING:
    from ..inspect.problem import Field, Problem
    from ..inspect.study import Settings

# Solves f of a problem under a progress bar: what it is called, then f → result.
Watch = Callable[[str, Callable[["Field"], Any]], Any]


_Problem = Annotated[
    str,
    typer.Argument(
        help="A name from --list, or your own: module:name or file.py:name. With --adjoint also a model "
        f"({', '.join(MODELS)}) or your own adamode.Dynamics."
    ),
]
_Method = Annotated[
    str | None,
    typer.Option(
        help="One or several, with commas; see docs/methods.md. With --adjoint one.",
        show_default="dopri5,tsit5,dop853; with --adjoint or --page dopri5",
    ),
]
_Dt = Annotated[
    float | None,
    typer.Option(help="A fixed step instead.", show_default="1/500 of the span where a method needs it"),
]
_Progress = Annotated[
    bool | None,
    typer.Option("--progress/--no-progress", help="Show a progress bar.", show_default="on a terminal"),
]
_Adjoint = Annotated[
    bool,
    typer.Option("--adjoint", help="Study the way back instead: the adjoint of L = w·y(T) and its steps."),
]
_Gradient = Annotated[
    str | None,
    typer.Option(
        help="With --adjoint: discrete, interpolating, backsolve, reversible, or several with commas.",
        show_default="all but reversible, whose solve takes other steps",
    ),
]
_Coupling = Annotated[
    float | None,
    typer.Option(
        help="Step the pairs of gradient=Reversible(coupling), and draw where they are stable.",
        show_default="the methods' own steps",
    ),
]
_Seed = Annotated[
    int | None,
    typer.Option(help="With --adjoint: of w, and of a model's weights and start.", show_default="0"),
]
_Denominator = Annotated[
    str | None,
    typer.Option(help="With --adjoint adamnode: exact, softplus or sigmoid.", show_default="exact"),
]
_Page = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write one HTML file too, for any browser: every attempt, its stages, error, controller, "
        "stability; with --adjoint the way back. Of one method.",
        show_default="none",
    ),
]


@reports_errors
def inspect(
    problem: _Problem = "van-der-pol",
    method: _Method = None,
    rtol: Annotated[float, typer.Option(help="Relative tolerance.")] = 1e-6,
    atol: Annotated[float, typer.Option(help="Absolute tolerance.")] = 1e-8,
    dt: _Dt = None,
    coupling: _Coupling = None,
    max_steps: Annotated[int, typer.Option(help="Limit on attempts of a solve.")] = 100_000,
    y0: Annotated[str | None, typer.Option(help="Another start: numbers with commas.")] = None,
    t_start: Annotated[float, typer.Option(help="Start of time, for a function f(t, y) of your own.")] = 0.0,
    t_end: Annotated[float | None, typer.Option(help="End of time.", show_default="problem's")] = None,
    dtype: Annotated[str, typer.Option(help="float64 or float32.")] = "float64",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads of torch.")] = 1,
    work_precision: Annotated[
        bool, typer.Option(help="Solve over a ladder of tolerances too (takes longest).")
    ] = True,
    rows: Annotated[int, typer.Option(min=0, help="Attempts to print of each solve; 0: none.")] = 20,
    progress: _Progress = None,
    output_dir: Annotated[Path, typer.Option(help="Folder of the problems' folders.")] = Path("inspect"),
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the summary only.")] = False,
    list_problems: Annotated[bool, typer.Option("--list", help="List the problems and end.")] = False,
    adjoint: _Adjoint = False,
    gradient: _Gradient = None,
    seed: _Seed = None,
    denominator: _Denominator = None,
    page: _Page = None,
) -> None:
    """Solve a known problem and look at every step.

    Writes to OUTPUT_DIR/PROBLEM: pictures of the solution, step sizes, error ratios, stability regions,
    work against precision; the trace of every attempt as CSV and JSON; summary.json.

    With --adjoint: adjoint.png, and for each gradient as CSV and JSON norms of dL/dz(t), how far
    the rebuilt state is off, and the steps in both directions.

    With --page: one HTML file that shows the attempts one by one (docs/study/explorer.md).

    A solve that fails is drawn as far as it came; the exit status is then 1.
    """
    if list_problems:
        from ..inspect.catalogue import PROBLEMS
        from ..inspect.listing import problems_table

        typer.echo(problems_table(list(PROBLEMS.values())))
        return
    chosen = AdjointOptions(gradient, seed, denominator)
    if adjoint:
        check_adjoint(method, progress)
        chosen.check()
    else:
        chosen.refuse(problem)
    check_problem(problem, models=adjoint)
    several = "dopri5" if adjoint or page is not None else "dopri5,tsit5,dop853"
    methods = _methods(method or several, implicit=not adjoint)
    check_page(page, methods)
    settings = _settings(rtol, atol, dt, max_steps, dtype, device, threads)
    if coupling is not None:
        settings = _coupled(settings, coupling, adjoint=adjoint)
    output = Output(output_dir, 0 if quiet else rows, quiet, page)
    if adjoint:
        start = _numbers(y0), t_start, t_end
        failed = inspect_adjoint(problem, start, methods, settings, chosen, output)
    else:
        from ..inspect.catalogue import find_problem

        found = find_problem(problem, _numbers(y0), t_end, t_start)
        watch = _watch(found, (sys.stderr.isatty() if progress is None else progress) and not quiet)
        output = dataclasses.replace(output, folder=output_dir / found.name)
        failed = _inspect(found, methods, settings, output, watch, work_precision=work_precision)
    if failed:
        raise typer.Exit(1)


def _inspect(
    problem: Problem,
    methods: list[str],
    settings: Settings,
    output: Output,
    watch: Watch,
    *,
    work_precision: bool,
) -> bool:
    """Solves, prints, writes; whether a solve failed."""
    from ..inspect.page import write_page, write_traces
    from ..inspect.precision import ladder
    from ..inspect.reference import find_reference
    from ..inspect.study import output_times, study
    from ..inspect.tables import attempts_table, ladder_table, summary_table

    output.say(wrapped(f"{problem.name}: {problem.equation}\n{problem.source}", "  ") + "\n")

    def studied(method: str) -> Any:
        return watch(method, lambda f: study(problem, method, settings, f))

    studies = [studied(m) for m in methods]
    for one in studies if output.rows else ():
        typer.echo(f"{one.method}\n{attempts_table(one.rows, output.rows)}\n")
    written = write_traces(output.folder, studies)  # now: a reference may last
    reference = watch("reference", lambda f: find_reference(problem, output_times(problem), f))
    studies = [one.measured_against(reference) for one in studies]
    typer.echo(summary_table(studies))
    against = "none: scipy did not reach the end" if reference is None else reference.kind
    typer.echo(f"reference: {against}\n")
    rungs = []
    if work_precision and reference is not None:
        for m in methods:
            climbed = functools.partial(ladder, problem, m, reference, settings)
            rungs += watch(f"{m}, ladder", climbed)
    if rungs:
        output.say(f"{ladder_table(rungs)}\n")
    elif work_precision:
        output.say("no work–precision picture: nothing to measure against, or no solve reached the end.\n")
    written += write_page(output.folder, studies, reference, rungs)
    if output.page is not None:
        from ..inspect.explorer.studies import write_study

        written.append(write_study(output.page, studies[0]))
    failures = [f"{one.method}: {one.failure}" for one in studies if one.failure is not None]
    return output.end(output.folder, written, failures)


def _methods(text: str, *, implicit: bool) -> list[str]:
    from ..solvers.methods import get_method

    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names or [text]:
        get_method(name, "--method", implicit=implicit)
    return names


def _numbers(text: str | None) -> list[float] | None:
    from ..solvers.errors import ArgumentError

    if text is None:
        return None
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise ArgumentError(f"--y0={text!r} must be numbers with commas between, such as 1,0.") from None


def _settings(
    rtol: float, atol: float, dt: float | None, max_steps: int, dtype: str, device: str, threads: int
) -> Settings:
    from ..solvers.errors import ArgumentError, check_choice, first_line

    check_choice("--dtype", dtype, ("float64", "float32"))
    import torch

    from ..inspect.study import Settings
    from ..solvers.checks import check_positive

    check_positive(threads, "--threads", integer=True)
    try:
        torch.zeros((), device=device)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        raise ArgumentError(f"--device={device!r} cannot be used: {first_line(error)}") from None
    torch.set_num_threads(threads)
    return Settings(rtol, atol, dt, max_steps, getattr(torch, dtype), device)


def _coupled(settings: Settings, coupling: float, *, adjoint: bool) -> Settings:
    from ..adjoint.gradients import Reversible
    from ..solvers.errors import ArgumentError

    if adjoint:
        raise ArgumentError(
            "--coupling is for the steps of a solve: with --adjoint take --gradient reversible."
        )
    return dataclasses.replace(settings, coupling=Reversible(coupling).coupling)


def _watch(problem: Problem, bar: bool) -> Watch:
    from ..inspect.progress import progress

    @contextmanager
    def watched(label: str) -> Iterator[Field]:
        if not bar:
            yield problem.f
            return
        with progress(problem.f, *problem.span, label=label) as f:
            yield f

    def run(label: str, job: Callable[[Field], Any]) -> Any:
        with watched(label) as f:
            return job(f)

    return run
