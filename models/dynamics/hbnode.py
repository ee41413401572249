"""The heavy ball neural ODE: momentum under a constant damping."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from typing_extensions import Unpack

from ..block import Network, SolverOptions
from .momentumnode import GAMMA, Momentum, MomentumODE


class HeavyBallODE(MomentumODE):
    """h' = −m,  m' = f(t, h) − γ m: `MomentumODE` with a constant damping.

    field: f(t, h) → dh, any module or function.
    gamma: start value of γ, in (0, 1).
    learnable: False freezes γ.

    State z = [h, m], [2, B, *S]; f: the field; γ = sigmoid(raw_gamma), learnt.
    Eq. 4 of the AdamNODE paper has the opposite sign of f; a network absorbs it.
    Source: H. Xia et al., Heavy ball neural ODEs, NeurIPS 2021; AdamNODE paper, Eq. 3.
    """

    def __init__(self, field: Any, *, gamma: float, learnable: bool = True):
        super().__init__(field, damping="constant", gamma=gamma, learnable=learnable)


class HeavyBall(Momentum):
    """The common part of both heavy balls: a constant damping γ."""

    @property
    def gamma(self) -> Tensor:
        """γ in (0, 1), 0-d: the damping."""
        gamma: Tensor = self.dynamics.gamma
        return gamma


class HBNODE(HeavyBall):
    """A heavy ball neural ODE: h' = −m, m' = f(t, h) − γ m, (h0, m0) ↦ h(T).

    field: f(t, h) → dh as in `NODE`.
    gamma: start value of the damping γ in (0, 1), learnt unless ``learnable=False``; the default is the
        authors' sigmoid(−3).
    learnable: False freezes γ.
    solver: as in `NODE`.
    Raises ArgumentError or ArgumentTypeError for bad settings, SolverError where a solve cannot go on.
    Source: H. Xia et al., Heavy ball neural ODEs, NeurIPS 2021; AdamNODE paper, Eq. 3.
    """

    def __init__(
        self, field: Network, *, gamma: float = GAMMA, learnable: bool = True, **solver: Unpack[SolverOptions]
    ):
        dynamics = HeavyBallODE(field, gamma=gamma, learnable=learnable)
        super().__init__(dynamics, solver)
