"""The neural ODE with momentum under a damping that may depend on time, and its hand-derived VJP."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from ...solvers.errors import ArgumentError, check_choice
from ..block import Block, Network, SolverOptions
from ..checks import number
from ..fields.field import Gradients
from ..known import DAMPINGS as DAMPINGS
from ..known import DampingName as DampingName
from .field_dynamics import (
    FieldDynamics,
    Sigmoid,
    Slopes,
    Softplus,
    fitted,
    grouped,
    paired,
    raw_parameter,
    total,
)

GAMMA = 0.04742587317756678  # sigmoid(−3), where the authors of the heavy ball start γ
NESTEROV = 3.0  # r of the limit of Nesterov's method
SPAN = (1.0, 2.0)  # where the authors of NesterovNODE solve: 3/t has no value at t = 0


def check_shift(shift: float) -> float:
    """The shift as a float; ArgumentError unless it is finite."""
    if not math.isfinite(number("shift", shift)):
        raise ArgumentError(f"shift={shift!r} must be finite: it is added to t.")
    return float(shift)


class MomentumODE(FieldDynamics):
    """h' = −m,  m' = f(t, h) − γ(t) m.

    field: f(t, h) → dh, any module or function.
    damping: "constant", "nesterov" or "learned", as below.
    gamma, r: start values of γ in (0, 1) and r > 0.
    shift: of the time in τ.
    learnable: False freezes γ and r.

    State z = [h, m], [2, B, *S]; f: the field. With τ = t + shift, the damping is
        "constant"   γ(t) = γ         γ = sigmoid(raw_gamma): the heavy ball
        "nesterov"   γ(t) = 3/τ       no number is learnt
        "learned"    γ(t) = γ + r/τ   r = softplus(raw_r); it can become either of the others
    and the last two are defined for τ > 0.
    Source: H. Xia et al., NeurIPS 2021 (γ); H. H. N. Nguyen et al., NeurIPS 2022, and W. Su, S. Boyd,
    E. J. Candès, JMLR 17(153), 2016, Eq. 3 and Sec. 4 (3/t and r/t).
    """

    blocks = ("h", "m")
    choices = ("damping", "shift")

    def __init__(
        self,
        field: Any,
        *,
        damping: DampingName = "learned",
        gamma: float = GAMMA,
        r: float = NESTEROV,
        shift: float = 0.0,
        learnable: bool = True,
    ):
        check_choice("damping", damping, DAMPINGS)
        super().__init__(field)
        self.damping, self.shift = damping, check_shift(shift)
        named = {"constant": ("raw_gamma",), "nesterov": (), "learned": ("raw_gamma", "raw_r")}
        self.scalars = named[damping]
        if "raw_gamma" in self.scalars:
            self.raw_gamma = raw_parameter(Sigmoid.inverse("gamma", gamma), learnable=learnable)
        if "raw_r" in self.scalars:
            self.raw_r = raw_parameter(Softplus.inverse("r", r), learnable=learnable)

    @property
    def after(self) -> float | None:  # type: ignore[override]
        """F is defined for later times alone."""
        return None if self.damping == "constant" else 0.0 - self.shift  # not −0.0

    @property
    def gamma(self) -> Tensor:
        """γ, 0-d: the constant part of the damping. Not there where the damping is 3/τ."""
        return Sigmoid.value(self.raw_gamma)

    @property
    def r(self) -> Tensor:
        """r, 0-d, of r/τ, where it is learnt."""
        return Softplus.value(self.raw_r)

    def damping_at(self, t: Tensor) -> Tensor:
        """γ(t), of t's shape, or 0-d where it is constant."""
        return self._damping(t)[0]

    def _make(self) -> Any:
        """The scalars as numbers: (γ or None, r or None)."""
        gamma = self.gamma if "raw_gamma" in self.scalars else None
        return gamma, self.r if "raw_r" in self.scalars else None

    def _damping(self, t: Tensor) -> tuple[Tensor, ...]:
        """(γ(t),), and with r learnt (γ(t), 1/τ)."""
        gamma, r = self._made or self._make()
        if self.damping == "constant":
            return (gamma,)
        inverse = (t + self.shift).reciprocal()
        if self.damping == "nesterov":
            return (inverse * NESTEROV,)
        return torch.addcmul(gamma, inverse, r), inverse

    def forward(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """(dz, saved) by the equations above."""
        h, m = z.unbind(0)
        f, acts = self.field.forward(t, h)
        gamma, *inverse = self._damping(t)
        return torch.stack((m.neg(), torch.addcmul(fitted(f, z), m, gamma, value=-1))), (
            acts,
            m,
            gamma,
            *inverse,
        )

    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """(z̄, (the field's deltas, a_m)), with one VJP of the field."""
        (acts, _, gamma, *_), (a_h, a_m) = saved, cotangent.unbind(0)
        h_bar, deltas = self.field.vjp(acts, a_m)  # ∂m'/∂h = f_h
        m_bar = torch.addcmul(a_h, a_m, gamma).neg_()  # ∂h'/∂m = −1, ∂m'/∂m = −γ(t)
        return torch.stack((h_bar, m_bar)), (deltas, a_m)

    def divergence_rate(self, t: Tensor) -> Tensor:
        """The rate −γ(t): ∂h'/∂h = 0, ∂m'/∂m = −γ(t)."""
        return -self.damping_at(t)

    def divergence_integral(self, start: Tensor, end: Tensor) -> Tensor:
        """The integral −γ (end − start) − r log(τ_end/τ_start)."""
        gamma, r = self._make()
        found = torch.zeros_like(start) if gamma is None else -gamma * (end - start)
        if self.damping == "constant":
            return found
        return found - (NESTEROV if r is None else r) * ((end + self.shift) / (start + self.shift)).log()

    def _slopes(self, t: Tensor, z: Tensor, f: Tensor, slopes: Tensor) -> Slopes:
        return (0.0, -1.0), (slopes, -self.damping_at(t))

    def parameter_gradients(self, saved: list[Any], deltas: list[Any], weights: Tensor | None) -> Gradients:
        """The gradients of (the raw scalars …, the field's parameters …), None where frozen."""
        field = self.field.parameter_gradients([s[0] for s in saved], [d[0] for d in deltas], weights)
        own: dict[str, Tensor] = {}
        raw = [name for name in self.scalars if getattr(self, name).requires_grad]
        a_m = [d[1] for d in deltas]
        if "raw_gamma" in raw:
            slopes = [s[1].neg() for s in saved]  # ∂m'/∂γ = −m
            own["raw_gamma"] = _summed(a_m, slopes, weights) * Sigmoid.derivative(self.raw_gamma)
        if "raw_r" in raw:
            slopes = [s[1] * -s[3] for s in saved]  # ∂m'/∂r = −m/τ
            own["raw_r"] = _summed(a_m, slopes, weights) * Softplus.derivative(self.raw_r)
        return (*(own.get(name) for name in self.scalars), *field)


def _summed(a_m: list[Tensor], slopes: list[Tensor], weights: Tensor | None) -> Tensor:
    """Σ w ⟨a_m, ∂m'/∂c⟩ over all stages; the slopes are written over."""
    stages = list(zip(slopes, a_m, strict=True))
    return total([paired(a, slope, weight) for (slope, a), weight in grouped(stages, weights)])


class Momentum(Block):
    """The common part of the blocks with a state [h, m]."""

    def forward(self, h0: Tensor, m0: Tensor | None = None) -> Tensor:
        """h(T), [B, C, …], like h0; m0 is zero where not given."""
        return self.end(h0, m=m0)

    def trajectory(self, h0: Tensor, t: Tensor, m0: Tensor | None = None) -> dict[str, Tensor]:
        """{"h", "m"} at the times t, [T], each [T, B, C, …]; the start is at t[0]."""
        return self.path(h0, t, m=m0)


class MomentumNODE(Momentum):
    """A neural ODE with momentum: h' = −m, m' = f(t, h) − γ(t) m, (h0, m0) ↦ h(T).

    field: f(t, h) → dh as in `NODE`.
    damping: with τ = t + shift, "constant" γ(t) = γ, which is `HBNODE`; "nesterov" γ(t) = 3/τ, which is
        `NesterovNODE`; "learned" γ(t) = γ + r/τ.
    gamma, r: start values of γ in (0, 1) and r > 0, learnt unless ``learnable=False``; the defaults are
        the authors' sigmoid(−3), and 3.
    shift: of the time in 3/τ, so that an interval may start at 0.
    t: start and end; where γ depends on time, both above −shift.
    learnable: False freezes γ and r.
    solver: as in `NODE`.
    Raises ArgumentError or ArgumentTypeError for bad settings, SolverError where a solve cannot go on.
    Source: as of `HBNODE` and `NesterovNODE`; r/t: W. Su, S. Boyd, E. J. Candès, JMLR 17(153), 2016, Sec. 4.
    """

    interval = SPAN

    def __init__(
        self,
        field: Network,
        *,
        damping: DampingName = "learned",
        gamma: float = GAMMA,
        r: float = NESTEROV,
        shift: float = 0.0,
        learnable: bool = True,
        **solver: Unpack[SolverOptions],
    ):
        dynamics = MomentumODE(field, damping=damping, gamma=gamma, r=r, shift=shift, learnable=learnable)
        super().__init__(dynamics, solver)

    dynamics: MomentumODE

    def damping_at(self, t: Tensor) -> Tensor:
        """γ(t), of t's shape, or 0-d where it is constant."""
        return self.dynamics.damping_at(t)
