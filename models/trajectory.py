"""A block from given states to the states at given times."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..solvers.checks import check_positive
from ..solvers.errors import ArgumentError, ArgumentTypeError
from .block import Block, IdentityBlock, WithBlock
from .checks import check_sizes


class TrajectoryModel(WithBlock):
    """States in the first row → block → states at the times of all later rows.

    start: from (x, h0) to the block's starts, such as `ZeroStart` or `LearnedStart`.
    features: n, numbers of the state that are data.
    state_unit: data that are 1 in the solver's state.
    """

    def __init__(
        self, start: nn.Module, block: Block | IdentityBlock, *, features: int, state_unit: float = 1.0
    ):
        super().__init__()
        check_sizes(features=features)
        check_positive(state_unit, "state_unit")
        self.start, self.block, self.features, self.state_unit = start, block, features, state_unit

    def forward(self, x: Tensor) -> Tensor:
        """States [B, L − 1, n] at the times of rows 1 … L−1, from x [B, L, 1 + n].

        Column 0 of x: the times, increasing, the same for all samples; the others: the state in row 0. What
        they hold in later rows is not read. Raises ArgumentError, ArgumentTypeError for anything else.
        """
        times = self._times(x)
        first = x[:, 0, 1:] / self.state_unit
        start = self.start(first, first)
        others = {name.removesuffix("0"): value for name, value in start.items() if name != "h0"}
        path = self.block.path(start["h0"], times, **others)
        return self.state_unit * path["h"][1:, :, : self.features].transpose(0, 1)

    def _times(self, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor):
            raise ArgumentTypeError(f"x is a {type(x).__name__}; give a tensor [B, L, {1 + self.features}].")
        if x.ndim != 3 or x.shape[2] != 1 + self.features or len(x) < 1 or x.shape[1] < 2:
            raise ArgumentError(
                f"x has shape {tuple(x.shape)}; it must be [B, L, {1 + self.features}], L ≥ 2: the time, "
                "and the state in the first row."
            )
        times = x[0, :, 0].detach()
        if not torch.equal(x[:, :, 0], times.expand(len(x), -1)):  # host read
            raise ArgumentError("x[:, :, 0]: the times must be the same for every sample of a batch.")
        return times.to(torch.float64)
