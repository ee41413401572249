"""What a step that is not explicit and of one state tells besides its end and its stages."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Solved:
    """How the stages of an implicit step were solved for; a flag or a number a clock.

    failed: an iteration did not converge.
    renewed: the Jacobian was evaluated.
    calls: of f, the Jacobian's among them.
    points: the states that the stages belong to, the first y.
    errors: the error estimates, where they are not the stages' alone.
    found: of a Rosenbrock method, what its systems were solved to.
    fastest: a bound of |λ| of the Jacobian it was solved with; None where there is no matrix.
    corrections: of each system Newton's corrections: sizes in tolerances, and which clocks were under way.
    """

    failed: Tensor
    renewed: Tensor
    calls: Tensor
    points: list[Tensor]
    errors: tuple[Tensor, ...] | None = None
    found: Sequence[Tensor] | None = None
    fastest: Callable[[], Tensor] | None = None
    corrections: Sequence[tuple[tuple[Tensor, Tensor], ...]] = ()


@dataclasses.dataclass(frozen=True)
class Paired:
    """What a step of a pair (`step.pairs`) has beside y.

    start, end: y's partner at both ends.
    calls: evaluations of f.
    errors: the error estimates, where they are not the stages' as they are now.
    apart: how far y and its partner are apart at both ends, as errors; None where they are not of one kind.
    """

    start: Tensor
    end: Tensor
    calls: int
    errors: tuple[Tensor, ...] | None = None
    apart: tuple[Tensor, Tensor] | None = None
