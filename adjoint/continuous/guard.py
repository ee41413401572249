"""What guards a reverse solve: the reconstruction error, and errors that say what happened where."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from ...solvers.errors import SolverError, solver_error
from ...solvers.march.samples import SampleSettings
from ...solvers.solve import Settings
from ...solvers.step.norms import Tolerance
from ..dynamics.protocol import Dynamics

AnySettings = TypeVar("AnySettings", Settings, SampleSettings)

WAY_OUT = (
    "adamode.solve(..., gradient=adamode.Discrete()), or Interpolating(), takes the state from the forward "
    "pass and does not rebuild it."
)


def distance(back: Tensor, stored: Tensor, settings: Settings) -> Tensor:
    """How far a rebuilt state is from the stored one: the norm of the difference in tolerances, 0-d."""
    return settings.norm((back - stored) / settings.tolerance.scale(stored))


def judged_by(settings: AnySettings, forward: AnySettings) -> AnySettings:
    """The reverse settings with the looser of both tolerances, for measuring distances.

    The stored state is only as near to the solution as the forward tolerance: a reverse solve that is
    finer comes back to the solution, and not to it.
    """
    ours, theirs = settings.tolerance, forward.tolerance
    tolerance = Tolerance(_larger(ours.rtol, theirs.rtol), _larger(ours.atol, theirs.atol))
    return dataclasses.replace(settings, tolerance=tolerance)


def _larger(a: float | Tensor, b: float | Tensor) -> float | Tensor:
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        return max(a, b)
    both = (
        x if isinstance(x, Tensor) else torch.tensor(x, dtype=torch.float64, device="cpu") for x in (a, b)
    )
    return torch.maximum(*both)


def too_far_text(t: float, found: float, limit: float) -> str:
    """The text of a ReconstructionError."""
    return (
        f"backsolve: solved backwards to t={t:.6g}, the state is {found:.3g} tolerances (RMS) from the "
        f"stored one; the limit is {limit:g}. The gradient cannot be trusted there. {WAY_OUT} Or solve "
        "with a tighter tolerance, or raise reconstruction_limit."
    )


def explain_failure(
    error: SolverError,
    dynamics: Dynamics,
    settings: Settings,
    i: int,
    forward_to: Callable[[int, float], Tensor] | None,
) -> SolverError:
    """The error of a reverse solve that could not go on, with what is known of it."""
    detail = [f"This is the reverse solve of backsolve, which rebuilds the state backwards. {error.detail}"]
    where = error.where
    if where is not None:
        half = "state" if where[0] == 0 else "adjoint"
        detail.append(f"First not finite: {position(where[1:], dynamics)} of the {half}.")
    if forward_to is not None and error.state is not None:
        try:
            with torch.no_grad():
                off = float(distance(error.state[0], forward_to(i, error.t), settings))  # host read
            detail.append(f"The rebuilt state was {off:.3g} tolerances (RMS) from the forward one there.")
        except SolverError:
            pass  # the comparison is a courtesy; the failure itself is what counts
    detail.append(WAY_OUT)
    return solver_error(error.t, error.dt, error.status, error.stats, " ".join(detail))


def position(index: tuple[int, ...], dynamics: Dynamics) -> str:
    """An index into a state in words: block and sample where the dynamics names its blocks."""
    blocks = getattr(getattr(dynamics, "inner", dynamics), "blocks", None)
    if blocks and len(index) >= 2 and index[0] < len(blocks):
        return f"block {blocks[index[0]]}, sample {index[1]}, entry {index[2:]}"
    return f"entry {index}"
