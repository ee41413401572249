"""The six models' dynamics with a small network, a start, and a loss: what all measurements run on."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from adamode import Discrete, Solution, solve
from adamode.adjoint.dynamics.protocol import Dynamics
from adamode.models.block import augment
from adamode.models.dynamics import (
    AdamODE,
    AugmentedNODE,
    GeneralisedHeavyBallODE,
    HeavyBallODE,
    NeuralODE,
    SecondOrderODE,
)
from adamode.models.fields import MLP

MODELS = ("NODE", "ANODE", "SONODE", "HBNODE", "GHBNODE", "AdamNODE")
END = 3.0
GAIN = 2.0  # of the networks' weights over torch's start values: a flow that is not nearly linear


@dataclasses.dataclass(frozen=True)
class Case:
    """A dynamics, z0 [K, B, D], the times [2] and w [K, B, D]: L = Σ w·z(t_end)."""

    name: str
    dynamics: Dynamics
    z0: Tensor
    t: Tensor
    w: Tensor

    def to(self, dtype: torch.dtype) -> Case:
        """The same numbers in another precision; the dynamics is converted in place."""
        return Case(self.name, self.dynamics.to(dtype), self.z0.to(dtype), self.t.to(dtype), self.w.to(dtype))


def make(
    name: str,
    batch: int = 16,
    dim: int = 8,
    hidden: tuple[int, ...] = (16, 16),
    seed: int = 0,
    end: float = END,
) -> Case:
    """A model's case in float64. ANODE has half as many channels again, all zero at the start."""
    torch.manual_seed(seed)
    width = dim + dim // 2 if name == "ANODE" else dim
    field = MLP(2 * dim, hidden, out_dim=dim) if name == "SONODE" else MLP(width, hidden)
    with torch.no_grad():
        for layer in field.layers:
            layer.weight *= GAIN
    dynamics = {
        "NODE": lambda: NeuralODE(field),
        "ANODE": lambda: AugmentedNODE(field),
        "SONODE": lambda: SecondOrderODE(field),
        "HBNODE": lambda: HeavyBallODE(field, gamma=0.3),
        "GHBNODE": lambda: GeneralisedHeavyBallODE(field, gamma=0.3, xi=1.2),
        "AdamNODE": lambda: AdamODE(field, alpha=0.3, beta=0.4, eps=1e-2),
    }[name]()
    h = torch.randn(batch, dim, dtype=torch.float64)
    if name == "ANODE":
        h = augment(h, dim // 2)
    blocks = [h] + [0.3 * torch.randn_like(h) for _ in dynamics.blocks[1:]]
    if name == "AdamNODE":
        blocks[2] = blocks[1].square() + 0.1  # v0 > 0
    z0 = torch.stack(blocks)
    t = torch.tensor([0.0, end], dtype=torch.float64)
    return Case(name, dynamics.double(), z0, t, torch.randn_like(z0))


Gradients = list[Tensor]


def gradient_of(case: Case, tol: float, **arguments: Any) -> tuple[Gradients, Solution]:
    """(dL/dz0 and dL/dθ, the solution) at this tolerance. arguments: `solve`'s."""
    z0 = case.z0.clone().requires_grad_()
    sol = solve(case.dynamics, z0, case.t, rtol=tol, atol=tol, **arguments)
    found = torch.autograd.grad((sol.y[-1] * case.w).sum(), [z0, *case.dynamics.theta()])
    return list(found), sol


def reference(case: Case, tol: float = 1e-12) -> Gradients:
    """dL/dz0 and dL/dθ by the discrete adjoint of dop853 in float64 at this tolerance."""
    return gradient_of(case, tol, method="dop853", gradient=Discrete())[0]


def error(found: Gradients, right: Gradients) -> float:
    """The largest, over dL/dz0 and every parameter, of max|found − right| / max|right|."""
    return max(float((a.double() - b).abs().max() / b.abs().max()) for a, b in zip(found, right, strict=True))
