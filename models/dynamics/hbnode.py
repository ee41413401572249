"""The heavy ball neural ODE and its hand-derived VJP."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from ..block import Block, Network, SolverOptions
from ..fields.field import Gradients
from .field_dynamics import FieldDynamics, Sigmoid, Slopes, fitted, grouped, paired, raw_parameter, total

GAMMA = 0.04742587317756678  # sigmoid(−3), where the authors start γ


class HeavyBallODE(FieldDynamics):
    """h' = −m,  m' = f(t, h) − γ m.

    State z = [h, m], [2, B, *S]; f: the field; γ = sigmoid(raw_gamma), learnt.
    Eq. 4 of the AdamNODE paper has the opposite sign of f; a network absorbs it.
    Source: H. Xia et al., Heavy ball neural ODEs, NeurIPS 2021; AdamNODE paper, Eq. 3.
    """

    blocks, scalars = ("h", "m"), ("raw_gamma",)

    def __init__(self, field: Any, *, gamma: float, learnable: bool = True):
        super().__init__(field)
        self.raw_gamma = raw_parameter(Sigmoid.inverse("gamma", gamma), learnable=learnable)

    @property
    def gamma(self) -> Tensor:
        """γ, 0-d: the damping."""
        return Sigmoid.value(self.raw_gamma)

    def _make(self) -> Any:
        """The damping γ as a number."""
        return self.gamma

    def forward(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """(dz, saved) by the equations above."""
        h, m = z.unbind(0)
        f, acts = self.field.forward(t, h)
        gamma = self._make() if self._made is None else self._made
        return torch.stack((m.neg(), torch.addcmul(fitted(f, z), m, gamma, value=-1))), (acts, m, gamma)

    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """(z̄, (the field's deltas, a_m)), with one VJP of the field."""
        (acts, _, gamma), (a_h, a_m) = saved, cotangent.unbind(0)
        h_bar, deltas = self.field.vjp(acts, a_m)  # ∂m'/∂h = f_h
        m_bar = torch.addcmul(a_h, a_m, gamma).neg_()  # ∂h'/∂m = −1, ∂m'/∂m = −γ
        return torch.stack((h_bar, m_bar)), (deltas, a_m)

    def divergence_rate(self) -> Tensor:
        """The rate −γ: ∂h'/∂h = 0, ∂m'/∂m = −γ."""
        return -self.gamma

    def _slopes(self, z: Tensor, f: Tensor, slopes: Tensor) -> Slopes:
        return (0.0, -1.0), (slopes, -self.gamma)

    def parameter_gradients(self, saved: list[Any], deltas: list[Any], weights: Tensor | None) -> Gradients:
        """The gradients of (raw_gamma, the field's parameters …), None where frozen."""
        field = self.field.parameter_gradients([s[0] for s in saved], [d[0] for d in deltas], weights)
        if not self.raw_gamma.requires_grad:
            return (None, *field)
        stages = [(m, a_m) for (_, m, _), (_, a_m) in zip(saved, deltas, strict=True)]
        rate = [paired(a_m, m.neg(), weight) for (m, a_m), weight in grouped(stages, weights)]  # ∂m'/∂γ = −m
        return (total(rate) * Sigmoid.derivative(self.raw_gamma), *field)


class HeavyBall(Block):
    """The common part of both heavy balls: a damping γ, and a state [h, m]."""

    @property
    def gamma(self) -> Tensor:
        """γ in (0, 1), 0-d: the damping."""
        gamma: Tensor = self.dynamics.gamma
        return gamma

    def forward(self, h0: Tensor, m0: Tensor | None = None) -> Tensor:
        """h(T), [B, C, …], like h0; m0 is zero where not given."""
        return self.end(h0, m=m0)

    def trajectory(self, h0: Tensor, t: Tensor, m0: Tensor | None = None) -> dict[str, Tensor]:
        """{"h", "m"} at the times t, [T], each [T, B, C, …]; the start is at t[0]."""
        return self.path(h0, t, m=m0)


class HBNODE(HeavyBall):
    """A heavy ball neural ODE: h' = −m, m' = f(t, h) − γ m, (h0, m0) ↦ h(T).

    field: f(t, h) → dh as in `NODE`.
    gamma: start value of the damping γ in (0, 1), learnt unless ``learnable=False``; the default is the
        authors' sigmoid(−3).
    The rest is as in `NODE`.
    Raises ArgumentError or ArgumentTypeError for bad settings, SolverError where a solve cannot go on.
    Source: H. Xia et al., Heavy ball neural ODEs, NeurIPS 2021; AdamNODE paper, Eq. 3.
    """

    def __init__(
        self, field: Network, *, gamma: float = GAMMA, learnable: bool = True, **solver: Unpack[SolverOptions]
    ):
        dynamics = HeavyBallODE(field, gamma=gamma, learnable=learnable)
        super().__init__(dynamics, solver)
