"""Dense output: the weights b_i(θ), and a solution that can be asked at any time.

    y(t + θ dt) = y + dt Σ b_i(θ) k_i,    y'(t + θ dt) = Σ b_i'(θ) k_i,    0 ≤ θ ≤ 1

Source: Hairer, Nørsett, Wanner I, II.6.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from ..methods.tableau import Numeric, Tableau, hermite

PARTS = 8  # of a step: an event function is looked at between them


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


def looks() -> list[float]:
    """θ of the looks inside a step, without its ends."""
    return [k / PARTS for k in range(1, PARTS)]


@functools.lru_cache(maxsize=256)
def look_table(tableau: Tableau, dtype: torch.dtype, device: torch.device, closer: bool) -> Tensor:
    """b_i(θ) at the looks inside a step, [PARTS − 1, n].

    closer: of the dense output.  Else of what costs no evaluation: that too, or where it needs further
    stages the cubic through y0, f0, y1, f1.
    """
    rows = tableau.interpolant
    if tableau.c_dense and not closer:
        rows = hermite(tableau.b, tableau.n_stages - 1)
    found = [
        [sum(float(w) * theta ** (k + 1) for k, w in enumerate(row)) for row in rows] for theta in looks()
    ]
    with torch.inference_mode(False):  # or a later solve that needs gradients could not use the cache
        table = torch.tensor(found, dtype=torch.float64, device="cpu")
        return table.to(device=device, dtype=dtype, non_blocking=True)
