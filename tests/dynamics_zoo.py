"""The nine dynamics over small fields in float64, and starts for them: what tests of all models share."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adamode.models.denominators import DENOMINATORS
from adamode.models.dynamics import (
    AdamODE,
    AugmentedNODE,
    GeneralisedHeavyBallODE,
    GeneralisedNesterovODE,
    HeavyBallODE,
    MomentumODE,
    NesterovODE,
    NeuralODE,
    SecondOrderODE,
)
from adamode.models.dynamics.momentumnode import DAMPINGS
from adamode.models.fields import MLP, Conv

# model → its variants, as keyword arguments
MODELS: dict[str, tuple[dict[str, str], ...]] = {
    "node": ({},),
    "anode": ({},),
    "sonode": ({},),
    "hbnode": ({},),
    "ghbnode": ({"activation": "tanh"}, {"activation": "hardtanh"}),
    "adamnode": tuple({"denominator": name} for name in DENOMINATORS),
    "nesterovnode": ({},),
    "gnesterovnode": ({"activation": "identity"}, {"activation": "tanh"}, {"activation": "hardtanh"}),
    "momentumnode": tuple({"damping": name} for name in DAMPINGS),
}
SHIFT = 0.3  # of the models that are defined for t > −shift, where their terms are looked at
VARIANTS = [(name, options) for name, variants in MODELS.items() for options in variants]
CLASSES: dict[str, Any] = {
    "node": NeuralODE,
    "anode": AugmentedNODE,
    "sonode": SecondOrderODE,
    "hbnode": HeavyBallODE,
    "ghbnode": GeneralisedHeavyBallODE,
    "adamnode": AdamODE,
    "nesterovnode": NesterovODE,
    "gnesterovnode": GeneralisedNesterovODE,
    "momentumnode": MomentumODE,
}


@dataclasses.dataclass(frozen=True)
class Drawn:
    """One problem: a dynamics with random weights, and a start z0 [K, B, *S] (AdamODE's v0 > 0)."""

    dynamics: Any
    z0: Tensor


def quantities(dynamics: Any) -> list[str]:
    """Names of the state's blocks and of theta(), in that order."""
    named = {id(p): name for name, p in dynamics.named_parameters()}
    return [*dynamics.blocks, *(named[id(p)] for p in dynamics.theta())]


def rand(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def draw(
    model: str,
    options: dict[str, str],
    shape: tuple[int, ...] = (2, 3),
    seed: int = 0,
    eps: float = 1e-3,
    cls: Any = None,
    backwards: bool = False,
    shift: float = 4.0,
) -> Drawn:
    """shape: [B, D] for a tanh MLP, [B, C, H, W] for a convolution. cls: another class in the model's place.

    backwards: AdamODE's v0 is then so large that v cannot leave its domain in decreasing time either:
    v' = B(f² − v) ≤ 0 where v ≥ f².  ANODE's h has one channel of zeros more, as its model appends it.
    shift: of the models that are defined for t > −shift.
    """
    generator = torch.Generator().manual_seed(seed)
    batch, channels, *space = shape
    if model == "anode":
        channels += 1
    wide = 2 * channels if model == "sonode" else channels
    field: Any
    if space:
        field = Conv(wide, 3, out_channels=channels, activation="tanh").double()
    else:
        field = MLP(wide, (5,), out_dim=channels).double()
    with torch.no_grad():
        for p in field.parameters():
            fan = math.prod(p.shape[1:]) if p.dim() > 1 else 1
            p.copy_(rand(generator, *p.shape) / math.sqrt(fan))
    u = torch.rand(4, generator=generator).tolist()
    own: dict[str, float | None] = {}
    if model in ("hbnode", "ghbnode"):
        own["gamma"] = 0.05 + 0.9 * u[0]
    if model == "ghbnode" or (model == "gnesterovnode" and options["activation"] != "identity"):
        own["xi"] = 0.2 + 2 * u[1]
    if model == "gnesterovnode" and options["activation"] == "identity":
        own["xi"] = None
    if model == "momentumnode":
        own |= {"gamma": 0.05 + 0.9 * u[0], "r": 0.5 + 3 * u[1]}
    if model in ("nesterovnode", "gnesterovnode", "momentumnode"):
        own["shift"] = shift
    if model == "adamnode":
        own |= {"alpha": 0.05 + 0.9 * u[2], "beta": 0.05 + 0.9 * u[3], "eps": eps}
    dynamics = (CLASSES[model] if cls is None else cls)(field, **own, **options).double()
    z0 = rand(generator, len(dynamics.blocks), batch, channels, *space)
    if options.get("activation") == "hardtanh":
        z0[1] *= 4  # to both sides of ±5
    if model == "adamnode":
        z0[2] = z0[2].square() + 0.1
        if backwards:
            last = field.layers[-1]  # its inputs are within ±1, or the time
            bound = 4 * last.weight.detach().abs().flatten(1).sum(1).max() + last.bias.detach().abs().max()
            z0[2] += bound.square()
    if model == "anode":
        z0[:, :, -1] = 0.0
    return Drawn(dynamics, z0)


def equation(model: str, options: dict[str, str], dynamics: Any, t: Tensor, z: Tensor) -> Tensor:
    """F(t, z), written out once more, in plain operations that autograd follows."""
    f = dynamics.field
    if model in ("node", "anode"):
        return f(t, z[0])[None]
    if model == "sonode":
        return torch.stack((z[1], f(t, torch.cat((z[0], z[1]), 1))))
    if model == "hbnode":
        return torch.stack((-z[1], -torch.sigmoid(dynamics.raw_gamma) * z[1] + f(t, z[0])))
    if model == "ghbnode":
        sigma = torch.tanh if options["activation"] == "tanh" else torch.nn.Hardtanh(-5.0, 5.0)
        gamma, xi = torch.sigmoid(dynamics.raw_gamma), torch.nn.functional.softplus(dynamics.raw_xi)
        return torch.stack((sigma(-z[1]), f(t, z[0]) - gamma * z[1] + xi * z[0]))
    if model in ("nesterovnode", "momentumnode"):
        return torch.stack(
            (-z[1], f(t, z[0]) - damping(options.get("damping", "nesterov"), dynamics, t) * z[1])
        )
    if model == "gnesterovnode":
        return _generalised_nesterov(options["activation"], dynamics, t, z)
    h, m, v = z
    d = {
        "exact": lambda: (v + dynamics.eps) ** -0.5,
        "softplus": lambda: 1 / (torch.log1p(v.exp()).sqrt() + dynamics.eps),
        "sigmoid": lambda: 1 / ((1 / (1 + (-v).exp())).sqrt() + dynamics.eps),
    }[dynamics.denominator]()
    rate_m, rate_v = torch.sigmoid(dynamics.raw_alpha), torch.sigmoid(dynamics.raw_beta)
    return torch.stack((-m * d, rate_m * (-f(t, h) - m), rate_v * (f(t, h) ** 2 - v)))


def damping(kind: str, dynamics: Any, t: Tensor) -> Tensor:
    """γ(t), written out once more."""
    if kind == "nesterov":
        return 3 / (t + dynamics.shift)
    gamma = 1 / (1 + torch.exp(-dynamics.raw_gamma))
    return gamma if kind == "constant" else gamma + torch.log1p(dynamics.raw_r.exp()) / (t + dynamics.shift)


def _generalised_nesterov(activation: str, dynamics: Any, t: Tensor, z: Tensor) -> Tensor:
    """From the authors' x = h/κ, p = −m: h' = κ' x + κ x'."""
    sigma = {"identity": torch.nn.Identity(), "tanh": torch.tanh, "hardtanh": torch.nn.Hardtanh(-5.0, 5.0)}[
        activation
    ]

    def kappa(t: Tensor) -> Tensor:
        return sigma((t + dynamics.shift) ** -1.5 * torch.exp((t + dynamics.shift) / 2))

    now, change = torch.func.jvp(kappa, (t,), (torch.ones_like(t),))
    x, p = z[0] / now, -z[1]
    xi = 0.0 if activation == "identity" else torch.log1p(dynamics.raw_xi.exp())
    slope = -p - sigma(dynamics.field(t, z[0])) - xi * z[0]
    return torch.stack((change * x + now * sigma(p), -slope))


def printed_h(dynamics: Any, form: str, t: Tensor, z: Tensor, a: Tensor) -> Tensor:
    """fᵀ_h[c] with c of the printed Eq. 15, or the same with the rates put in."""
    rate_m, rate_v = torch.sigmoid(dynamics.raw_alpha), torch.sigmoid(dynamics.raw_beta)
    c = {"paper": -a[1] + a[2], "paper-rates": -rate_m * a[1] + rate_v * a[2]}[form]
    h = z[0].clone().requires_grad_()
    return torch.autograd.grad(dynamics.field(t, h), h, c.detach())[0]


def faults(model: str, cls: Any = None) -> list[str]:
    """What is wrong with a model's class: values, divergence, the VJP's blocks, parameters, own numbers.

    Two stages with weights by sample; a t for each sample; all variants. [] where nothing is.
    """
    found = []
    for options in MODELS[model]:
        drawn = draw(model, options, (3, 2), seed=7, eps=0.03, cls=cls, shift=SHIFT)
        dynamics, z, theta = drawn.dynamics, drawn.z0, drawn.dynamics.theta()
        if model == "gnesterovnode" and options["activation"] == "hardtanh":
            with torch.no_grad():
                dynamics.field.layers[-1].bias.mul_(8)  # f, too, to both sides of ±5
        generator = torch.Generator().manual_seed(2)
        kept, total, expected = [], torch.zeros((), dtype=torch.float64), []
        weights = torch.rand(2, 3, generator=generator, dtype=torch.float64)
        times = (
            torch.tensor(0.4).double(),
            torch.tensor([[0.02], [0.5], [0.9]]).double(),
        )  # κ > 5 at the first
        for i, time in enumerate(times):
            a = rand(generator, *z.shape)
            leaf = z.clone().requires_grad_()
            dz = equation(model, options, dynamics, time, leaf)
            expected = torch.autograd.grad(dz, leaf, a, retain_graph=True)[0]
            total = total + (dz * a * weights[i][None, :, None]).sum()
            with torch.no_grad():
                value, saved = dynamics.forward(time, z)
                z_bar, deltas = dynamics.vjp(saved, a)
            kept.append((saved, deltas))
            for name, x, y in zip(dynamics.blocks, value, dz.detach(), strict=True):
                found += [f"{name}'"] * _apart(x, y)
            for name, x, y in zip(dynamics.blocks, z_bar, expected, strict=True):
                found += [f"a_{name}"] * _apart(x, y)
            if dynamics.jacobian is not None:  # Jᵀ a of each sample, as a and z lie in its rows
                blocks = dynamics.jacobian(time, z).detach()
                rows = torch.einsum("bij,bi->bj", blocks, a.movedim(1, 0).flatten(1))
                found += ["jacobian"] * _apart(rows, expected.movedim(1, 0).flatten(1))
            if i == 0:
                flow = functools.partial(equation, model, options, dynamics, time)
                trace = torch.einsum("kbdkbd->b", torch.autograd.functional.jacobian(flow, z))
                found += ["divergence"] * _apart(dynamics.divergence(time, z).detach(), trace)
                found += ["integral"] * _wrong_integral(dynamics, time)
            if model == "adamnode":
                for form in ("paper", "paper-rates"):
                    dynamics.adjoint_form = form
                    with torch.no_grad():
                        h_bar = dynamics.vjp(saved, a)[0][0]
                    found += [form] * _apart(h_bar, printed_h(dynamics, form, time, z, a))
                dynamics.adjoint_form = "exact"
        timed = model in ("nesterovnode", "gnesterovnode") or options.get("damping", "constant") != "constant"
        found += ["after"] * (getattr(dynamics, "after", None) != (-SHIFT if timed else None))
        with torch.no_grad():
            saved, deltas = [s for s, _ in kept], [d for _, d in kept]
            gradients = dynamics.parameter_gradients(saved, deltas, weights)
        wanted = torch.autograd.grad(total, theta)
        for name, x, y in zip(quantities(dynamics)[len(dynamics.blocks) :], gradients, wanted, strict=True):
            found += [name] * _apart(x, y)
        for name, rate in (("alpha", -1), ("beta", -1), ("gamma", 1)):
            if hasattr(dynamics, f"raw_{name}"):
                raw = getattr(dynamics, f"raw_{name}")
                found += [name] * _apart(getattr(dynamics, name), torch.sigmoid(rate * raw))
    return found


def _wrong_integral(dynamics: Any, start: Tensor) -> bool:
    """Whether the divergence's integral to a later time is not that of Gauss's formula with 12 nodes."""
    end = start + 0.5
    found = dynamics.divergence_integral(start, end)
    if found is None:
        return False
    nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(12))
    times = start + (end - start) * (nodes + 1) / 2
    rates = torch.stack([dynamics.divergence_rate(s) for s in times])
    return _apart(found.detach(), ((end - start) / 2 * (weights * rates).sum()).detach())


def _apart(x: Tensor, y: Tensor) -> bool:
    return x.shape != y.shape or not bool((x - y).abs().max() <= 1e-11 * y.abs().max())
