"""The generalised heavy ball neural ODE and its hand-derived VJP."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...adjoint.dynamics import Dynamics
from ...solvers.errors import ArgumentError, nearest
from ..fields.field import as_field, stacked
from ..transforms import Sigmoid, Softplus, raw_parameter

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
        self, field: Any, *, gamma: float, xi: float, activation: str = "tanh", learnable: bool = True
    ):
        super().__init__()
        if activation not in ("tanh", "hardtanh"):
            raise ArgumentError(
                f"activation={activation!r} is not known: {nearest(str(activation), ('tanh', 'hardtanh'))}"
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

    def forward(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """(dz, saved) by the equations above."""
        h, m = z.unbind(0)
        f, acts = self.field.forward(t, h)
        gamma, xi = self.gamma, self.xi
        s = torch.tanh(-m) if self.activation == "tanh" else (-m).clamp(-BOUND, BOUND)
        return torch.stack((s, f - gamma * m + xi * h)), (acts, h, m, s, gamma, xi)

    def _slope(self, m: Tensor, s: Tensor) -> Tensor:
        """σ'(−m)."""
        if self.activation == "tanh":
            return 1 - s * s
        return (m.abs() < BOUND).to(m.dtype)

    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """(z̄, (the field's deltas, γ's and ξ's integrands [B])), with one VJP of the field."""
        (acts, h, m, s, gamma, xi), (a_h, a_m) = saved, cotangent.unbind(0)
        from_f, deltas = self.field.vjp(acts, a_m)
        h_bar = from_f + xi * a_m  # ∂m'/∂h = f_h + ξ
        m_bar = -self._slope(m, s) * a_h - gamma * a_m  # ∂h'/∂m = −σ'(−m), ∂m'/∂m = −γ
        rate_gamma = -(a_m * m).flatten(1).sum(1)  # ∂m'/∂γ = −m
        rate_xi = (a_m * h).flatten(1).sum(1)  # ∂m'/∂ξ = h
        return torch.stack((h_bar, m_bar)), (deltas, rate_gamma, rate_xi)

    def parameter_gradients(
        self, saved: list[Any], deltas: list[Any], weights: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """(raw_gamma's, raw_xi's, the field's …), None for what is frozen."""
        field = self.field.parameter_gradients([s[0] for s in saved], [d[0] for d in deltas], weights)
        own = []
        for i, raw, transform in ((1, self.raw_gamma, Sigmoid), (2, self.raw_xi, Softplus)):
            value = None
            if raw.requires_grad:
                value = stacked([d[i] for d in deltas], weights).sum() * transform.derivative(raw)
            own.append(value)
        return (*own, *field)
