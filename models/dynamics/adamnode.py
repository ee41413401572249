"""AdamODE and its hand-derived VJP."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor
from typing_extensions import Unpack

from ...solvers.errors import check_choice
from ..block import Block, Network, SolverOptions
from ..denominators import DenominatorName, check_eps, get_denominator
from ..fields.field import Gradients
from .field_dynamics import FieldDynamics, Sigmoid, Slopes, fitted, grouped, paired, raw_parameter, total

AdjointForm = Literal["exact", "paper", "paper-rates"]
FORMS = get_args(AdjointForm)


class AdamODE(FieldDynamics):
    """h' = −m·D(v),  m' = A(−f(t, h) − m),  v' = B(f(t, h)² − v),  A = 1−α, B = 1−β.

    field: f(t, h) → dh, any module or function.
    alpha, beta: start values of α and β, in (0, 1).
    eps: ε of D.
    denominator: D, "exact", "softplus" or "sigmoid".
    learnable: False freezes α and β.

    State z = [h, m, v], [3, B, *S]; f: the field; D: see `models.denominators`. A and B are rates
    per unit of time, learnt as sigmoid(raw_alpha), sigmoid(raw_beta); ε is a constant.
    adjoint_form: which c enters the VJP (the h block and the field's parameters):
        "exact"        c = −A a_m + 2B f⊙a_v       the chain rule
        "paper"        c = −a_m + a_v              Eq. 15 as printed: a wrong gradient, for study
        "paper-rates"  c = −A a_m + B a_v          the same with the rates put in: still wrong
    Source: Cho, Hong, Lee, Park, "AdamNODEs", Eq. 7 (forward), Eq. 15 (its printed adjoint).
    """

    blocks, scalars = ("h", "m", "v"), ("raw_alpha", "raw_beta")
    choices = ("denominator", "eps")

    def __init__(
        self,
        field: Any,
        *,
        alpha: float,
        beta: float,
        eps: float,
        denominator: DenominatorName = "exact",
        adjoint_form: AdjointForm = "exact",
        learnable: bool = True,
    ):
        check_choice("adjoint_form", adjoint_form, FORMS)
        super().__init__(field)
        self.denominator, self.eps = get_denominator(denominator).name, check_eps(eps)
        self.adjoint_form = adjoint_form
        # A = sigmoid(θ) = 1 − α, so θ = −logit(α)
        self.raw_alpha = raw_parameter(-Sigmoid.inverse("alpha", alpha), learnable=learnable)
        self.raw_beta = raw_parameter(-Sigmoid.inverse("beta", beta), learnable=learnable)

    @property
    def alpha(self) -> Tensor:
        """α, 0-d: the share that h's momentum keeps."""
        return Sigmoid.value(-self.raw_alpha)

    @property
    def beta(self) -> Tensor:
        """β, 0-d: the share that the mean square keeps."""
        return Sigmoid.value(-self.raw_beta)

    def _make(self) -> Any:
        """The rates with their signs, and the kind of denominator: (−A, −B, D)."""
        minus_a, minus_b = Sigmoid.value(self.raw_alpha).neg(), Sigmoid.value(self.raw_beta).neg()
        return minus_a, minus_b, get_denominator(self.denominator)

    def forward(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """(dz, saved) by the equations above; NaN where D leaves its domain (v + ε < 0)."""
        h, m, v = z.unbind(0)
        f, acts = self.field.forward(t, h)
        f = fitted(f, z)
        minus_a, minus_b, denominator = self._made or self._make()
        d = denominator.value(v, self.eps)
        dh = torch.mul(m, d).neg_()
        dm = torch.add(f, m).mul_(minus_a)
        dv = torch.addcmul(v, f, f, value=-1).mul_(minus_b)
        return torch.stack((dh, dm, dv)), (acts, f, m, v, d, minus_a, minus_b)

    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """(z̄, (the field's deltas, a_m, a_v)), with one VJP of the field."""
        (acts, f, m, v, d, minus_a, minus_b), (a_h, a_m, a_v) = saved, cotangent.unbind(0)
        m_bar = torch.mul(a_m, minus_a)  # ∂m'/∂m = −A
        v_bar = torch.mul(a_v, minus_b)  # ∂v'/∂v = −B
        h_bar, deltas = self.field.vjp(acts, self._c(f, m_bar, v_bar, a_m, a_v))
        m_bar.addcmul_(d, a_h, value=-1)  # ∂h'/∂m = −D
        fall = get_denominator(self.denominator).fall(v, d, self.eps)  # −2 D'
        v_bar.addcmul_(fall.mul_(m), a_h, value=0.5)  # ∂h'/∂v = −m·D'
        return torch.stack((h_bar, m_bar, v_bar)), (deltas, a_m, a_v)

    @property
    def domain(self) -> str:  # type: ignore[override]
        """Where D is defined, unless everywhere."""
        if self.denominator != "exact":
            return ""
        return (
            "AdamODE with denominator='exact' is defined for v > −ε alone: take denominator='softplus' or "
            "'sigmoid'"
        )

    def divergence_rate(self, t: Tensor) -> Tensor:
        """The rate −(A + B): ∂h'/∂h = 0, ∂m'/∂m = −A, ∂v'/∂v = −B, whichever the denominator."""
        return -Sigmoid.value(self.raw_alpha) - Sigmoid.value(self.raw_beta)

    def _slopes(self, t: Tensor, z: Tensor, f: Tensor, slopes: Tensor) -> Slopes:
        (_, m, v), kind = z.unbind(0), get_denominator(self.denominator)
        a, b = Sigmoid.value(self.raw_alpha), Sigmoid.value(self.raw_beta)
        d = kind.value(v, self.eps)
        return (
            (0.0, -d, 0.5 * m * kind.fall(v, d, self.eps)),
            (-a * slopes, -a, 0.0),
            (2 * b * f[:, :, None] * slopes, 0.0, -b),
        )

    def _c(self, f: Tensor, from_m: Tensor, from_v: Tensor, a_m: Tensor, a_v: Tensor) -> Tensor:
        """The field's cotangent; from_m = −A a_m, from_v = −B a_v."""
        if self.adjoint_form == "paper":
            return a_v - a_m
        if self.adjoint_form == "paper-rates":
            return from_m - from_v
        return torch.addcmul(from_m, f, from_v, value=-2)  # ∂m'/∂f = −A, ∂v'/∂f = 2B f

    def parameter_gradients(self, saved: list[Any], deltas: list[Any], weights: Tensor | None) -> Gradients:
        """The gradients of (raw_alpha, raw_beta, the field's parameters …), None where frozen."""
        field = self.field.parameter_gradients([s[0] for s in saved], [d[0] for d in deltas], weights)
        alpha, beta = self.raw_alpha, self.raw_beta
        if not (alpha.requires_grad or beta.requires_grad):
            return (None, None, *field)
        stages = [(f, m, v, a_m, a_v) for (_, f, m, v, *_), (_, a_m, a_v) in zip(saved, deltas, strict=True)]
        rate_a, rate_b = [], []
        for (f, m, v, a_m, a_v), weight in grouped(stages, weights):
            rate_a.append(paired(a_m, f + m, weight))  # ∂m'/∂A = −(f + m)
            rate_b.append(paired(a_v, torch.addcmul(v, f, f, value=-1), weight))  # ∂v'/∂B = f² − v
        (*_, minus_a, minus_b), *_ = saved  # −dA/dθ = −A(1 − A)
        return (
            total(rate_a) * torch.addcmul(minus_a, minus_a, minus_a) if alpha.requires_grad else None,
            total(rate_b) * torch.addcmul(minus_b, minus_b, minus_b) if beta.requires_grad else None,
            *field,
        )


class AdamNODE(Block):
    """A Neural ODE whose state moves as Adam's does: (h0, m0, v0) ↦ h(T).

        h' = −m·D(v),  m' = (1−α)(−f(t, h) − m),  v' = (1−β)(f(t, h)² − v)

    field: f(t, h) → dh, any module or function, h [B, C, …], t 0-d.
    alpha, beta: start values in (0, 1), learnt unless ``learnable=False``; the default is the released code's
        for CIFAR-10 (1−α = 1−β = sigmoid(3)).
    eps: a constant; 1e-3 is ten times the default tolerance, the paper's is 1e-8 (see below).
    denominator: "exact" D = 1/√(v+ε), "softplus", "sigmoid".
    adjoint_form: "exact", or a wrong gradient for study: "paper" is the printed Eq. 15, "paper-rates" the
        same with the rates 1−α, 1−β put in.
    learnable: False freezes α and β.
    t: start and end.
    rtol, atol, method, stepping, gradient, compile, sync_every: as in `adamode.solve`.

    With the exact D start from v0 > 0, or take an ε well above the tolerance: from v0 = 0 and
    ε = 1e-8 the equations are stiff at first, and solving them backwards can leave their domain.
    Raises ArgumentError or ArgumentTypeError for bad settings, SolverError where a solve cannot go on.
    Source: Cho, Hong, Lee, Park, "AdamNODEs: When Neural ODE Meets Adaptive Moment Estimation", Eq. 7.
    """

    def __init__(
        self,
        field: Network,
        *,
        alpha: float = 0.0474,
        beta: float = 0.0474,
        eps: float = 1e-3,
        denominator: DenominatorName = "exact",
        adjoint_form: AdjointForm = "exact",
        learnable: bool = True,
        **solver: Unpack[SolverOptions],
    ):
        dynamics = AdamODE(
            field,
            alpha=alpha,
            beta=beta,
            eps=eps,
            denominator=denominator,
            adjoint_form=adjoint_form,
            learnable=learnable,
        )
        super().__init__(dynamics, solver)

    dynamics: AdamODE

    @property
    def alpha(self) -> Tensor:
        """α in (0, 1), 0-d: the momentum follows −f at the rate 1 − α."""
        return self.dynamics.alpha

    @property
    def beta(self) -> Tensor:
        """β in (0, 1), 0-d: the mean square follows f² at the rate 1 − β."""
        return self.dynamics.beta

    def forward(self, h0: Tensor, m0: Tensor | None = None, v0: Tensor | None = None) -> Tensor:
        """h(T), [B, C, …], like h0; m0, v0 are zeros where not given."""
        return self.end(h0, m=m0, v=v0)

    def trajectory(
        self, h0: Tensor, t: Tensor, m0: Tensor | None = None, v0: Tensor | None = None
    ) -> dict[str, Tensor]:
        """{"h", "m", "v"} at the times t, [T], each [T, B, C, …]; the start is at t[0]."""
        return self.path(h0, t, m=m0, v=v0)
