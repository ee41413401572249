"""The systems (I − h J) x = b of the samples, factored once a step, and their transposes."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from ..clocks import Clocks, Each
from .samples import Samples


class System(Protocol):
    """(I − h J) x = b of every sample.

    calls: evaluations of f that the last solution took; a number, or one a clock.
    """

    calls: Any

    def solve(self, b: Tensor) -> Tensor:
        """(I − h J)⁻¹ b of a state; NaN where there is none."""
        ...


class Factors:
    """LU factors of I − h J, one system a sample.

    blocks: J, [b, n, n].
    rate: h, 0-d or [b]; where it is 0 the system is the identity, whatever J.
    """

    calls = 0

    def __init__(self, samples: Samples, blocks: Tensor, rate: Tensor):
        self.samples = samples
        eye = torch.eye(blocks.shape[-1], dtype=blocks.dtype, device=blocks.device)
        h = rate.to(blocks.dtype).reshape(-1, 1, 1)
        self.matrix = eye - torch.where(h == 0, 0.0, h * blocks)
        lu, self.pivots, info = torch.linalg.lu_factor_ex(self.matrix)
        # x/∞ = 0 would pass for a solution.
        fine = torch.isfinite(self.matrix).flatten(1).all(1)
        self.lu = torch.where(fine[:, None, None], lu, torch.nan)
        self.singular = (info != 0) | ~fine  # [b]

    def solve(self, b: Tensor) -> Tensor:
        """(I − h J)⁻¹ b of a state."""
        return self._solved(b, transposed=False)

    def solve_transposed(self, b: Tensor) -> Tensor:
        """(I − h J)⁻ᵀ b of a state."""
        return self._solved(b, transposed=True)

    def _solved(self, b: Tensor, *, transposed: bool) -> Tensor:
        rows = self.samples.rows(b)[..., None]
        found = torch.linalg.lu_solve(self.lu, self.pivots, rows, adjoint=transposed)
        return self.samples.state(found[..., 0], b)


@torch.no_grad()
def spectral_bound(blocks: Tensor, scale: Tensor, clocks: Clocks) -> Tensor:
    """No eigenvalue of a clock's blocks is larger: the least of their norms ‖·‖₁ and ‖·‖∞, as they are and in
    units of a scale, a number a clock.

    blocks: [b, n, n].
    scale: [b, n], positive.
    """
    unit = (blocks * scale[:, None, :] / scale[:, :, None]).abs()
    sums = [x.sum(axis).amax(1) for x in (blocks.abs(), unit) for axis in (1, 2)]
    least = torch.stack(sums).amin(0)
    return least if isinstance(clocks, Each) else least.amax()
