"""Work against precision: what an error costs, over a ladder of tolerances."""

from __future__ import annotations

import dataclasses
import math

import torch

from ..adjoint.solve import solve
from ..solvers.errors import SolverError
from ..solvers.methods import get_method
from .problem import Field, Problem
from .reference import Reference
from .study import Settings

TOLERANCES = {torch.float64: range(3, 11), torch.float32: range(2, 7)}  # −log10
STEPS_OF_FIXED = tuple(50 * 2**i for i in range(7))
MAX_STEPS, MAX_NFE = 20_000, 40_000  # a rung that needs more, 7 s on one core, is left out


@dataclasses.dataclass(frozen=True)
class Rung:
    """One solve of a ladder.

    tolerance: rtol = atol, or NaN with a fixed step, which is then dt.
    """

    method: str
    tolerance: float
    dt: float
    error: float
    nfe: int
    n_accepted: int
    n_rejected: int


def ladder(
    problem: Problem, method: str, reference: Reference, settings: Settings, f: Field | None = None
) -> list[Rung]:
    """Solves from loose to tight; ends where a solve needs more than MAX_STEPS steps.

    With a fixed step (settings.dt, or a method without an error estimate) the steps are halved instead.
    A solve that blows up at a loose tolerance is left out.
    """
    t = torch.tensor(reference.times, dtype=torch.float64, device=settings.device)
    y0 = problem.state(settings.dtype, settings.device)
    span = abs(problem.span[1] - problem.span[0])
    fixed = settings.dt is not None or not get_method(method, implicit=True).adaptive
    found: list[Rung] = []
    for setting in STEPS_OF_FIXED if fixed else TOLERANCES[settings.dtype]:
        dt = span / setting if fixed else None
        tolerance = 1e-6 if fixed else 10.0**-setting
        try:
            sol = solve(
                problem.f if f is None else f,
                y0,
                t,
                method=method,
                rtol=tolerance,
                atol=tolerance,
                dt=dt,
                max_steps=MAX_STEPS,
                gradient=None,
            )
        except SolverError:
            continue
        stats = sol.stats
        found.append(
            Rung(
                method,
                math.nan if fixed else tolerance,
                math.nan if dt is None else dt,
                max(reference.errors(sol.y)),
                int(stats.nfe),
                int(stats.n_accepted),
                int(stats.n_rejected),
            )
        )
        if stats.nfe > MAX_NFE:
            break
    return [rung for rung in found if math.isfinite(rung.error)]
