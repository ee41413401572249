"""The paper's other statements about its adjoint, each with a measurement and a verdict.

Source: Cho, Hong, Lee, Park, "AdamNODEs: When Neural ODE Meets Adaptive Moment Estimation".
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from ..adjoint.gradients import Discrete
from .zoo import Instance, Variant


@dataclasses.dataclass(frozen=True)
class Statement:
    """claim: what the paper prints.
    where: its place.
    verdict: "false" or "true".
    why: in words.
    measured: the numbers by name, relative (1.0 is 100 per cent).
    """

    claim: str
    where: str
    verdict: str
    why: str
    measured: dict[str, float]

    def sentence(self) -> str:
        """All of it in one line."""
        numbers = ", ".join(f"{name} {value:.2g}" for name, value in self.measured.items())
        return f"{self.where}: “{self.claim}”: {self.verdict}. {self.why} Measured: {numbers}."


def check_statements(device: str = "cpu") -> tuple[Statement, ...]:
    """Measures each on AdamODE with the exact denominator, in float64."""
    dynamics, z = Instance(Variant("adamnode", "exact"), device=device).build()
    t = torch.tensor(0.3, dtype=z.dtype, device=z.device)
    a = torch.randn(z.shape, generator=torch.Generator().manual_seed(1), dtype=z.dtype).to(z)
    with torch.no_grad():
        return (
            _satisfies_adamode(dynamics, t, z, a),
            _starts_at_minus_identity(device),
            _matrices(dynamics, t, z),
            _theta_through_h(dynamics, t, z, a),
        )


def _verdict(holds: bool) -> str:
    return "true" if holds else "false"


def _satisfies_adamode(dynamics: Any, t: Tensor, z: Tensor, a: Tensor) -> Statement:
    """An adjoint is linear in a: twice the loss, twice the adjoint. AdamODE's right side is not."""
    _, saved = dynamics.forward(t, z)

    def adjoint(a: Tensor) -> Tensor:
        return -dynamics.vjp(saved, a)[0]

    def flow(z: Tensor) -> Tensor:
        return dynamics.forward(t, z)[0]

    linear = _off(adjoint(2 * a), 2 * adjoint(a))
    not_linear = _off(flow(2 * z), 2 * flow(z))
    # Any AdamODE, whatever its f, has v' + (1−β)v = (1−β)f² ≥ 0; in reversed time the same for −a_v'.
    rate = 1 - dynamics.beta
    below = (-adjoint(a)[2] + rate * a[2] < 0).double().mean().item()
    return Statement(
        "its adjoint states also satisfy AdamODE",
        "abstract",
        _verdict(linear > 1e-9 and below == 0),
        "The adjoint is linear in a, AdamODE is not in z; and v' + (1−β)v = (1−β)f² ≥ 0 holds in every "
        "AdamODE, and not for a_v.",
        {
            "‖G(2a) − 2G(a)‖/‖2G(a)‖ of the adjoint's right side": linear,
            "the same of AdamODE's": not_linear,
            "share of entries of a_v with the wrong sign": below,
        },
    )


def _starts_at_minus_identity(device: str) -> Statement:
    """A(t) = ∂z(T)/∂z(t), so a(t) → ∂L/∂z(T) as t → T: measured over a last stretch of 1e-6."""
    instance = Instance(Variant("adamnode", "exact"), device=device)
    dynamics, problem = instance.problem(t=(1.0 - 1e-6, 1.0), rtol=1e-10, atol=1e-10, save="end")
    with torch.enable_grad():
        found = torch.stack(problem.gradient(Discrete())[: len(dynamics.blocks)])
    # With save="end" the loss is w·z(T).
    w = (problem.weights or [])[0].reshape(found.shape)
    plus, minus = _off(found, w), _off(found, -w)
    return Statement(
        "A(T) = −I",
        "Eq. 13",
        _verdict(minus < plus),
        "a(T) = ∂L/∂z(T), hence A(T) = I; with −I every gradient has the opposite sign.",
        {"‖a(T−) − ∂L/∂z‖/‖∂L/∂z‖": plus, "‖a(T−) + ∂L/∂z‖/‖∂L/∂z‖": minus},
    )


def _matrices(dynamics: Any, t: Tensor, z: Tensor) -> Statement:
    """The blocks of ∂F/∂z that Eq. 13 and 14 print, against autograd's Jacobian of one sample."""
    one = z[:, :1]
    with torch.enable_grad():
        jacobian = torch.autograd.functional.jacobian(lambda x: dynamics.forward(t, x)[0], one)
        by_h = torch.autograd.functional.jacobian(lambda h: dynamics.field(t, h), one[0])
    k, d = one.shape[0], one.shape[2]
    jacobian, f_h = jacobian.reshape(k, d, k, d), by_h.reshape(d, d)
    f = dynamics.field(t, one[0])[0]
    rate_a, rate_b, eye = 1 - dynamics.alpha, 1 - dynamics.beta, torch.eye(d).to(z)
    printed = {(1, 1): rate_a * eye, (2, 2): rate_b * eye, (1, 0): -f_h, (2, 0): f_h}
    right = {
        (1, 1): -rate_a * eye,
        (2, 2): -rate_b * eye,
        (1, 0): -rate_a * f_h,
        (2, 0): 2 * rate_b * f[:, None] * f_h,
    }
    names = {(1, 1): "∂m'/∂m", (2, 2): "∂v'/∂v", (1, 0): "∂m'/∂h", (2, 0): "∂v'/∂h"}
    found = {at: jacobian[at[0], :, at[1]] for at in printed}
    measured = {f"{names[at]} as printed": _off(printed[at], found[at]) for at in printed}
    measured["the corrected four, at most"] = max(_off(right[at], found[at]) for at in right)
    wrong = max(_off(printed[at], found[at]) for at in printed)
    return Statement(
        "∂F/∂z has the blocks (1−α)I, (1−β)I, −∂f/∂h, ∂f/∂h",
        "Eq. 13, 14",
        _verdict(wrong < 1e-6),
        "By m' = (1−α)(−f − m) and v' = (1−β)(f² − v) they are −(1−α)I, −(1−β)I, −(1−α)∂f/∂h and "
        "2(1−β)diag(f)∂f/∂h (which Eq. 15 uses for the first two).",
        measured,
    )


def _theta_through_h(dynamics: Any, t: Tensor, z: Tensor, a: Tensor) -> Statement:
    """f enters h' nowhere, so (∂F/∂θ)ᵀa takes its cotangent from a_m and a_v, and not from a_h."""
    theta = dynamics.field.theta()
    with torch.enable_grad():
        dz = dynamics.forward(t, z)[0]
        f = dynamics.field(t, z[0])
        exact = torch.autograd.grad(dz, theta, a)
        printed = torch.autograd.grad(f, theta, a[0])
    off = _off(*(torch.cat([g.flatten() for g in grads]) for grads in (printed, exact)))
    return Statement(
        "dL/dθ = ∫ (∂f/∂θ)ᵀ a_h dt",
        "Eq. 8",
        _verdict(off < 1e-6),
        "f stands in m' and v' only: the cotangent of f is −(1−α)a_m + 2(1−β)f⊙a_v.",
        {"‖printed − exact‖/‖exact‖ of the integrand": off},
    )


def _off(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()
