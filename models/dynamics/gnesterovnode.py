"""The generalised Nesterov neural ODE and its hand-derived VJP."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from ..block import Network, SolverOptions
from ..fields.field import Gradients
from ..saturations import SaturationName, get_saturation
from .field_dynamics import (
    FieldDynamics,
    Slopes,
    Softplus,
    block_of,
    fitted,
    grouped,
    paired,
    raw_parameter,
    total,
)
from .momentumnode import SPAN, Momentum, check_shift

XI = 1.5  # of the authors' code for CIFAR-10
AT_BOUND = 10.0  # log k from which on σ(k) and σ'(k) = 0 are the same numbers in every dtype


class GeneralisedNesterovODE(FieldDynamics):
    """h' = ρ(t) h − κ(t) σ(m),  m' = σ(f(t, h)) − m + ξ h,  κ = σ(k),  k = τ^(−3/2) e^(τ/2),  ρ = κ'/κ.

    field: f(t, h) → dh, any module or function.
    xi: start value of ξ > 0; None for no restoring force.
    activation: σ, "tanh", "hardtanh" or "identity".
    shift: of the time in κ.
    learnable: False freezes ξ.

    State z = [h, m], [2, B, *S]; f: the field; τ = t + shift > 0; σ: tanh, hardtanh clipped at ±5, or the
    identity; ξ = softplus(raw_xi), learnt, or None for no restoring force.
    In the authors' variables x = h/κ and p = −m these are x' = σ(p), p' = −p − σ(f) − ξ h, h = κ x. With the
    identity and no ξ they are `NesterovODE`'s equations for another field: with F in the place of its f,
    F = k f − (1/4 − 3/(4τ²)) h, both have the same h.
    Source: H. H. N. Nguyen, T. M. Nguyen, H. K. Vo, S. J. Osher, T. N. Vo, NeurIPS 2022 (GNesterovNODE).
    """

    blocks = ("h", "m")
    choices = ("activation", "shift")

    def __init__(
        self,
        field: Any,
        *,
        xi: float | None = XI,
        activation: SaturationName = "tanh",
        shift: float = 0.0,
        learnable: bool = True,
    ):
        super().__init__(field)
        self.activation, self.shift = get_saturation(activation).name, check_shift(shift)
        self.scalars = () if xi is None else ("raw_xi",)
        if xi is not None:
            self.raw_xi = raw_parameter(Softplus.inverse("xi", xi), learnable=learnable)

    @property
    def after(self) -> float:  # type: ignore[override]
        """F is defined for later times alone."""
        return 0.0 - self.shift  # not −0.0

    @property
    def xi(self) -> Tensor:
        """ξ, 0-d: the strength of the restoring force. Not there where ``xi=None``."""
        return Softplus.value(self.raw_xi)

    def _make(self) -> Any:
        """The kind of σ, and ξ or None."""
        return get_saturation(self.activation), self.xi if self.scalars else None

    def _factor(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(κ, ρ) of t's shape."""
        sigma, tau = get_saturation(self.activation), t + self.shift
        power = 0.5 * tau - 1.5 * tau.log()
        if sigma.bounded:  # κ is at its bound from far smaller k on, and k itself overflows at τ = 178
            power = power.clamp(max=AT_BOUND)
        k = power.exp()
        kappa = sigma.value(k)
        # ρ = σ'(k) k'/κ, and k' = k (1/2 − 3/(2τ))
        return kappa, sigma.back(k, kappa) / kappa * (0.5 - 1.5 / tau)

    def forward(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """(dz, saved) by the equations above."""
        h, m = z.unbind(0)
        f, acts = self.field.forward(t, h)
        sigma, xi = self._made or self._make()
        kappa, rho = self._factor(t)
        s, bounded = sigma.value(m), sigma.value(fitted(f, z))
        dh = torch.addcmul(rho * h, kappa, s, value=-1)
        dm = bounded - m
        if xi is not None:
            dm = dm.addcmul_(h, xi)
        return torch.stack((dh, dm)), (acts, bounded, h, s, kappa, rho, xi)

    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """(z̄, (the field's deltas, a_m)), with one VJP of the field."""
        (acts, bounded, _, s, kappa, rho, xi), (a_h, a_m) = saved, cotangent.unbind(0)
        sigma = get_saturation(self.activation)
        from_f, deltas = self.field.vjp(acts, sigma.back(a_m, bounded))  # ∂m'/∂f = σ'(f)
        h_bar = torch.addcmul(from_f, a_h, rho)  # ∂h'/∂h = ρ, ∂m'/∂h = σ'(f) f_h + ξ
        if xi is not None:
            h_bar = h_bar.addcmul_(a_m, xi)
        m_bar = torch.addcmul(a_m, sigma.back(a_h, s), kappa).neg_()  # ∂h'/∂m = −κ σ'(m), ∂m'/∂m = −1
        return torch.stack((h_bar, m_bar)), (deltas, a_m)

    def divergence_rate(self, t: Tensor) -> Tensor:
        """The rate ρ(t) − 1: ∂h'/∂h = ρ, ∂m'/∂m = −1."""
        return self._factor(t)[1] - 1

    def divergence_integral(self, start: Tensor, end: Tensor) -> Tensor:
        """The integral log(κ(end)/κ(start)) − (end − start)."""
        return (self._factor(end)[0] / self._factor(start)[0]).log() - (end - start)

    def _slopes(self, t: Tensor, z: Tensor, f: Tensor, slopes: Tensor) -> Slopes:
        sigma, (kappa, rho), m = get_saturation(self.activation), self._factor(t), z[1]
        fall = -kappa * sigma.back(torch.ones_like(m), sigma.value(m))
        inner = sigma.back(torch.ones_like(f), sigma.value(f))[:, :, None] * slopes
        return (rho, fall), (inner if not self.scalars else inner + block_of(self.xi, z), -1.0)

    def parameter_gradients(self, saved: list[Any], deltas: list[Any], weights: Tensor | None) -> Gradients:
        """The gradients of (raw_xi where there is one, the field's parameters …), None where frozen."""
        field = self.field.parameter_gradients([s[0] for s in saved], [d[0] for d in deltas], weights)
        if not self.scalars:
            return field  # type: ignore[no-any-return]
        if not self.raw_xi.requires_grad:
            return (None, *field)
        stages = [(s[2], a_m) for s, (_, a_m) in zip(saved, deltas, strict=True)]
        rate = [paired(a_m, h.clone(), weight) for (h, a_m), weight in grouped(stages, weights)]  # ∂m'/∂ξ = h
        return (total(rate) * Softplus.derivative(self.raw_xi), *field)


class GNesterovNODE(Momentum):
    """A generalised Nesterov neural ODE, (h0, m0) ↦ h(T), in h and m of

        h' = ρ(t) h − κ(t) σ(m),  m' = σ(f(t, h)) − m + ξ h
        κ = σ(τ^(−3/2) e^(τ/2)),  ρ = κ'/κ,  τ = t + shift

    field: f(t, h) → dh as in `NODE`.
    xi: start value of ξ > 0, learnt unless ``learnable=False``; None leaves the restoring force out. The
        default 1.5 is that of the authors' code for CIFAR-10.
    activation: σ, "tanh", "hardtanh" (clipped at ±5) or "identity".
    shift: of the time in κ, so that an interval may start at 0.
    t: start and end, both above −shift; the default (1, 2) is the authors'.
    learnable: False freezes ξ.
    solver: as in `NODE`.
    Raises ArgumentError or ArgumentTypeError for bad settings and for times outside of τ > 0; SolverError
    where a solve cannot go on.
    Source: H. H. N. Nguyen, T. M. Nguyen, H. K. Vo, S. J. Osher, T. N. Vo, Improving neural ordinary
    differential equations with Nesterov's accelerated gradient method, NeurIPS 2022; there x = h/κ and −m.
    """

    interval = SPAN

    def __init__(
        self,
        field: Network,
        *,
        xi: float | None = XI,
        activation: SaturationName = "tanh",
        shift: float = 0.0,
        learnable: bool = True,
        **solver: Unpack[SolverOptions],
    ):
        dynamics = GeneralisedNesterovODE(
            field, xi=xi, activation=activation, shift=shift, learnable=learnable
        )
        super().__init__(dynamics, solver)

    dynamics: GeneralisedNesterovODE

    @property
    def xi(self) -> Tensor:
        """ξ > 0, 0-d: the strength of the restoring force. Not there where ``xi=None``."""
        return self.dynamics.xi
