"""The generalised heavy ball neural ODE and its hand-derived VJP."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor
from typing_extensions import Unpack

from ..block import Network, SolverOptions
from ..fields.field import Gradients
from ..saturations import get_saturation
from .field_dynamics import (
    FieldDynamics,
    Sigmoid,
    Slopes,
    Softplus,
    block_of,
    fitted,
    grouped,
    paired,
    raw_parameter,
    total,
)
from .hbnode import HeavyBall
from .momentumnode import GAMMA

Bounded = Literal["tanh", "hardtanh"]
XI = 2.1269280110429727  # softplus(2), where the authors start ξ


class GeneralisedHeavyBallODE(FieldDynamics):
    """h' = σ(−m),  m' = f(t, h) − γ m + ξ h.

    field: f(t, h) → dh, any module or function.
    gamma, xi: start values of γ in (0, 1) and ξ > 0.
    activation: σ, "tanh" or "hardtanh".
    learnable: False freezes γ and ξ.

    State z = [h, m], [2, B, *S]; f: the field; γ = sigmoid(raw_gamma), ξ = softplus(raw_xi), learnt;
    σ: tanh, or hardtanh clipped at ±5 (its derivative is 0 at ±5 exactly, as torch has it). With this
    sign of σ, +ξh is the restoring force.
    Source: H. Xia et al., Heavy ball neural ODEs, NeurIPS 2021 (there h' = σ(m) and −ξh).
    """

    blocks, scalars = ("h", "m"), ("raw_gamma", "raw_xi")
    choices = ("activation",)

    def __init__(
        self, field: Any, *, gamma: float, xi: float, activation: Bounded = "tanh", learnable: bool = True
    ):
        super().__init__(field)
        self.activation = get_saturation(activation, get_args(Bounded)).name
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

    def _make(self) -> Any:
        """The two scalars as numbers, and the kind of σ: (γ, ξ, σ)."""
        return self.gamma, self.xi, get_saturation(self.activation)

    def forward(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """(dz, saved) by the equations above."""
        h, m = z.unbind(0)
        f, acts = self.field.forward(t, h)
        gamma, xi, sigma = self._made or self._make()
        s = sigma.value(m.neg())
        dm = torch.addcmul(fitted(f, z), m, gamma, value=-1).addcmul_(h, xi)
        return torch.stack((s, dm)), (acts, h, m, s, gamma, xi)

    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """(z̄, (the field's deltas, a_m)), with one VJP of the field."""
        (acts, _, _, s, gamma, xi), (a_h, a_m) = saved, cotangent.unbind(0)
        from_f, deltas = self.field.vjp(acts, a_m)
        h_bar = torch.addcmul(from_f, a_m, xi)  # ∂m'/∂h = f_h + ξ
        sigma = get_saturation(self.activation)
        m_bar = sigma.back(a_h, s).addcmul_(a_m, gamma).neg_()  # ∂h'/∂m = −σ'(−m), ∂m'/∂m = −γ
        return torch.stack((h_bar, m_bar)), (deltas, a_m)

    def divergence_rate(self, t: Tensor) -> Tensor:
        """The rate −γ: ∂h'/∂h = 0 (σ is of m alone, and ξh enters m'), ∂m'/∂m = −γ."""
        return -self.gamma

    def _slopes(self, t: Tensor, z: Tensor, f: Tensor, slopes: Tensor) -> Slopes:
        sigma, m = get_saturation(self.activation), z[1]
        fall = sigma.back(torch.ones_like(m), sigma.value(m)).neg()  # −σ'(−m)
        return (0.0, fall), (slopes + block_of(self.xi, z), -self.gamma)

    def parameter_gradients(self, saved: list[Any], deltas: list[Any], weights: Tensor | None) -> Gradients:
        """The gradients of (raw_gamma, raw_xi, the field's parameters …), None where frozen."""
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


class GHBNODE(HeavyBall):
    """A generalised heavy ball neural ODE: h' = σ(−m), m' = f(t, h) − γ m + ξ h, (h0, m0) ↦ h(T).

    field: f(t, h) → dh as in `NODE`.
    gamma, xi: start values of γ in (0, 1) and ξ > 0, learnt unless ``learnable=False``; the defaults are the
        authors' sigmoid(−3) and softplus(2).
    activation: σ, "tanh" or "hardtanh" (clipped at ±5).
    learnable: False freezes γ and ξ.
    solver: as in `NODE`.
    Raises ArgumentError or ArgumentTypeError for bad settings, SolverError where a solve cannot go on.
    Source: H. Xia et al., Heavy ball neural ODEs, NeurIPS 2021 (with m and f of the other sign).
    """

    def __init__(
        self,
        field: Network,
        *,
        gamma: float = GAMMA,
        xi: float = XI,
        activation: Bounded = "tanh",
        learnable: bool = True,
        **solver: Unpack[SolverOptions],
    ):
        dynamics = GeneralisedHeavyBallODE(
            field, gamma=gamma, xi=xi, activation=activation, learnable=learnable
        )
        super().__init__(dynamics, solver)

    dynamics: GeneralisedHeavyBallODE

    @property
    def xi(self) -> Tensor:
        """ξ > 0, 0-d: the strength of the restoring force."""
        return self.dynamics.xi
