"""D(v), by which AdamODE divides its momentum, in three kinds, each with its derivative in v.

    exact     D = (v + ε)^(−1/2)           the paper's Eq. 7; NaN where v + ε < 0 (a rejected step)
    softplus  D = 1/(√softplus(v) + ε)     the authors' released code for MNIST and Silverbox
    sigmoid   D = 1/(√sigmoid(v) + ε)      the same for CIFAR-10; 1 < D ≤ 1.42 for v ≥ 0

The last two are finite for every v, but up to 1/ε for v ≪ 0.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..solvers.errors import ArgumentError, check_choice
from .checks import number
from .known import DENOMINATORS as DENOMINATORS
from .known import DenominatorName as DenominatorName


@dataclasses.dataclass(frozen=True)
class Denominator:
    """One kind: value(v, ε) → D, and fall(v, D, ε) → −2 dD/dv, both new tensors of v's shape."""

    name: DenominatorName
    value: Callable[[Tensor, float], Tensor]
    fall: Callable[[Tensor, Tensor, float], Tensor]

    def derivative(self, v: Tensor, d: Tensor, eps: float) -> Tensor:
        """dD/dv, a new tensor of v's shape."""
        return -0.5 * self.fall(v, d, eps)


def _softplus(v: Tensor) -> Tensor:
    # torch's own threshold of 20 is wrong by 2e-9 just above it, which float64 would show.
    return F.softplus(v, threshold=40.0)


def _exact(v: Tensor, eps: float) -> Tensor:
    return torch.rsqrt(v + eps)


def _exact_fall(v: Tensor, d: Tensor, eps: float) -> Tensor:
    return torch.pow(d, 3)


def _softplus_value(v: Tensor, eps: float) -> Tensor:
    return 1 / (_softplus(v).sqrt() + eps)


def _softplus_fall(v: Tensor, d: Tensor, eps: float) -> Tensor:
    # sigmoid/√softplus is 0/0 once softplus underflows (v ≤ −104 in float32); its limit is 0.
    root = _softplus(v).sqrt()
    quotient = torch.where(root > 0, torch.sigmoid(v) / root.clamp_min(torch.finfo(v.dtype).tiny), 0.0)
    return d * d * quotient


def _sigmoid_value(v: Tensor, eps: float) -> Tensor:
    return 1 / (torch.sigmoid(v).sqrt() + eps)


def _sigmoid_fall(v: Tensor, d: Tensor, eps: float) -> Tensor:
    s = torch.sigmoid(v)
    return d * d * s.sqrt() * (1 - s)  # ds/dv = s(1 − s), and s/√s = √s


_KINDS: dict[str, Denominator] = {
    kind.name: kind
    for kind in (
        Denominator("exact", _exact, _exact_fall),
        Denominator("softplus", _softplus_value, _softplus_fall),
        Denominator("sigmoid", _sigmoid_value, _sigmoid_fall),
    )
}


def get_denominator(name: str) -> Denominator:
    """The kind of that name; an unknown one is an ArgumentError that offers the nearest."""
    check_choice("denominator", name, DENOMINATORS)
    return _KINDS[name]


def check_eps(eps: float) -> float:
    """ε as a float; ArgumentError unless finite and ≥ 0."""
    if not (0 <= number("eps", eps) < math.inf):
        raise ArgumentError(f"eps={eps!r} is not a finite number ≥ 0; the paper's is 1e-8.")
    return float(eps)
