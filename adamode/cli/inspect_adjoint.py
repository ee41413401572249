"""``adamode inspect --adjoint``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..inspect.known import check_walks_back
from ..models.known import DENOMINATORS, MODELS
from ..train.text import wrapped

if TYPE_CHECKING:
    from ..inspect.adjoint import AdjointStudy
    from ..inspect.study import Settings


@dataclasses.dataclass(frozen=True)
class AdjointOptions:
    """The options that mean something with --adjoint only; None where not given."""

    gradient: str | None
    seed: int | None
    denominator: str | None

    def check(self) -> None:
        """Raises ArgumentError for an unknown name."""
        from ..solvers.errors import check_choice

        if self.gradient is not None:
            check_walks_back(self.gradient)
        if self.denominator is not None:
            check_choice("denominator", self.denominator, DENOMINATORS)

    def refuse(self, problem: str) -> None:
        """Raises ArgumentError where one is given, or the problem is a model, without --adjoint."""
        from ..solvers.errors import ArgumentError

        for name, value in dataclasses.asdict(self).items():
            if value is not None:
                raise ArgumentError(
                    f"--{name}={value!r} needs --adjoint: a plain inspection has no gradient."
                )
        if problem in MODELS:
            raise ArgumentError(f"problem {problem!r} is a model's dynamics: add --adjoint to look at it.")


@dataclasses.dataclass(frozen=True)
class Output:
    """What an inspection prints and where it writes.

    folder: of the problem, or the folder of all problems' folders.
    rows: attempts to print of each solve.
    quiet: whether the summary alone is printed.
    page: the HTML file that was asked for.
    """

    folder: Path
    rows: int
    quiet: bool
    page: Path | None = None

    def say(self, text: str) -> None:
        """Prints unless quiet."""
        if not self.quiet:
            typer.echo(text)

    def end(self, folder: Path, written: list[Path], failures: list[str]) -> bool:
        """Prints what was written (quiet: the folder alone) and what failed; whether anything did."""
        for path in [folder, *filter(None, [self.page])] if self.quiet else written:
            typer.echo(f"written   {path}")
        for text in failures:
            typer.echo(f"error: {text}", err=True)
        return bool(failures)


def check_adjoint(method: str | None, progress: bool | None) -> None:
    """Raises ArgumentError for what --adjoint cannot do."""
    from ..solvers.errors import ArgumentError

    if method is not None and "," in method:
        raise ArgumentError(f"--method={method!r}: with --adjoint give one method.")
    if progress:
        raise ArgumentError("--progress: a walk back has no bar; leave it out with --adjoint.")


def check_page(page: Path | None, methods: list[str]) -> None:
    """Raises ArgumentError where a page cannot be written, before anything is solved; None is no page."""
    if page is None:
        return
    from ..solvers.errors import ArgumentError

    if len(methods) > 1:
        raise ArgumentError(
            f"--method={','.join(methods)!r}: a page shows one solve, give one method with --page."
        )
    if page.is_dir() or not page.parent.is_dir():
        raise ArgumentError(f"--page={str(page)!r} must be a file in a folder that is there.")


def inspect_adjoint(
    name: str,
    start: tuple[list[float] | None, float, float | None],
    methods: list[str],
    settings: Settings,
    options: AdjointOptions,
    output: Output,
) -> bool:
    """Solves, walks back with each gradient, prints, writes; whether a walk back failed.

    start: y0, the start of time, its end.  What a gradient computed is written before the next begins.
    """
    from ..inspect.adjoint import chosen_gradients, study_adjoints
    from ..inspect.adjoint_tables import adjoint_summary
    from ..inspect.dynamics import MODELS, Wanted, find_adjoint_problem
    from ..inspect.page import write_adjoint, write_adjoint_picture
    from ..solvers.errors import SolverError

    gradients = chosen_gradients(options.gradient)
    seed = options.seed or 0
    y0, t_start, t_end = start
    wanted = Wanted(y0, t_start, t_end, seed, options.denominator, settings.dtype, settings.device)
    problem = find_adjoint_problem(name, wanted)
    folder = output.folder / problem.name
    output.say(
        wrapped(f"{problem.name}: {problem.equation}\n{problem.source}\n{problem.loss}, seed {seed}\n", "  ")
    )
    studies: list[AdjointStudy] = []
    written: list[Path] = []
    try:
        for study in study_adjoints(problem, gradients, methods[0], settings, seed):
            written += write_adjoint(folder, study)
            if output.rows:
                _print_attempts(study, output.rows, forward=not studies)
            studies.append(study)
    except SolverError as error:  # of the forward solve: there is nothing to walk back
        draw = "" if name in MODELS else " The same call without --adjoint draws how far it came."
        typer.echo(f"error: the forward solve: {error}{draw}", err=True)
        return True
    typer.echo(f"{adjoint_summary(studies)}\n")
    written.append(write_adjoint_picture(folder, studies))
    if output.page is not None:
        from ..inspect.explorer.studies import write_adjoints

        written.append(write_adjoints(output.page, studies))
    failed = [one for one in studies if one.way.failure is not None]
    texts = [(one.gradient, one.failure_text.removeprefix(f"{one.gradient}: ")) for one in failed]
    return output.end(folder, written, [f"{gradient}: {text}" for gradient, text in texts])


def _print_attempts(study: AdjointStudy, rows: int, *, forward: bool) -> None:
    from ..inspect.tables import attempts_table

    if forward:
        typer.echo(f"forward\n{attempts_table(study.way.forward, rows)}\n")
    if study.gradient == "discrete":  # the same steps: nothing new to see
        return
    lost = study.way.given_up
    if lost is not None:
        typer.echo(f"backward, {study.gradient}, given up\n{attempts_table(lost.backward, rows)}\n")
    typer.echo(f"backward, {study.gradient}\n{attempts_table(study.way.backward, rows)}\n")
