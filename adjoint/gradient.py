"""The gradient choices of `adamode.solve`, as frozen dataclasses.

The default is `Discrete`: it is the exact derivative of the numbers computed, needs no tolerance of
its own, cannot leave the domain of the dynamics, and is the fastest; its price is memory in
proportion to the number of steps.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from ..solvers.errors import ArgumentError


@dataclasses.dataclass(frozen=True)
class Discrete:
    """The exact derivative of the accepted steps (discretise, then optimise).

    keep: "stages" keeps what every stage saved; "state" keeps the state at each step and evaluates
    its stages anew in the backward pass: less memory, one more evaluation a stage.
    """

    keep: Literal["stages", "state"] = "stages"

    def __post_init__(self) -> None:
        if self.keep not in ("stages", "state"):
            raise ArgumentError(f"Discrete: keep={self.keep!r} must be 'stages' or 'state'.")


@dataclasses.dataclass(frozen=True)
class Backsolve:
    """The continuous adjoint: state and adjoint solved backwards together (optimise, then discretise).

    Memory does not grow with the number of steps. The state is rebuilt backwards, which loses
    digits where the forward flow contracts; see reconstruction_limit.

    rtol, atol, method: of the reverse solve; the forward ones where None.
    norm: "seminorm" judges state and adjoint only; θ is a quadrature outside the error control.
    reconstruction_limit: the largest distance, in units of the tolerance (RMS), between the state
    solved backwards and the stored one; past it a ReconstructionError is raised.
    """

    rtol: float | None = None
    atol: float | None = None
    method: str | None = None
    norm: Literal["seminorm"] = "seminorm"
    reconstruction_limit: float = 1e4

    def __post_init__(self) -> None:
        for name in ("rtol", "atol"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, (int, float)) and 0 < value < math.inf):
                raise ArgumentError(f"Backsolve: {name}={value!r} must be positive and finite.")
        if self.norm != "seminorm":
            raise ArgumentError(f"Backsolve: norm={self.norm!r} must be 'seminorm'.")
        if not self.reconstruction_limit > 0:
            raise ArgumentError(
                f"Backsolve: reconstruction_limit={self.reconstruction_limit!r} must be positive "
                "(math.inf: never an error)."
            )


@dataclasses.dataclass(frozen=True)
class Direct:
    """Plain backpropagation through the steps, by autograd: derivatives of every order."""


Gradient = Discrete | Backsolve | Direct
