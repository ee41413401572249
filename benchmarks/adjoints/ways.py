"""The ways to a gradient that are compared: ours, and torchdiffeq's two."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
import torchdiffeq
from torch import Tensor, nn

import adamode
from adamode import Backsolve, Direct, Discrete, Interpolating, Reversible

from .cases import Case, Gradients

Forward = Callable[[Case, Tensor, float], Tensor]  # (case, z0, tolerance) → z(t_end)


@dataclasses.dataclass(frozen=True)
class Way:
    """A name for the tables, and the forward solve that carries the gradient.

    from_tol: no tolerance below this is measured, since the steps would be tens of thousands.
    """

    name: str
    forward: Forward
    from_tol: float = 0.0

    def gradient(self, case: Case, tol: float) -> Gradients:
        """dL/dz0 and dL/dθ: one forward and one backward pass."""
        z0 = case.z0.clone().requires_grad_()
        loss = (self.forward(case, z0, tol) * case.w).sum()
        return list(torch.autograd.grad(loss, [z0, *case.dynamics.theta()]))


def ours(gradient: adamode.adjoint.arguments.Gradient, **fixed: Any) -> Forward:
    def forward(case: Case, z0: Tensor, tol: float) -> Tensor:
        tolerances = {} if "dt" in fixed else {"rtol": tol, "atol": tol}
        return adamode.solve(case.dynamics, z0, case.t, gradient=gradient, **tolerances, **fixed).y[-1]

    return forward


class Plain(nn.Module):
    """The dynamics' forward as an ordinary module under autograd: what torchdiffeq differentiates."""

    def __init__(self, case: Case):
        super().__init__()
        self.dynamics = case.dynamics

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """The derivative dz, like z."""
        return self.dynamics.forward(t, z)[0]


def theirs_direct(case: Case, z0: Tensor, tol: float) -> Tensor:
    """Backpropagation through torchdiffeq's steps."""
    return torchdiffeq.odeint(Plain(case), z0, case.t, rtol=tol, atol=tol)[-1]


def theirs_adjoint(case: Case, z0: Tensor, tol: float) -> Tensor:
    """torchdiffeq's adjoint with its default norm, in which the parameters' adjoints count."""
    return torchdiffeq.odeint_adjoint(Plain(case), z0, case.t, rtol=tol, atol=tol)[-1]


def theirs_seminorm(case: Case, z0: Tensor, tol: float) -> Tensor:
    """The same without them."""
    options = {"norm": "seminorm"}
    return torchdiffeq.odeint_adjoint(Plain(case), z0, case.t, rtol=tol, atol=tol, adjoint_options=options)[
        -1
    ]


def steps_of(case: Case, tol: float) -> int:
    """Accepted steps of the forward solve."""
    sol = adamode.solve(case.dynamics, case.z0, case.t, rtol=tol, atol=tol, gradient=None)
    return int(sol.stats.n_accepted)


DISCRETE = 'Discrete(keep="stages")'
BACKSOLVE, INTERPOLATING = "Backsolve()", "Interpolating()"


def ways(n: int) -> list[Way]:
    """All, for a solve of n steps. The first is the one that others are compared with."""
    root, log = math.isqrt(n - 1) + 1, max(math.ceil(math.log2(n)), 1)
    return [
        Way(DISCRETE, ours(Discrete())),
        Way('Discrete(keep="state")', ours(Discrete(keep="state"))),
        Way("Discrete(checkpoints=⌈√N⌉)", ours(Discrete(checkpoints=root))),
        Way("Discrete(checkpoints=⌈log₂N⌉)", ours(Discrete(checkpoints=log))),
        Way(INTERPOLATING, ours(Interpolating())),
        Way(BACKSOLVE, ours(Backsolve())),
        Way("Reversible()", ours(Reversible())),
        Way('Reversible(), method="alf"', ours(Reversible(), method="alf"), from_tol=1e-6),
        Way("Direct()", ours(Direct())),
        Way("torchdiffeq odeint", theirs_direct),
        Way("torchdiffeq odeint_adjoint", theirs_adjoint),
        Way('torchdiffeq odeint_adjoint, "seminorm"', theirs_seminorm),
    ]
