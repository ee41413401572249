"""The heavy ball neural ODE and its hand-derived VJP."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...adjoint.dynamics.protocol import Dynamics
from ..fields.field import as_field
from ..transforms import Sigmoid, raw_parameter
from .blocks import fitted, grouped, paired, total


class HeavyBallODE(nn.Module, Dynamics):
    """h' = −m,  m' = f(t, h) − γ m.

    State z = [h, m], [2, B, *S]; f: the field; γ = sigmoid(raw_gamma), learnt.
    Eq. 4 of the AdamNODE paper has the opposite sign of f; a network absorbs it.
    Source: H. Xia et al., Heavy ball neural ODEs, NeurIPS 2021; AdamNODE paper, Eq. 3.
    """

    blocks = ("h", "m")

    def __init__(self, field: Any, *, gamma: float, learnable: bool = True):
        super().__init__()
        self.field = as_field(field)
        self.raw_gamma = raw_parameter(Sigmoid.inverse("gamma", gamma), learnable=learnable)

    @property
    def gamma(self) -> Tensor:
        """γ, 0-d: the damping."""
        return Sigmoid.value(self.raw_gamma)

    def theta(self) -> tuple[Tensor, ...]:
        """(raw_gamma, the field's parameters …)."""
        return (self.raw_gamma, *self.field.theta())

    @property
    def channels_last(self) -> bool:
        """Whether the field is faster on blocks [B, C, H, W] in channels-last memory."""
        return getattr(self.field, "channels_last", False)

    def forward(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """(dz, saved) by the equations above."""
        h, m = z.unbind(0)
        f, acts = self.field.forward(t, h)
        gamma = self.gamma
        return torch.stack((m.neg(), torch.addcmul(fitted(f, z), m, gamma, value=-1))), (acts, m, gamma)

    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """(z̄, (the field's deltas, a_m)), with one VJP of the field."""
        (acts, _, gamma), (a_h, a_m) = saved, cotangent.unbind(0)
        h_bar, deltas = self.field.vjp(acts, a_m)  # ∂m'/∂h = f_h
        m_bar = torch.addcmul(a_h, a_m, gamma).neg_()  # ∂h'/∂m = −1, ∂m'/∂m = −γ
        return torch.stack((h_bar, m_bar)), (deltas, a_m)

    def parameter_gradients(
        self, saved: list[Any], deltas: list[Any], weights: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """(raw_gamma's, the field's …), None for what is frozen."""
        field = self.field.parameter_gradients([s[0] for s in saved], [d[0] for d in deltas], weights)
        if not self.raw_gamma.requires_grad:
            return (None, *field)
        stages = [(m, a_m) for (_, m, _), (_, a_m) in zip(saved, deltas, strict=True)]
        rate = [paired(a_m, m.neg(), weight) for (m, a_m), weight in grouped(stages, weights)]  # ∂m'/∂γ = −m
        return (total(rate) * Sigmoid.derivative(self.raw_gamma), *field)
