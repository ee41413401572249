"""What takes the steps of a march in place of `rk_step`, and remembers something from one to the next."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import torch
from torch import Tensor

from ..methods.tableau import Tableau
from .runge_kutta import Evaluation, Field, Stages, StepResult

YES = torch.ones((), dtype=torch.bool, device="cpu")  # of the one clock that the host looks at


class Taker(abc.ABC):
    """The steps of one march. tableau: of their method."""

    tableau: Tableau

    @abc.abstractmethod
    def __call__(
        self, field: Field, y: Tensor, first: Evaluation, times: Sequence[Tensor], stages: Stages
    ) -> StepResult:
        """One attempt from y. field, first, times: as in `rk_step`."""

    @abc.abstractmethod
    def repeated(
        self, field: Field, y: Tensor, first: Evaluation, times: Sequence[Tensor], stages: Stages
    ) -> StepResult:
        """The last attempt made once more with dt = 0 for who did not accept it."""

    def accepted(self, which: Tensor) -> None:  # noqa: B027  (who remembers nothing need not be told)
        """The clocks that go on from the end of the last attempt."""

    def restarted(self, which: Tensor) -> None:  # noqa: B027
        """The clocks beside a jump of f."""

    def select(self, keep: Tensor) -> None:  # noqa: B027
        """Samples leave the batch; keep holds the positions of those that stay."""
