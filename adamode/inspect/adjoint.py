"""The adjoint of one solve for study, by several gradients side by side."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..adjoint.gradients import Backsolve, Discrete, Gradient, Interpolating, Reversible
from ..adjoint.proof.study import AdjointTrajectory, adjoint_trajectory
from ..solvers.attempts import TraceRow
from ..solvers.methods import get_method
from .dynamics import AdjointProblem
from .known import check_walks_back
from .study import Settings

GRADIENTS: dict[str, Gradient] = {
    "discrete": Discrete(),
    "interpolating": Interpolating(),
    "backsolve": Backsolve(),
    "reversible": Reversible(),
}


@dataclasses.dataclass(frozen=True)
class AdjointStudy:
    """What one gradient did.

    way: its trajectory, with the failure where there was one.
    difference: ‖dL/dz(t0) − the discrete one‖ over the discrete one's norm, NaN where it was not reached.
    arguments: of the solve.
    seed: the loss's.
    """

    problem: AdjointProblem
    gradient: str
    way: AdjointTrajectory
    arguments: dict[str, Any]
    seed: int
    difference: float = math.nan

    @property
    def start_gradient(self) -> Tensor | None:
        """dL/dz(t0), or None where the walk back did not reach t0."""
        reached = len(self.way.t) and self.way.t[-1].item() == self.problem.span[0]
        return self.way.a[-1] if reached else None

    @property
    def norm(self) -> float:
        """‖dL/dz(t0)‖, Euclidean; NaN where it was not reached."""
        found = self.start_gradient
        return math.nan if found is None else float(found.double().norm())

    @property
    def failure_text(self) -> str:
        """Why the walk back failed, or ""."""
        return "" if self.way.failure is None else str(self.way.failure)

    @property
    def status(self) -> str:
        """ok, or the failure's status or class."""
        failure = self.way.failure
        if failure is None:
            return "ok" if self.way.given_up is None else "ok, second try"
        status = getattr(failure, "status", None)
        return type(failure).__name__ if status is None else status.name


def chosen_gradients(text: str | None) -> list[str]:
    """Names with commas between; for None those whose solve has the method's own steps. Raises ArgumentError
    for an unknown one."""
    if text is None:
        return [name for name, choice in GRADIENTS.items() if not isinstance(choice, Reversible)]
    return check_walks_back(text)


def study_adjoints(
    problem: AdjointProblem, gradients: Iterable[str], method: str, settings: Settings, seed: int = 0
) -> Iterator[AdjointStudy]:
    """One study a gradient, as each is done; the discrete one is computed first, to compare with.

    settings: its dtype and device are those of the problem's z0 already.
    seed: of w in L = w·z(T).
    A reverse solve that fails is in its study; a forward solve that fails raises SolverError.
    """
    arguments = settings.arguments(get_method(method), problem.span)
    t = torch.tensor(problem.span, dtype=torch.float64, device=problem.z0.device)
    g = problem.cotangent(seed)

    def way(name: str) -> AdjointStudy:
        found = adjoint_trajectory(
            problem.func, problem.z0, t, g, gradient=GRADIENTS[name], partial=True, **arguments
        )
        return AdjointStudy(problem, name, found, arguments, seed)

    names = list(gradients)
    discrete = way("discrete")
    reference = discrete.start_gradient
    for name in names:
        yield _compared(discrete if name == "discrete" else way(name), reference)


def _compared(study: AdjointStudy, reference: Tensor | None) -> AdjointStudy:
    own = study.start_gradient
    if own is None or reference is None:
        return study
    size = float(reference.double().norm())
    off = float((own.double() - reference.double()).norm())
    # Both zero: a loss that does not depend on the start.
    return dataclasses.replace(study, difference=off / size if size > 0 else (0.0 if off == 0 else math.inf))


def steps_of(rows: Iterable[TraceRow]) -> tuple[int, int]:
    """(accepted, rejected)."""
    decisions = [row.accepted for row in rows]
    return sum(decisions), len(decisions) - sum(decisions)
