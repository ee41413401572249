"""The gradient choices of `solve`: what each of them may be told."""

from __future__ import annotations

import dataclasses
from typing import Literal

from ..solvers.checks import check_positive
from ..solvers.errors import ArgumentError, check_choice
from ..solvers.methods import get_method


@dataclasses.dataclass(frozen=True)
class Discrete:
    """The exact derivative of the accepted steps (discretise, then optimise).

    keep: "stages" stores the activations of every stage; "state" stores the state at each step and
        evaluates its stages anew in the backward pass: less memory, one more evaluation a stage.
    checkpoints: how many states are stored at most at any moment; the steps between them are taken again
        (whatever keep says). √N states for N steps repeat each step about twice, log₂N states about ½ log₂N
        times.
    """

    keep: Literal["stages", "state"] = "stages"
    checkpoints: int | None = None

    def __post_init__(self) -> None:
        check_choice("Discrete: keep", self.keep, ("stages", "state"))
        if self.checkpoints is not None:
            check_positive(self.checkpoints, "Discrete: checkpoints", integer=True)


@dataclasses.dataclass(frozen=True)
class _ReverseSolve:
    """How the adjoint equation is solved backwards."""

    rtol: float | None = None
    atol: float | None = None
    method: str | None = None

    def __post_init__(self) -> None:
        owner = type(self).__name__
        for name in ("rtol", "atol"):
            if getattr(self, name) is not None:
                check_positive(getattr(self, name), f"{owner}: {name}")
        if self.method is not None:
            get_method(self.method, f"{owner}: method", implicit=True)


@dataclasses.dataclass(frozen=True)
class Interpolating(_ReverseSolve):
    """The continuous adjoint with the state from the forward pass's dense output.

    rtol, atol, method: of the reverse solve; the forward ones where None.

    Memory grows with the number of steps, as for Discrete. The state is not rebuilt, so nothing can
    drift.
    """


@dataclasses.dataclass(frozen=True)
class Backsolve(_ReverseSolve):
    """The continuous adjoint: state and adjoint solved backwards together (optimise, then discretise).

    rtol, atol, method: of the reverse solve; the forward ones where None.
    norm: "seminorm" judges state and adjoint only; θ is a quadrature outside the error control.
    reconstruction_limit: the largest distance allowed (RMS), in units of the tolerance, the looser of
        forward and reverse; a gradient error of about the same multiple of the tolerance goes with it.
    anchors: how many states of the forward pass may be stored besides the observations (0: none). Of the 15
        hardest AdamNODE cases of the guard's table, (1−β)T > 15.5, 0, 9, 13 and 13 are answered with 4, 8, 16
        and 32 anchors.

    Memory does not grow with the number of steps. The state is rebuilt backwards, which loses
    digits where the forward flow contracts. The distance of the rebuilt state from the stored one is
    measured at every observation. Past reconstruction_limit the reverse solve is done once more,
    starting afresh from `anchors` states stored along the forward pass; where that does not help, a
    ReconstructionError is raised.
    """

    norm: Literal["seminorm"] = "seminorm"
    reconstruction_limit: float = 100.0
    anchors: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("Backsolve: norm", self.norm, ("seminorm",))
        if isinstance(self.anchors, bool) or not isinstance(self.anchors, int) or self.anchors < 0:
            raise ArgumentError(f"Backsolve: anchors={self.anchors!r} must be a whole number, 0 or more.")
        if not self.reconstruction_limit > 0:
            raise ArgumentError(
                f"Backsolve: reconstruction_limit={self.reconstruction_limit!r} must be positive "
                "(math.inf: never an error)."
            )


COUPLING = 0.999


def _check_coupling(owner: str, coupling: float) -> None:
    check_positive(coupling, f"{owner}: coupling")
    if not coupling <= 1:
        raise ArgumentError(
            f"{owner}: coupling={coupling!r} must lie in (0, 1]: 0.999 as a rule, less where steps must be "
            "longer than the pair's stability allows."
        )


@dataclasses.dataclass(frozen=True)
class Direct:
    """Plain backpropagation through the steps, by autograd: derivatives of every order.

    coupling: takes the steps of Reversible(coupling) in place of the method's own, for comparison.
    """

    coupling: float | None = None

    def __post_init__(self) -> None:
        if self.coupling is not None:
            _check_coupling("Direct", self.coupling)


@dataclasses.dataclass(frozen=True)
class Reversible:
    """The exact derivative of steps that can be undone: every state is rebuilt from the last one.

    coupling: λ in (0, 1] of the pair (y, z) that any explicit method's steps become (docs/reversible.md):
        y1 = λ y + (1 − λ) z + Ψ_h(t, z), z1 = z − Ψ_{−h}(t1, y1). Nearer to 1 rounding grows less on the way
        back, by λ^−N over N steps; farther from 1 the pair is stable with longer steps. It has no meaning for
        method="alf", whose pair is (y, v).
    reconstruction_limit: the largest distance allowed between a rebuilt state and the stored one (RMS), in
        units of the solve's rtol and atol, with fixed steps too; past it a ReconstructionError.

    Memory grows with the number of steps only by two numbers a step and clock, and by the outputs;
    dense=True keeps the steps themselves. The forward solve takes these steps whether a gradient flows or
    not: its numbers are those of the pair, twice the evaluations of func a step.
    Source: S. McCallum, J. Foster, arXiv 2410.11648 (2024).
    """

    coupling: float = COUPLING
    reconstruction_limit: float = 100.0

    def __post_init__(self) -> None:
        _check_coupling("Reversible", self.coupling)
        if isinstance(self.reconstruction_limit, str) or not self.reconstruction_limit > 0:
            raise ArgumentError(
                f"Reversible: reconstruction_limit={self.reconstruction_limit!r} must be positive "
                "(math.inf: never an error)."
            )


Gradient = Discrete | Interpolating | Backsolve | Direct | Reversible
CHOICES = (Discrete, Interpolating, Backsolve, Direct, Reversible)
