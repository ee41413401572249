"""The augmented neural ODE: NODE's dynamics on a state with room to move around itself."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import Unpack

from ..block import Block, Network, SolverOptions
from ..checks import check_sizes
from .node import NeuralODE


class AugmentedNODE(NeuralODE):
    """h' = f(t, h) with h = [x, p extra channels]; the VJP is NODE's.

    Source: E. Dupont, A. Doucet, Y. W. Teh, Augmented neural ODEs, NeurIPS 2019, Sec. 4.
    """


class ANODE(Block):
    """A neural ODE with room to move around itself: NODE on h0 with channels of zeros appended.

    field: f(t, h) → dh on [B, C + augment, …].
    augment: how many channels are appended to dim 1 of h0; h(T) and the trajectory have them too.
    learnable, solver: as in `NODE`.
    Raises ArgumentError or ArgumentTypeError for bad settings, SolverError where a solve cannot go on.
    Source: E. Dupont, A. Doucet, Y. W. Teh, Augmented neural ODEs, NeurIPS 2019, Sec. 4.
    """

    def __init__(
        self, field: Network, *, augment: int, learnable: bool = True, **solver: Unpack[SolverOptions]
    ):
        check_sizes(augment=augment, least=0)
        super().__init__(AugmentedNODE(field), solver, pad=augment)

    @property
    def augment(self) -> int:
        """How many channels of zeros are appended."""
        return self.pad

    def forward(self, h0: Tensor) -> Tensor:
        """h(T), [B, C + augment, …], from h0 [B, C, …]."""
        return self.end(h0)

    def trajectory(self, h0: Tensor, t: Tensor) -> dict[str, Tensor]:
        """{"h"} at the times t, [T], as [T, B, C + augment, …]; the start is at t[0]."""
        return self.path(h0, t)
