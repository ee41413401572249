"""The generalised heavy ball neural ODE and its hand-derived VJP."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ...adjoint.dynamics.protocol import Dynamics
from ...solvers.errors import ArgumentError, nearest
from ..fields.activations import get_activation
from ..fields.field import as_field
from ..transforms import Sigmoid, Softplus, raw_parameter
from .blocks import fitted, grouped, paired, total

Saturation = Literal["tanh", "hardtanh"]
SATURATIONS = get_args(Saturation)
BOUND = 5.0  # of hardtanh, as the authors' code has it


class GeneralisedHeavyBallODE(nn.Module, Dynamics):
    """h' = σ(−m),  m' = f(t, h) − γ m + ξ h.

    State z = [h, m], [2, B, *S]; f: the field; γ = sigmoid(raw_gamma), ξ = softplus(raw_xi), learnt;
    σ: tanh, or hardtanh clipped at ±5 (its derivative is 0 at ±5 exactly, as torch has it). With this
    sign of σ, +ξh is the restoring force.
    Source: H. Xia et al., Heavy ball neural ODEs, NeurIPS 2021 (there h' = σ(m) and −ξh).
    """

    blocks = ("h", "m")

    def __init__(
        self, field: Any, *, gamma: float, xi: float, activation: Saturation = "tanh", learnable: bool = True
    ):
        super().__init__()
        if activation not in SATURATIONS:
            raise ArgumentError(
                f"activation={activation!r} is not known: {nearest(str(activation), SATURATIONS)}"
            )
        self.field, self.activation = as_field(field), activation
        self.raw_gamma = raw_parameter(Sigmoid.inverse("gamma", gamma), learnable=learnable)
        self.raw_xi = raw_parameter(Softplus.inverse("xi", xi), learnable=learnable)

    @property
    def gamma(self) -> Tensor:
        """γ, 0-d: the damping."""
        return Sigmoid.value(self.raw_gamma)

    @property
    def xi(self) -> Tensor:
        """ξ, 0-d: the strength of the restoring force."""
        return Softplus.value(self.raw_xi)

    def theta(self) -> tuple[Tensor, ...]:
        """(raw_gamma, raw_xi, the field's parameters …)."""
        return (self.raw_gamma, self.raw_xi, *self.field.theta())

    @property
    def channels_last(self) -> bool:
        """Whether the field is faster on blocks [B, C, H, W] in channels-last memory."""
        return getattr(self.field, "channels_last", False)

    def forward(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """(dz, saved) by the equations above."""
        h, m = z.unbind(0)
        f, acts = self.field.forward(t, h)
        gamma, xi = self.gamma, self.xi
        s = m.neg()
        s = s.tanh_() if self.activation == "tanh" else s.clamp_(-BOUND, BOUND)
        dm = torch.addcmul(fitted(f, z), m, gamma, value=-1).addcmul_(h, xi)
        return torch.stack((s, dm)), (acts, h, m, s, gamma, xi)

    def _down(self, a_h: Tensor, m: Tensor, s: Tensor) -> Tensor:
        """a_h σ'(−m)."""
        if self.activation == "tanh":
            return get_activation("tanh").backward(a_h, s)
        return a_h * (m.abs() < BOUND)

    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """(z̄, (the field's deltas, a_m)), with one VJP of the field."""
        (acts, _, m, s, gamma, xi), (a_h, a_m) = saved, cotangent.unbind(0)
        from_f, deltas = self.field.vjp(acts, a_m)
        h_bar = torch.addcmul(from_f, a_m, xi)  # ∂m'/∂h = f_h + ξ
        m_bar = self._down(a_h, m, s).addcmul_(a_m, gamma).neg_()  # ∂h'/∂m = −σ'(−m), ∂m'/∂m = −γ
        return torch.stack((h_bar, m_bar)), (deltas, a_m)

    def parameter_gradients(
        self, saved: list[Any], deltas: list[Any], weights: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """(raw_gamma's, raw_xi's, the field's …), None for what is frozen."""
        field = self.field.parameter_gradients([s[0] for s in saved], [d[0] for d in deltas], weights)
        raw_gamma, raw_xi = self.raw_gamma, self.raw_xi
        if not (raw_gamma.requires_grad or raw_xi.requires_grad):
            return (None, None, *field)
        stages = [(h, m, a_m) for (_, h, m, *_), (_, a_m) in zip(saved, deltas, strict=True)]
        rate_gamma, rate_xi = [], []
        for (h, m, a_m), weight in grouped(stages, weights):
            rate_gamma.append(paired(a_m, m.neg(), weight))  # ∂m'/∂γ = −m
            rate_xi.append(paired(a_m, h.clone(), weight))  # ∂m'/∂ξ = h
        return (
            total(rate_gamma) * Sigmoid.derivative(raw_gamma) if raw_gamma.requires_grad else None,
            total(rate_xi) * Softplus.derivative(raw_xi) if raw_xi.requires_grad else None,
            *field,
        )
