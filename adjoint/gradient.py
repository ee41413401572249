"""The gradient choices of `adamode.solve`, as frozen dataclasses.

The default is `Discrete`: it is the exact derivative of the numbers computed, needs no tolerance of
its own, cannot leave the domain of the dynamics, and is the fastest; its price is memory in
proportion to the number of steps.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from ..solvers.checks import check_positive
from ..solvers.errors import ArgumentError
from ..solvers.methods import get_method


@dataclasses.dataclass(frozen=True)
class Discrete:
    """The exact derivative of the accepted steps (discretise, then optimise).

    keep: "stages" keeps what every stage saved; "state" keeps the state at each step and evaluates
    its stages anew in the backward pass: less memory, one more evaluation a stage.
    checkpoints: keep at most that many states at any moment and take the steps between them again
    (whatever keep says). √N of them for N steps repeat each step about twice, log₂N of them about
    half as often as there are halvings.
    """

    keep: Literal["stages", "state"] = "stages"
    checkpoints: int | None = None

    def __post_init__(self) -> None:
        if self.keep not in ("stages", "state"):
            raise ArgumentError(f"Discrete: keep={self.keep!r} must be 'stages' or 'state'.")
        if self.checkpoints is not None:
            check_positive(self.checkpoints, "Discrete: checkpoints", integer=True)


@dataclasses.dataclass(frozen=True)
class Interpolating:
    """The continuous adjoint with the state from the forward pass's dense output.

    Memory grows with the number of steps, as for Discrete; the state is not rebuilt, so nothing can
    drift. rtol, atol, method: of the reverse solve; the forward ones where None.
    """

    rtol: float | None = None
    atol: float | None = None
    method: str | None = None

    def __post_init__(self) -> None:
        _check_tolerances(self)


@dataclasses.dataclass(frozen=True)
class Backsolve:
    """The continuous adjoint: state and adjoint solved backwards together (optimise, then discretise).

    Memory does not grow with the number of steps. The state is rebuilt backwards, which loses
    digits where the forward flow contracts. How far the rebuilt state is from the stored one is
    measured at every observation; past reconstruction_limit the reverse solve is done once more,
    starting afresh from `anchors` states kept along the forward pass, and if that does not help a
    ReconstructionError is raised.

    rtol, atol, method: of the reverse solve; the forward ones where None.
    norm: "seminorm" judges state and adjoint only; θ is a quadrature outside the error control.
    reconstruction_limit: the largest distance allowed (RMS), in units of the tolerance, the looser of
    forward and reverse: what a gradient error of about the same multiple of it goes with.
    anchors: how many states of the forward pass may be kept besides the observations (0: none). Of the 15
    hardest AdamNODE cases of the guard's table, (1−β)T > 15.5, 4, 8, 16 and 32 of them answer 0, 9, 13 and 13.
    """

    rtol: float | None = None
    atol: float | None = None
    method: str | None = None
    norm: Literal["seminorm"] = "seminorm"
    reconstruction_limit: float = 100.0
    anchors: int = 16

    def __post_init__(self) -> None:
        _check_tolerances(self)
        if self.norm != "seminorm":
            raise ArgumentError(f"Backsolve: norm={self.norm!r} must be 'seminorm'.")
        if isinstance(self.anchors, bool) or not isinstance(self.anchors, int) or self.anchors < 0:
            raise ArgumentError(f"Backsolve: anchors={self.anchors!r} must be a whole number, 0 or more.")
        if not self.reconstruction_limit > 0:
            raise ArgumentError(
                f"Backsolve: reconstruction_limit={self.reconstruction_limit!r} must be positive "
                "(math.inf: never an error)."
            )


@dataclasses.dataclass(frozen=True)
class Direct:
    """Plain backpropagation through the steps, by autograd: derivatives of every order."""


def _check_tolerances(choice: Interpolating | Backsolve) -> None:
    for name in ("rtol", "atol"):
        value = getattr(choice, name)
        if value is not None:
            check_positive(value, f"{type(choice).__name__}: {name}")
    if choice.method is not None:
        get_method(choice.method, f"{type(choice).__name__}: method")


Gradient = Discrete | Interpolating | Backsolve | Direct
