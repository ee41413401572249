"""A cheap estimate of dt·|λ|, λ the dominant eigenvalue of ∂f/∂y, from stages already there.

    dt |λ| ≈ dt ‖k_i − k_j‖ / ‖Y_i − Y_j‖  for two stages at the same time, c_i = c_j

An explicit method whose steps stay near the edge of its stability region, where accuracy alone
would allow longer ones, is telling that the problem is stiff.
Source: Hairer, Wanner, Solving Ordinary Differential Equations II, IV.2, Eq. (2.18) ff.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..methods.stability import real_stability_limit
from ..methods.tableau import Tableau
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
def sample_stiffness(step: SampleStep, tableau: Tableau) -> Tensor:
    """`stiffness` of each sample's step, [b]."""
    pair = stage_pair(tableau)
    if pair is None:
        return torch.full_like(step.t0, math.nan)
    i, j = pair
    stages, clocks = step.result.stages, step.clocks
    top = clocks.rms((stages.get(i) - stages.get(j)).double())
    bottom = clocks.rms((stages.advance(step.y0, i) - stages.advance(step.y0, j)).double())
    return (step.t1 - step.t0).abs() * top / bottom


@torch.no_grad()
def stiffness(step: Step) -> Tensor:
    """dt·|λ| of a step, 0-d; NaN where the method has no two stages at the same time."""
    pair = stage_pair(step.tableau)
    stages = step.result.stages
    if pair is None or len(step.result.saved) <= pair[0]:
        return torch.full((), math.nan, dtype=torch.float64, device="cpu")
    i, j = pair
    top = torch.linalg.vector_norm((stages.get(i) - stages.get(j)).double())
    bottom = torch.linalg.vector_norm((stages.advance(step.y0, i) - stages.advance(step.y0, j)).double())
    return abs(step.dt) * top / bottom


def stiffness_sentence(step: Step) -> str:
    """What the estimate says about a solve that ran out of steps; "" where it says nothing."""
    value = float(stiffness(step))  # host read
    if not math.isfinite(value):
        return ""
    limit = real_stability_limit(step.tableau)
    verdict = "no sign of stiffness."
    if value > 0.5 * limit:
        verdict = "the problem is stiff there; stability, not accuracy, limits an explicit method's step."
    return (
        f"Measured in the last step: dt·|λ| ≈ {value:.2g}, where {step.tableau.name} is stable up to "
        f"{limit:.2g}: {verdict}"
    )
