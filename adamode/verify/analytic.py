"""Solutions in closed form of the models over an affine field f = W[h, t] + b.

NODE, ANODE, SONODE, HBNODE, and GHBNODE with hardtanh between its corners, are then linear: with
time and a constant 1 as two more components, y' = M y and y(t) = e^{Mt} y(0) (matrix exponential).

AdamODE is never linear. At W_h = 0 its m and v are convolutions with e^{−At}, e^{−Bt} and h an
integral of both. The derivative in W_h at W_h = 0 is that of f along the undisturbed h(t). All
integrals are over smooth functions: Chebyshev's nodes give them to rounding.

Under a damping γ(t) = γ + r/t the equations are linear with coefficients that depend on time. At W_h = 0
(μ m)' = μ f with μ = e^{γt} t^r, and h is an integral of m. The same holds for GNesterovNODE with the
identity and no ξ: there γ = 1, r = 0, and x = h/κ in the place of h.

GHBNODE with tanh and GNesterovNODE with σ have no closed solution.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..models.dynamics import GeneralisedNesterovODE
from .zoo import LATER, Instance

NODES = 48  # of each integral; 1e-15 for a smooth integrand over one unit of time

Values = Callable[[Tensor, Tensor], Tensor]


def has_closed_solution(instance: Instance) -> bool:
    """Whether `closed_solution` knows this model."""
    variant = instance.variant
    return variant.activation != "tanh" and (variant.model, variant.activation) != (
        "gnesterovnode",
        "hardtanh",
    )


def closed_solution(instance: Instance, dynamics: Any) -> Values:
    """(z0, t) → [T, K, B, D], differentiable in z0 and in the dynamics' parameters.

    For AdamODE, and a damping that depends on time, it sets W_h to zero: build the problem's references
    after this call.
    """
    layer, model = dynamics.field.layers[0], instance.variant.model
    if model not in ("adamnode", *LATER):
        return lambda z0, t: _linear(model, dynamics, layer, z0, t)
    with torch.no_grad():
        layer.weight[:, :-1] = 0
    interval = _adam_interval if model == "adamnode" else _momentum_interval
    return lambda z0, t: _by_intervals(functools.partial(interval, dynamics, layer), z0, t)


def _linear(model: str, dynamics: Any, layer: Any, z0: Tensor, t: Tensor) -> Tensor:
    """e^{M(t − t0)} [z, t, 1] for each t."""
    k, batch, dim = z0.shape
    matrix = z0.new_zeros(k * dim + 2, k * dim + 2)
    eye = torch.eye(dim).to(z0)
    h, m, time, one = slice(0, dim), slice(dim, 2 * dim), k * dim, k * dim + 1
    last = h if k == 1 else m  # the block whose rate is f
    inputs = slice(0, 2 * dim) if model == "sonode" else h
    rows = [(last, inputs, layer.weight[:, :-1]), (last, slice(time, time + 1), layer.weight[:, -1:])]
    rows += [(last, slice(one, one + 1), layer.bias[:, None])]
    if model == "sonode":
        rows += [(h, m, eye)]
    elif model in ("hbnode", "ghbnode"):
        rows += [(h, m, -eye), (m, m, -dynamics.gamma * eye)]
    if model == "ghbnode":
        rows += [(m, h, dynamics.xi * eye)]
    for to, of, values in rows:
        part = torch.zeros_like(matrix)
        part[to, of] = values
        matrix = matrix + part
    clock = torch.zeros_like(matrix)
    clock[time, one] = 1.0  # t' = 1
    matrix = matrix + clock
    start = torch.cat(
        (z0.transpose(0, 1).reshape(batch, k * dim), t[0].expand(batch, 1), z0.new_ones(batch, 1)), 1
    )
    ends = [start @ torch.matrix_exp(matrix * (end - t[0])).T for end in t]
    return torch.stack([end[:, : k * dim].reshape(batch, k, dim).transpose(0, 1) for end in ends])


def _by_intervals(interval: Callable[[Tensor, float, float], Tensor], z0: Tensor, t: Tensor) -> Tensor:
    """One interval after another."""
    values, z = [z0], z0
    for start, end in itertools.pairwise(t.tolist()):
        z = interval(z, start, end)
        values.append(z)
    return torch.stack(values)


def _adam_interval(dynamics: Any, layer: Any, z: Tensor, start: float, end: float) -> Tensor:
    """m and v by convolution, h = h0 − ∫ m D(v)."""
    a, b = 1 - dynamics.alpha, 1 - dynamics.beta
    s, integral = _chebyshev(start, end, z)
    s3 = s[:, None, None]
    free = s3 * layer.weight[:, -1] + layer.bias  # f without W_h, [n, 1, D]

    def moments(f: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # e^{−A(s−r)} = e^{−As} e^{Ar}: a running integral of e^{Ar} f(r).
        gain_a, gain_b = torch.exp(a * (s3 - start)), torch.exp(b * (s3 - start))
        m = (z[1] - a * torch.einsum("ij,jbd->ibd", integral, gain_a * f)) / gain_a
        v = (z[2] + b * torch.einsum("ij,jbd->ibd", integral, gain_b * f * f)) / gain_b
        h = z[0] - torch.einsum("ij,jbd->ibd", integral, m * _denominator(dynamics, v))
        return h, m, v

    with torch.no_grad():
        undisturbed = moments(free.expand(-1, z.shape[1], -1))[0]
    h, m, v = moments(undisturbed @ layer.weight[:, :-1].T + free)
    return torch.stack((h[-1], m[-1], v[-1]))  # the last node is the end


def _momentum_interval(dynamics: Any, layer: Any, z: Tensor, start: float, end: float) -> Tensor:
    """m = (μ(start) m0 + ∫ μ f)/μ, h = κ (h0/κ(start) − ∫ m)."""
    s, integral = _chebyshev(start, end, z)
    s3 = s[:, None, None]
    free = s3 * layer.weight[:, -1] + layer.bias
    if isinstance(dynamics, GeneralisedNesterovODE):  # the identity, no ξ
        gain, kappa = torch.exp(s3 - start), s3**-1.5 * torch.exp(s3 / 2)
    else:
        kappa, gain = torch.ones_like(s3), torch.ones_like(s3)
        if "raw_gamma" in dynamics.scalars:
            gain = gain * torch.exp(torch.sigmoid(dynamics.raw_gamma) * (s3 - start))
        if dynamics.damping != "constant":
            r = torch.log1p(torch.exp(dynamics.raw_r)) if "raw_r" in dynamics.scalars else 3.0
            gain = gain * (s3 / start) ** r

    def moments(f: Tensor) -> tuple[Tensor, Tensor]:
        m = (z[1] + torch.einsum("ij,jbd->ibd", integral, gain * f)) / gain
        return kappa * (z[0] / kappa[0] - torch.einsum("ij,jbd->ibd", integral, m)), m

    with torch.no_grad():
        undisturbed = moments(free.expand(-1, z.shape[1], -1))[0]
    h, m = moments(undisturbed @ layer.weight[:, :-1].T + free)
    return torch.stack((h[-1], m[-1]))


def _denominator(dynamics: Any, v: Tensor) -> Tensor:
    """D(v), written out again."""
    if dynamics.denominator == "exact":
        return 1 / torch.sqrt(v + dynamics.eps)
    inner = torch.log1p(torch.exp(v)) if dynamics.denominator == "softplus" else 1 / (1 + torch.exp(-v))
    return 1 / (torch.sqrt(inner) + dynamics.eps)


def _chebyshev(start: float, end: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """Chebyshev's extreme points s on [start, end], and I with (I g)(sᵢ) = ∫_start^{sᵢ} g.

    Source: L. N. Trefethen, Approximation Theory and Approximation Practice, ch. 3 and 19.
    """
    k = torch.arange(NODES, dtype=torch.float64)
    x = -torch.cos(math.pi * k / (NODES - 1))
    degree = torch.arange(NODES + 1, dtype=torch.float64)
    polynomials = torch.cos(degree * torch.arccos(x.clamp(-1, 1))[:, None])  # T_j(x_i)
    # ∫T_0 = T_1, ∫T_1 = T_2/4, ∫T_j = T_{j+1}/2(j+1) − T_{j−1}/2(j−1), up to constants.
    primitive = torch.zeros(NODES, NODES, dtype=torch.float64)
    primitive[:, 0], primitive[:, 1] = polynomials[:, 1], polynomials[:, 2] / 4
    for j in range(2, NODES):
        primitive[:, j] = polynomials[:, j + 1] / (2 * (j + 1)) - polynomials[:, j - 1] / (2 * (j - 1))
    primitive = primitive - primitive[:1]
    integral = primitive @ torch.linalg.inv(polynomials[:, :NODES])
    half = (end - start) / 2
    return (start + half * (x + 1)).to(like), (half * integral).to(like)
