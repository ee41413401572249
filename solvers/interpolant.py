"""Dense output: the weights b_i(θ), and a solution that can be asked at any time.

    y(t + θ dt) = y + dt Σ b_i(θ) k_i,    y'(t + θ dt) = Σ b_i'(θ) k_i,    0 ≤ θ ≤ 1

Source: Hairer, Nørsett, Wanner I, II.6.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .tableau import Numeric


def weights(numeric: Numeric, theta: float) -> list[float]:
    """b_i(θ) for every stage."""
    found = []
    for row in numeric.dense_rows:
        value = 0.0
        for coefficient in reversed(row):
            value = (value + coefficient) * theta
        found.append(value)
    return found


def derivative_weights(numeric: Numeric, theta: float) -> list[float]:
    """b_i'(θ) for every stage."""
    found = []
    for row in numeric.dense_rows:
        value = 0.0
        for power in range(len(row), 0, -1):
            value = value * theta + power * row[power - 1]
        found.append(value)
    return found


def _powers(numeric: Numeric, theta: Tensor) -> Tensor:
    """1 … degree, [degree, 1]."""
    return torch.arange(1, numeric.dense.shape[1] + 1, dtype=torch.int64, device=theta.device)[:, None]


def theta_weights(numeric: Numeric, theta: Tensor) -> Tensor:
    """b_i(θ) for every stage, [n, *theta.shape]."""
    flat = theta.reshape(-1)
    return (numeric.dense.double() @ flat ** _powers(numeric, theta)).view(-1, *theta.shape)


def slope_weights(numeric: Numeric, theta: Tensor) -> Tensor:
    """b_i'(θ) for every stage, [n, *theta.shape]."""
    degree, flat = _powers(numeric, theta), theta.reshape(-1)
    return (numeric.dense.double() @ (degree * flat ** (degree - 1))).view(-1, *theta.shape)
