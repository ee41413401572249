"""Learnt scalars that stay in their range: value, derivative and inverse of each transform.

A dynamics learns a raw number θ of any size and uses value(θ): rates in (0, 1) through the
sigmoid, positive strengths through the softplus. Start values are given as the number that is
meant (``alpha=0.37``); the inverse finds the raw number from which it comes out again.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..solvers.errors import ArgumentError, ArgumentTypeError


def _number(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ArgumentTypeError(f"{name}={value!r} is a {type(value).__name__}; give a Python number.")
    return float(value)


class Sigmoid:
    """(−∞, ∞) → (0, 1)."""

    @staticmethod
    def value(raw: Tensor) -> Tensor:
        """s = 1/(1 + e^−θ)."""
        return torch.sigmoid(raw)

    @staticmethod
    def derivative(raw: Tensor) -> Tensor:
        """ds/dθ = s(1 − s)."""
        s = torch.sigmoid(raw)
        return s * (1 - s)

    @staticmethod
    def inverse(name: str, value: float) -> float:
        """θ = log(s/(1 − s)).  Raises ArgumentError outside the open interval (0, 1)."""
        value = _number(name, value)
        if not 0 < value < 1:  # False for NaN too
            raise ArgumentError(f"{name}={value!r} is not between 0 and 1; give a number strictly inside.")
        return math.log(value) - math.log1p(-value)


class Softplus:
    """(−∞, ∞) → (0, ∞)."""

    @staticmethod
    def value(raw: Tensor) -> Tensor:
        """p = log(1 + e^θ)."""
        return F.softplus(raw)

    @staticmethod
    def derivative(raw: Tensor) -> Tensor:
        """dp/dθ = sigmoid(θ)."""
        return torch.sigmoid(raw)

    @staticmethod
    def inverse(name: str, value: float) -> float:
        """θ = log(e^p − 1), written so that large p do not overflow.  Raises ArgumentError for p ≤ 0."""
        value = _number(name, value)
        if not 0 < value < math.inf:
            raise ArgumentError(f"{name}={value!r} is not positive and finite; give a number above 0.")
        return value + math.log(-math.expm1(-value))


def raw_parameter(raw: float, *, learnable: bool) -> nn.Parameter:
    """A 0-d parameter in torch's default dtype; with ``learnable=False`` it needs no gradient."""
    return nn.Parameter(torch.tensor(raw, dtype=torch.get_default_dtype()), requires_grad=learnable)
