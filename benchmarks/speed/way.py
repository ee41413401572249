"""A way to the gradient (or, forward only, to the solution), by name."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable, Iterable

from .cases import Case
from .job import Counts, Job

OURS, PEER, FLOOR = "ours", "peer", "floor"


def everywhere(case: Case) -> bool:
    """Every case of one solve."""
    return case.kind != "epoch"


@dataclasses.dataclass(frozen=True)
class Way:
    """name: "library/method/variant".
    group: "ours", "peer" or "floor".

    prepare(case, counts): a job, run once; raises Unavailable. counts: of our discrete gradient (or
    forward solve), which a floor repeats; None before that is known.
    fits: whether the case is of this way's kind at all; where not, no row is shown.
    package: what must be installed.
    slow: left out by --quick unless named.
    """

    name: str
    group: str
    prepare: Callable[[Case, Counts | None], Job]
    fits: Callable[[Case], bool] = everywhere
    package: str | None = None
    slow: bool = False


def chosen(ways: Iterable[Way], patterns: str | None, *, quick: bool) -> list[Way]:
    """Those whose name fits one of the comma-separated patterns (shell-like; a bare prefix will do).

    Raises ValueError for a pattern that fits none.
    """
    ways = list(ways)
    if not patterns:
        return [way for way in ways if not (quick and way.slow)]
    found: list[Way] = []
    for pattern in filter(None, (part.strip() for part in patterns.split(","))):
        fitting = [w for w in ways if fnmatch.fnmatch(w.name, pattern) or w.name.startswith(f"{pattern}/")]
        if not fitting:
            raise ValueError(f"--way {pattern}: fits none of {', '.join(w.name for w in ways)}.")
        found += [way for way in fitting if way not in found]
    return [way for way in ways if way in found]
