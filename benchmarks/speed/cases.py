"""What is measured: a dynamics with its weights, a start, times, and the cotangents of the outputs.

All numbers are drawn in float64 from a seed and then rounded, so that the reference solves the same problem.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from adamode.models.dynamics import AdamODE, NeuralODE
from adamode.models.fields import MLP, Conv

from .plain import PlainMLP, VanDerPol, oscillators, plain_of

GAIN = 2.0  # of the weights over torch's start values: a flow that is not nearly linear
# v0 = m0² + this. With 0.1, ours need no more steps, but torchdiffeq's adjoint leaves v + ε > 0 on its way
# back and stops with an underflow: nothing to compare with.
V0 = 1.0


@dataclasses.dataclass(frozen=True)
class Case:
    """One problem at one precision. L = Σ_i w_i · z(t_i) over the times after the first.

    dynamics: ours, or None.
    plain: the same equations as a user's module, on the same parameters.
    z0: [K, B, *S] ([B, n] without a dynamics).
    t: [T] in float64.
    w: [T − 1, *z0.shape].
    kind: "gradient" (dL/dz0 and dL/dθ are asked for), "forward" (z(t_end) is), or "fixed" (z(t_end) is, by
        the steps in `step`).
    users: the field is taken for a user's own, without a hand-written VJP.
    reference: method and tolerance that the right numbers are found with.
    step: method and length of fixed steps, in place of steps that follow tol.
    """

    name: str
    dynamics: Any
    plain: nn.Module
    z0: Tensor
    t: Tensor
    w: Tensor
    tol: float
    kind: str = "gradient"
    users: bool = False
    reference: tuple[str, float] = ("dop853", 1e-12)
    step: tuple[str, float] | None = None

    @property
    def theta(self) -> tuple[Tensor, ...]:
        """The parameters, in the order of the gradients."""
        return tuple(self.plain.parameters() if self.dynamics is None else self.dynamics.theta())

    @property
    def convolutional(self) -> bool:
        """Whether there is a layout to choose."""
        return self.dynamics is not None and isinstance(self.dynamics.field, Conv)

    def to(self, dtype: torch.dtype, device: str | torch.device = "cpu") -> Case:
        """The same numbers elsewhere; a copy."""
        dynamics = copy.deepcopy(self.dynamics)
        if dynamics is None:
            plain = copy.deepcopy(self.plain).to(device, dtype)
        else:
            plain = plain_of(dynamics.to(device, dtype))
        moved = {name: getattr(self, name).to(device, dtype) for name in ("z0", "w")}
        return dataclasses.replace(self, dynamics=dynamics, plain=plain, t=self.t.to(device), **moved)

    def at(self, tol: float) -> Case:
        """The same at another tolerance."""
        return dataclasses.replace(self, tol=tol)

    def head(self, samples: int) -> Case:
        """The first samples only."""
        return dataclasses.replace(self, z0=self.z0[:, :samples].clone(), w=self.w[:, :, :samples].clone())


def _scaled(field: Any, gain: float) -> Any:
    with torch.no_grad():
        for layer in field.layers:
            layer.weight *= gain
    return field


def _adam(field: Any) -> AdamODE:
    return AdamODE(field, alpha=0.3, beta=0.4, eps=1e-2).double()


def start(*shape: int) -> Tensor:
    """A state [h, m, v] drawn at random, [3, *shape]."""
    h = torch.randn(*shape, dtype=torch.float64)
    m = 0.3 * torch.randn_like(h)
    return torch.stack((h, m, m.square() + V0))


def _case(
    name: str, dynamics: Any, z0: Tensor, tol: float, end: float = 1.0, outputs: int = 1, **more: Any
) -> Case:
    t = torch.linspace(0.0, end, outputs + 1, dtype=torch.float64)
    w = torch.randn(outputs, *z0.shape, dtype=torch.float64)
    return Case(name, dynamics, plain_of(dynamics), z0, t, w, tol, **more)


def mlp(small: bool, outputs: int = 1, name: str = "mlp", **more: Any) -> Case:
    """AdamNODE, B = 256, D = 8, 64–64."""
    dynamics = _adam(_scaled(MLP(8, (64, 64)), GAIN))
    return _case(name, dynamics, start(16 if small else 256, 8), 1e-5, outputs=outputs, **more)


def tiny(small: bool, name: str = "tiny", **more: Any) -> Case:
    """AdamNODE, B = 1, D = 2, one layer of 16: nothing but overhead."""
    return _case(name, _adam(_scaled(MLP(2, (16,)), GAIN)), start(1, 2), 1e-5, **more)


def wide(small: bool) -> Case:
    """AdamNODE, B = 4096, D = 64, one layer of 128."""
    return _case("wide", _adam(_scaled(MLP(64, (128,)), GAIN)), start(256 if small else 4096, 64), 1e-5)


def long(small: bool) -> Case:
    """NODE, B = 64, D = 8, T = 100: about 230 steps. Near the origin the field is a damped rotation, for in
    100 units of time a random network's flow loses the gradient's digits."""
    field = _scaled(MLP(8, (64, 64), time=False).double(), 0.5)
    spin = torch.randn(8, 8, dtype=torch.float64)
    with torch.no_grad():
        linear = 0.225 * (spin - spin.T) - 0.03 * torch.eye(8, dtype=torch.float64)
        inner = field.layers[1].weight @ field.layers[0].weight
        field.layers[2].weight.copy_(linear @ torch.linalg.pinv(inner))
        for layer in field.layers:
            layer.bias.zero_()
    z0 = torch.randn(1, 64, 8, dtype=torch.float64)
    return _case("long", NeuralODE(field), z0, 1e-5, end=4.0 if small else 100.0)


def conv(small: bool, name: str = "conv", **more: Any) -> Case:
    """AdamNODE with the convolutional field 6 → 50 → 50 → 5 (the sixth is time), 16 images of 28×28."""
    images, side = (2, 12) if small else (16, 28)
    z0 = start(images, 5, side, side)
    # At 1e-12 the kinks of ReLU cost 10,000 evaluations of dop853, at 1e-8 340 of dopri5.
    dynamics, end = _adam(_scaled(Conv(5, 50), GAIN)), 0.2 if small else 1.0
    return _case(name, dynamics, z0, 1e-4, end=end, reference=("dopri5", 1e-8), **more)


def hetero(small: bool) -> Case:
    """Van der Pol, B = 256, μ from 1 to 100 in equal ratios, T = 5; forward only."""
    mu = torch.logspace(0, 2, 16 if small else 256, dtype=torch.float64)
    z0 = oscillators(mu)
    t = torch.tensor([0.0, 1.0 if small else 5.0], dtype=torch.float64)
    return Case("hetero", None, VanDerPol(), z0, t, torch.zeros(1, *z0.shape), 1e-5, kind="forward")


def fixed(method: str, width: int, small: bool) -> Case:
    """50 steps of one length, as samplers of flow-matching and diffusion models take them: a user's field on
    B = 64, D = width, one layer of 64; forward only."""
    field = _scaled(MLP(width, (64,)).double(), GAIN)
    z0 = torch.randn(4 if small else 64, width, dtype=torch.float64)
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    more: dict[str, Any] = {"kind": "fixed", "step": (method, 0.02)}
    plain = PlainMLP(field.layers, field.time)
    return Case(f"fixed-{method}-{width}", None, plain, z0, t, torch.zeros(1, *z0.shape), 1e-5, **more)


def observations(small: bool, name: str = "observations", **more: Any) -> Case:
    """mlp with 20 outputs and a cotangent at each."""
    return mlp(small, outputs=20, name=name, **more)


CASES: dict[str, Callable[[bool], Case]] = {
    "mlp": mlp,
    "tiny": tiny,
    "wide": wide,
    "long": long,
    "conv": conv,
    "hetero": hetero,
    "observations": observations,
    "inference-mlp": lambda small: mlp(small, name="inference-mlp", kind="forward"),
    "inference-tiny": lambda small: tiny(small, name="inference-tiny", kind="forward"),
    "inference-conv": lambda small: conv(small, name="inference-conv", kind="forward"),
    "user-mlp": lambda small: mlp(small, name="user-mlp", users=True),
    "user-tiny": lambda small: tiny(small, name="user-tiny", users=True),
    "user-observations": lambda small: observations(small, name="user-observations", users=True),
    "fixed-euler-32": lambda small: fixed("euler", 32, small),
    "fixed-euler-1024": lambda small: fixed("euler", 1024, small),
    "fixed-midpoint-32": lambda small: fixed("midpoint", 32, small),
    "fixed-midpoint-1024": lambda small: fixed("midpoint", 1024, small),
}
GROUPS = {
    "inference": ("inference-mlp", "inference-tiny", "inference-conv"),
    "user": ("user-mlp", "user-tiny", "user-observations"),
    "fixed": ("fixed-euler-32", "fixed-euler-1024", "fixed-midpoint-32", "fixed-midpoint-1024"),
}
DIGITS = "digits"  # an epoch of training: see `digits`


def expand(names: str) -> list[str]:
    """ "mlp,user" → the cases by name; ValueError for one that is not there."""
    found: list[str] = []
    for name in filter(None, (part.strip() for part in names.split(","))):
        if name not in (*GROUPS, *CASES, DIGITS):
            known = ", ".join((*CASES, *GROUPS, DIGITS))
            raise ValueError(f"--case {name}: there is no such case; choose from {known}.")
        found += GROUPS.get(name, (name,))
    return list(dict.fromkeys(found))


def make(name: str, *, seed: int = 0, small: bool = False, dtype: torch.dtype = torch.float32) -> Case:
    """The case in float64 with numbers that the given dtype holds exactly."""
    torch.manual_seed(seed)
    case = CASES[name](small)
    return case.to(dtype).to(torch.float64)
