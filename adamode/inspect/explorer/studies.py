"""Pages of what `adamode inspect` studies."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..adjoint import AdjointStudy
from ..study import Study
from .back import way_of
from .page import Words, page_data, write_page


def write_study(path: str | os.PathLike[str], study: Study) -> Path:
    """The page of one solve; of one that failed as far as it came."""
    problem, failure = study.problem, study.failure
    words = Words(problem.name, problem.equation, problem.source, problem.log_time, problem.plane)
    told = None if failure is None else str(failure)
    return write_page(path, page_data(study.rows, words, study.status, told, study.stats))


def write_adjoints(path: str | os.PathLike[str], studies: Sequence[AdjointStudy]) -> Path:
    """The page of one solve with its way back by several gradients."""
    first, problem = studies[0], studies[0].problem
    words = Words(problem.name, problem.equation, problem.source, problem.log_time)
    ways = [way_of(study) for study in studies]
    data = page_data(first.way.forward, words, "SUCCESS", None, first.way.stats, ways)
    return write_page(path, data)
