"""How stiff a problem is where a step was taken, from numbers that are there already.

Of an explicit step

    dt |λ| ≈ dt ‖k_i − k_j‖ / ‖Y_i − Y_j‖  for two stages at the same time, c_i = c_j

with λ the dominant eigenvalue of ∂f/∂y. An explicit method whose steps stay near the edge of its stability
region, where accuracy alone would allow longer ones, is telling that the problem is stiff. An implicit step
has a bound of |λ|, by the norms of the Jacobian that its equations were solved with.

Source: Hairer, Wanner, Solving Ordinary Differential Equations II, IV.2, Eq. (2.18) ff.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..methods.tableau import Tableau
from ..step.clocks import Tolerance
from .output import Step
from .samples import SampleStep


def stage_pair(tableau: Tableau) -> tuple[int, int] | None:
    """The last two stages at the same time (both at t1, say), or None where a method has none."""
    nodes = tableau.nodes()[: tableau.n_stages]
    for i in range(len(nodes) - 1, 0, -1):
        for j in range(i - 1, 0, -1):
            if nodes[i] == nodes[j] and tableau.rows()[i] != tableau.rows()[j]:
                return i, j
    return None


@torch.no_grad()
def stiffness(step: Step | SampleStep, tolerance: Tolerance | None = None) -> Tensor:
    """dt·|λ| of each clock's step; NaN where neither two stages nor a matrix tell it.

    tolerance: differences of stages are taken in its units, in which a small component that limits the step
        is as large as others; None: as they are.
    """
    solved, stages, clocks = step.result.solved, step.result.stages, step.clocks
    length: Any = step.length  # a float, or [b]
    if solved is not None and solved.fastest is not None:
        return solved.fastest().detach().double() * abs(length)
    pair = stage_pair(step.tableau)
    if pair is None or solved is not None or len(step.result.saved) <= pair[0]:
        return torch.full_like(clocks.total(step.y0), math.nan, dtype=torch.float64)
    i, j = pair
    slope, moved = stages.get(i) - stages.get(j), stages.advance(step.y0, i) - stages.advance(step.y0, j)
    if tolerance is not None:
        scale = tolerance.scale(step.y0.detach(), step.y1.detach())
        slope, moved = slope / scale, moved / scale
    # no_grad does not stop forward-mode AD.
    top, bottom = clocks.rms(slope.detach().double()), clocks.rms(moved.detach().double())
    found: Tensor = abs(length) * top / bottom
    return found
