"""A method for the page: its numbers, and the border of its stability region as lines."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from contourpy import contour_generator

from ...solvers.methods.stability import (
    pair_matrix,
    stability_fraction,
    stability_function,
    stability_polynomial,
)
from ...solvers.methods.tableau import Tableau
from ..stability_picture import stability_box, unstable_box

GRID = 161  # points a side: a region's border is then some 300 points
ROUNDING = 1 + 1e-9  # on the imaginary axis a pair's eigenvalues have the modulus 1 exactly


def method_record(tableau: Tableau, coupling: float | None) -> dict[str, Any]:
    """Nodes, rows, weights, dense output, R(z) and where |R| = 1.

    coupling: of the pair that is stepped in place of the method's own step, or None.
    """
    numeric = tableau.numeric(torch.float64, torch.device("cpu"))
    return {
        "name": tableau.name,
        "order": tableau.order,
        "order_hat": tableau.order_hat,
        "implicit": tableau.implicit,
        "coupled": tableau.coupled,
        "rosenbrock": bool(tableau.gamma),
        "n_stages": tableau.n_stages,
        "c": list(numeric.c),
        "a": [[float(w) for w in row] for row in tableau.rows()],
        "b": numeric.b.tolist(),
        "dense": [list(row[1:]) for row in numeric.dense_rows],
        "dense_order": tableau.dense_order,
        **_stability(tableau, coupling),
    }


def _stability(tableau: Tableau, coupling: float | None) -> dict[str, Any]:
    if tableau.leapfrog or coupling is not None:
        box = (-2.5, 1.0, 2.5) if tableau.leapfrog else stability_box(tableau)
        window = _window(*box)
        z, x, y = _plane(window)
        growth = _growth(pair_matrix(tableau, z, coupling)).numpy()
        return {"R": None, "window": window, "region": _lines(x, y, growth, ROUNDING), "embedded": []}
    if tableau.implicit:
        far, top = unstable_box(tableau)
        window = _window(-0.6 * far, far, top)
        above, below = stability_fraction(tableau)
        fraction = [[float(w) for w in row] for row in (above, below)]
    else:
        left, right, top = stability_box(tableau)
        if tableau.b_hat is not None:
            other = stability_box(tableau, embedded=True)
            left, right, top = min(left, other[0]), max(right, other[1]), max(top, other[2])
        window = _window(left, right, top)
        fraction = [[float(w) for w in stability_polynomial(tableau)], [1.0]]
    z, x, y = _plane(window)
    size = stability_function(tableau, z).abs().numpy()
    embedded = []
    if tableau.b_hat is not None and not tableau.implicit:
        embedded = _lines(x, y, stability_function(tableau, z, embedded=True).abs().numpy(), 1.0)
    return {"R": fraction, "window": window, "region": _lines(x, y, size, 1.0), "embedded": embedded}


def _growth(m: torch.Tensor) -> torch.Tensor:
    """The larger modulus of the eigenvalues of 2 × 2 matrices: roots of x² − (trace) x + det."""
    half = 0.5 * (m[..., 0, 0] + m[..., 1, 1])
    root = (half * half - torch.linalg.det(m)).sqrt()
    return torch.maximum((half + root).abs(), (half - root).abs())


def _window(left: float, right: float, top: float) -> list[float]:
    """[least real part, greatest, greatest imaginary part] of the picture."""
    return [1.1 * left - 0.3, max(right, 0.0) + 1.0, 1.15 * top + 0.3]


def _plane(window: list[float]) -> tuple[torch.Tensor, Any, Any]:
    low, high, top = window
    x = torch.linspace(low, high, GRID, dtype=torch.float64)
    y = torch.linspace(-top, top, GRID, dtype=torch.float64)
    return torch.complex(*torch.meshgrid(x, y, indexing="xy")), x.numpy(), y.numpy()


def _lines(x: Any, y: Any, values: Any, level: float) -> list[list[float]]:
    """The level's lines, each x1, y1, x2, y2 …, with three digits."""
    finite = np.where(np.isfinite(values), values, 1e300)
    found: Any = contour_generator(x=x, y=y, z=finite).lines(level)
    return [[float(f"{v:.4g}") for point in line for v in point if math.isfinite(v)] for line in found]
