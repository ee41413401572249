"""Everything that one inspection writes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..plotting import save_figure
from ..solvers.write_aside import write_aside
from .adjoint import AdjointStudy
from .adjoint_picture import draw_adjoint
from .adjoint_tables import steps_csv, study_json, trajectory_csv
from .pictures import draw_precision, draw_solution, draw_steps
from .precision import Rung
from .reference import Reference
from .stability_picture import draw_stability, spectrum
from .study import Study
from .tables import summary_json, trace_csv, trace_json


def write_traces(folder: Path, studies: Sequence[Study]) -> list[Path]:
    """trace-METHOD.csv and .json of each study."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for study in studies:
        for suffix, text in (("csv", trace_csv(study)), ("json", trace_json(study))):
            path = folder / f"trace-{study.method}.{suffix}"
            write_aside(path, text)
            written.append(path)
    return written


def write_page(
    folder: Path, studies: Sequence[Study], reference: Reference | None, rungs: Sequence[Rung]
) -> list[Path]:
    """The pictures and summary.json; each written aside and renamed. Returns the paths."""
    name = studies[0].problem.name
    wide = 12 if len(studies[0].problem.y0) > 1 else 8
    pictures: dict[str, tuple[partial[None], tuple[float, float]]] = {}
    pictures["solution"] = (partial(draw_solution, studies=studies, reference=reference), (wide, 3.6))
    for study in studies:
        pictures[f"steps-{study.method}"] = (partial(draw_steps, study=study), (8, 6))
        found = spectrum(study)
        pictures[f"stability-{study.method}"] = (partial(draw_stability, study=study, found=found), (6, 6.5))
    if rungs and reference is not None:
        draw = partial(draw_precision, rungs=rungs, reference=reference, title=name)
        pictures["work-precision"] = (draw, (6.5, 4.5))
    written = []
    for title, (draw, size) in pictures.items():
        path = folder / f"{title}.png"
        save_figure(path, draw, size=size)
        written.append(path)
    path = folder / "summary.json"
    write_aside(path, summary_json(studies, reference, rungs))
    return [*written, path]


def write_adjoint(folder: Path, study: AdjointStudy) -> list[Path]:
    """adjoint-GRADIENT.csv (norms), adjoint-GRADIENT-steps.csv (attempts) and .json (all of it)."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        ".csv": trajectory_csv(study),
        "-steps.csv": steps_csv(study),
        ".json": study_json(study),
    }
    written = [folder / f"adjoint-{study.gradient}{suffix}" for suffix in texts]
    for path, text in zip(written, texts.values(), strict=True):
        write_aside(path, text)
    return written


def write_adjoint_picture(folder: Path, studies: Sequence[AdjointStudy]) -> Path:
    """adjoint.png of all gradients."""
    path = folder / "adjoint.png"
    save_figure(path, partial(draw_adjoint, studies=studies), size=(11, 7))
    return path
