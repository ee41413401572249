"""AdamODE and its hand-derived VJP."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...adjoint.dynamics import Dynamics
from ...solvers.errors import ArgumentError, nearest
from ..denominators import check_eps, get_denominator
from ..fields.field import as_field, stacked
from ..transforms import Sigmoid, raw_parameter

FORMS = ("exact", "paper", "paper-rates")


class AdamODE(nn.Module, Dynamics):
    """h' = −m·D(v),  m' = A(−f(t, h) − m),  v' = B(f(t, h)² − v),  A = 1−α, B = 1−β.

    State z = [h, m, v], [3, B, *S]; f: the field; D: see `models.denominators`. A and B are rates
    per unit of time, learnt as sigmoid(raw_alpha), sigmoid(raw_beta); ε is a constant.
    adjoint_form: which c enters the VJP (the h block and the field's parameters):
        "exact"        c = −A a_m + 2B f⊙a_v       the chain rule
        "paper"        c = −a_m + a_v              Eq. 15 as printed: a wrong gradient, for study
        "paper-rates"  c = −A a_m + B a_v          the same with the rates put in: still wrong
    Source: Cho, Hong, Lee, Park, "AdamNODEs", Eq. 7 (forward), Eq. 15 (its printed adjoint).
    """

    blocks = ("h", "m", "v")

    def __init__(
        self,
        field: Any,
        *,
        alpha: float,
        beta: float,
        eps: float,
        denominator: str = "exact",
        adjoint_form: str = "exact",
        learnable: bool = True,
    ):
        super().__init__()
        if adjoint_form not in FORMS:
            raise ArgumentError(f"adjoint_form={adjoint_form!r} is not known: {nearest(adjoint_form, FORMS)}")
        self.field = as_field(field)
        self.denominator, self.eps = get_denominator(denominator).name, check_eps(eps)
        self.adjoint_form = adjoint_form
        # A = sigmoid(θ) = 1 − α, so θ = −logit(α)
        self.raw_alpha = raw_parameter(-Sigmoid.inverse("alpha", alpha), learnable=learnable)
        self.raw_beta = raw_parameter(-Sigmoid.inverse("beta", beta), learnable=learnable)

    @property
    def alpha(self) -> Tensor:
        """α, 0-d: what h's momentum keeps."""
        return Sigmoid.value(-self.raw_alpha)

    @property
    def beta(self) -> Tensor:
        """β, 0-d: what the mean square keeps."""
        return Sigmoid.value(-self.raw_beta)

    def theta(self) -> tuple[Tensor, ...]:
        """(raw_alpha, raw_beta, the field's parameters …)."""
        return (self.raw_alpha, self.raw_beta, *self.field.theta())

    def forward(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """(dz, saved) by the equations above; NaN where D leaves its domain (v + ε < 0)."""
        h, m, v = z.unbind(0)
        a, b = Sigmoid.value(self.raw_alpha), Sigmoid.value(self.raw_beta)
        f, acts = self.field.forward(t, h)
        d = get_denominator(self.denominator).value(v, self.eps)
        dz = torch.stack((-m * d, -a * (f + m), b * (f * f - v)))
        return dz, (acts, f, m, v, d, a, b)

    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """(z̄, (the field's deltas, A's and B's integrands [B])), with one VJP of the field."""
        (acts, f, m, v, d, a, b), (a_h, a_m, a_v) = saved, cotangent.unbind(0)
        d_prime = get_denominator(self.denominator).derivative(v, d, self.eps)
        h_bar, deltas = self.field.vjp(acts, self._c(f, a, b, a_m, a_v))
        m_bar = -d * a_h - a * a_m  # ∂h'/∂m = −D, ∂m'/∂m = −A
        v_bar = -m * d_prime * a_h - b * a_v  # ∂h'/∂v = −m·D', ∂v'/∂v = −B
        rate_a = -(a_m * (f + m)).flatten(1).sum(1)  # ∂m'/∂A = −(f + m)
        rate_b = (a_v * (f * f - v)).flatten(1).sum(1)  # ∂v'/∂B = f² − v
        return torch.stack((h_bar, m_bar, v_bar)), (deltas, rate_a, rate_b)

    def _c(self, f: Tensor, a: Tensor, b: Tensor, a_m: Tensor, a_v: Tensor) -> Tensor:
        if self.adjoint_form == "paper":
            return a_v - a_m
        if self.adjoint_form == "paper-rates":
            return b * a_v - a * a_m
        return 2 * b * f * a_v - a * a_m  # ∂m'/∂f = −A, ∂v'/∂f = 2B f

    def parameter_gradients(
        self, saved: list[Any], deltas: list[Any], weights: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """(raw_alpha's, raw_beta's, the field's …), None for what is frozen."""
        field = self.field.parameter_gradients([s[0] for s in saved], [d[0] for d in deltas], weights)
        rates = [self._rate(raw, [d[i] for d in deltas], weights) for i, raw in self._raw()]
        return (*rates, *field)

    def _raw(self) -> tuple[tuple[int, Tensor], ...]:
        return (1, self.raw_alpha), (2, self.raw_beta)

    @staticmethod
    def _rate(raw: Tensor, integrands: list[Tensor], weights: Tensor | None) -> Tensor | None:
        if not raw.requires_grad:
            return None
        return stacked(integrands, weights).sum() * Sigmoid.derivative(raw)  # dA/dθ = A(1 − A)
