"""Simplified Newton's iteration for one unknown of the size of a state, with convergence a clock.

A correction's size is measured in tolerances, ‖Δ‖ = norm(Δ/(atol + rtol |y|)). From the second on
θ = ‖Δ_m‖/‖Δ_{m−1}‖ estimates the rate of convergence, and what is left is at most θ/(1−θ) ‖Δ_m‖: it must
be ≤ κ, a fraction of the step's own tolerance. Where θ ≥ 1, or where so few corrections as are left would
not do, the iteration has failed, and the step is tried again with half its length.

Source: Hairer, Wanner, Solving Ordinary Differential Equations II, IV.8, Eq. (8.10), (8.11); the code RADAU5.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..clocks import Clocks, Norm, Tolerance

MOST = 10  # corrections: RADAU5 has 7 for three stages at once
FRACTION = 0.03  # κ at most: RADAU5's, who has √rtol below it
TOO_SLOW = 0.99
FASTEST = 1e-3  # the least θ/(1−θ) that is believed of the iteration before


@dataclasses.dataclass(frozen=True)
class Correction:
    """Δx; moved: the changes of states that it is; residual: a state, finite if what it was made of is.
    calls: evaluations of f; a number, or one a clock."""

    delta: Tensor
    moved: Sequence[Tensor]
    residual: Tensor
    calls: Any = 1


@dataclasses.dataclass(frozen=True)
class Measure:
    """In what corrections are measured: that of the steps' errors.

    norm: state → a number a clock.
    """

    clocks: Clocks
    norm: Norm
    tolerance: Tolerance

    def kappa(self, like: Tensor) -> float:
        """What may be left of the corrections, in tolerances: no less than rounding leaves."""
        rtol = self.tolerance.rtol
        least = float(rtol.min()) if isinstance(rtol, Tensor) else rtol
        return max(10.0 * torch.finfo(like.dtype).eps / least, min(FRACTION, least**0.5))

    def size(self, made: Correction, scale: Tensor) -> Tensor:
        """A correction in tolerances, a number a clock; scale: of a state, atol + rtol |y|."""
        sizes = [self.norm(moved / scale) for moved in made.moved]
        size = sizes[0] if len(sizes) == 1 else torch.stack(sizes).square().mean(0).sqrt()
        return size.to(scale.dtype)


@dataclasses.dataclass(frozen=True)
class Found:
    """What an iteration has come to; flags and numbers of clocks.

    failed: it did not converge.
    theta: the largest θ seen.
    calls: evaluations of f.
    alive: whether some clock took part and did not fail.
    sizes: of each correction its size in tolerances, and which clocks were under way.
    """

    x: Tensor
    failed: Tensor
    theta: Tensor
    calls: Tensor
    alive: bool
    sizes: tuple[tuple[Tensor, Tensor], ...] = ()


class Newton:
    """The iteration of one march; of each clock it remembers how the last one converged.

    eta: θ/(1−θ) of the last iteration of each clock; NaN before the first, and where it failed: a first
        correction alone may be small because the matrix is wrong.
    """

    def __init__(self) -> None:
        self.eta: Tensor | None = None

    def solve(
        self,
        measure: Measure,
        scale: Tensor,
        x: Tensor,
        correct: Callable[[Tensor], Correction],
        active: Tensor,
    ) -> Found:
        """Iterates from x until every active clock's has converged or failed. A host read a correction.

        scale: a correction's tolerance, like the state.
        """
        clocks, kappa = measure.clocks, measure.kappa(scale)
        eta = torch.full_like(active, math.nan, dtype=scale.dtype) if self.eta is None else self.eta
        eta = eta.clamp(min=FASTEST) ** 0.8
        going, failed = active, torch.zeros_like(active)
        calls, worst = torch.zeros_like(active, dtype=torch.int64), torch.zeros_like(eta)
        before: Any = None
        alive, m = True, 0
        sizes = list[tuple[Tensor, Tensor]]()
        while True:
            made = correct(x)
            size = measure.size(made, scale)
            sizes.append((size.detach(), going))
            calls, known = calls + going * made.calls, torch.isfinite(size)
            # A value of f that is no number ends it, and is seen in the stage; else the matrix is to blame.
            broken = ~known & clocks.all(torch.isfinite(made.residual))
            slow = torch.zeros_like(going)
            if before is not None:
                theta = torch.where(before > 0, size / before, 0.0)
                worst = torch.where(going & known, torch.maximum(worst, theta), worst)
                slow = (theta >= TOO_SLOW) | (theta ** (MOST - 1 - m) * size > kappa * (1.0 - theta))
                eta = torch.where(going & known & ~slow, theta / (1.0 - theta), eta)
            small = (eta * size <= kappa) | (size == 0)  # where nothing is known of θ, eta is NaN
            failed = failed | (going & (broken | (slow & ~small)))
            x = clocks.choose(going & ~broken, x + made.delta, x)
            going, before, m = going & known & ~slow & ~small, size, m + 1
            if m == MOST:
                failed = failed | going
                going = going & False
            on, alive = torch.stack((going.any(), (active & ~failed).any())).tolist()  # host read
            if not on:
                break
        self.eta = torch.where(failed, math.nan, eta)
        return Found(x, failed, worst, calls, alive, tuple(sizes))

    def select(self, keep: Tensor) -> None:
        """Samples leave the batch; keep holds the positions of those that stay."""
        if self.eta is not None:
            self.eta = self.eta.index_select(0, keep)
