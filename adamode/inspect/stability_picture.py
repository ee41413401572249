"""The stability region of a tableau, and where the steps of a solve lay in it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import scipy.ndimage
import torch
from torch import Tensor

from ..plotting import BLUE, GREEN, ORANGE
from ..solvers.methods.stability import pair_growth, stability_function
from ..solvers.methods.tableau import Tableau
from .study import Study

MOST_STEPS, MOST_COMPONENTS = 200, 256  # so many eigenvalues take 21 s on one core


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """dt·λ for every eigenvalue λ of ∂f/∂y at the start of accepted steps; t: of each point."""

    z: Tensor
    t: Tensor


def spectrum(study: Study) -> Spectrum | None:
    """Of at most MOST_STEPS steps, evenly chosen; None without steps or with too large a state."""
    rows = [row for row in study.rows if row.accepted]
    if study.solution is None or not rows or len(study.problem.y0) > MOST_COMPONENTS:
        return None
    stride = math.ceil(len(rows) / MOST_STEPS)
    points, times = [], []
    for row in rows[::stride]:
        t = torch.tensor(row.t, dtype=torch.float64, device=study.values.device)
        y = study.solution(t).double()
        jacobian = study.problem.jacobian_at(t, y.detach())
        if bool(torch.isfinite(jacobian).all()):
            points.append(row.dt * torch.linalg.eigvals(jacobian).cpu())
            times += [row.t] * len(y)
    if not points:
        return None
    return Spectrum(torch.cat(points), torch.tensor(times, dtype=torch.float64))


def stability_box(tableau: Tableau, embedded: bool = False) -> tuple[float, float, float]:
    """(least real part, greatest, greatest imaginary part) of the region |R| ≤ 1 at 0, about.

    Islands apart from it count for nothing: no step size reaches them from small ones.
    """
    # Every method's region lies inside: dop853's, the largest, reaches −6.35 and ±6.2 i.
    x = torch.linspace(-12, 4, 321, dtype=torch.float64)
    y = torch.linspace(-10, 10, 401, dtype=torch.float64)
    z = torch.complex(*torch.meshgrid(x, y, indexing="xy"))
    inside = stability_function(tableau, z, embedded).abs() <= 1
    pieces, _ = scipy.ndimage.label(inside.numpy())
    middle, left_of_0 = 200, int((x < -0.04).sum()) - 1
    inside = torch.from_numpy(pieces == pieces[middle, left_of_0])
    return float(z.real[inside].min()), float(z.real[inside].max()), float(z.imag[inside].max())


def unstable_box(tableau: Tableau) -> tuple[float, float]:
    """(greatest real part, greatest imaginary part) of where an implicit method's |R| > 1, about."""
    # Right of 0, beside the poles: kvaerno5's, the largest of today's, reaches 19.4 and ±11.5 i.
    x, y = torch.linspace(0, 40, 401, dtype=torch.float64), torch.linspace(0, 40, 401, dtype=torch.float64)
    z = torch.complex(*torch.meshgrid(x, y, indexing="xy"))
    outside = stability_function(tableau, z).abs() > 1
    return float(z.real[outside].max()), float(z.imag[outside].max())


def _window(tableau: Tableau, found: Spectrum | None) -> list[float]:
    """[least real part, greatest, greatest imaginary part] of the picture."""
    if tableau.implicit:
        far, top = unstable_box(tableau)
        left, right = -0.6 * far, far
    else:
        left, right, top = stability_box(tableau)
        if tableau.b_hat is not None:
            other = stability_box(tableau, embedded=True)
            left, right, top = min(left, other[0]), max(right, other[1]), max(top, other[2])
    window = [1.1 * left - 0.3, max(right, 0.0) + 1.0, 1.15 * top + 0.3]
    if found is not None:  # room for the points, up to twice the region
        window[0] = max(2 * left - 1, min(window[0], 1.1 * float(found.z.real.min())))
        window[1] = max(window[1], min(abs(left) + 1, 1.1 * float(found.z.real.max())))
        window[2] = min(2 * top, max(window[2], 1.1 * float(found.z.imag.max())))
    return window


def draw_stability(figure: Any, study: Study, found: Spectrum | None) -> None:
    """|R| ≤ 1 filled, the embedded explicit method's dashed (or filled, where the pair that is stepped is
    stable), and dt·λ of the solve's steps."""
    tableau = study.tableau
    window = _window(tableau, found)
    low, high, height = window
    x = torch.linspace(low, high, 401, dtype=torch.float64)
    y = torch.linspace(-height, height, 401, dtype=torch.float64)
    z = torch.complex(*torch.meshgrid(x, y, indexing="xy"))
    axis = figure.subplots()
    grid = (x.numpy(), y.numpy())
    size = stability_function(tableau, z).abs().numpy()
    axis.contourf(*grid, size, levels=[0, 1], colors=[BLUE], alpha=0.18)
    axis.contour(*grid, size, levels=[1], colors=[BLUE], linewidths=1.2)
    axis.plot([], [], color=BLUE, label=f"|R(z)| = 1, {tableau.name}")
    if study.coupling is not None:
        # A hair more than 1: on the imaginary axis both eigenvalues may have the modulus √λ, or 1 exactly.
        growth = pair_growth(tableau, z, study.coupling).numpy()
        axis.contourf(*grid, growth, levels=[0, 1 + 1e-9], colors=[GREEN], alpha=0.45)
        axis.contour(*grid, growth, levels=[1 + 1e-9], colors=[GREEN], linewidths=1)
        axis.plot([], [], color=GREEN, label=f"the pair, coupling {study.coupling:g}")
    elif tableau.b_hat is not None and not tableau.implicit:
        embedded = stability_function(tableau, z, embedded=True).abs().numpy()
        axis.contour(*grid, embedded, levels=[1], colors=[ORANGE], linewidths=1, linestyles="--")
        axis.plot([], [], color=ORANGE, linestyle="--", label="its embedded method")
    if found is not None:
        _points(figure, axis, found, window)
    axis.axvline(0, color="black", linewidth=0.6)
    axis.axhline(0, color="black", linewidth=0.6)
    axis.set(xlim=(low, high), ylim=(-height, height), aspect="equal")
    axis.set_xlabel("Re z")
    axis.set_ylabel("Im z")
    figure.suptitle(f"{study.problem.name}, {tableau.name}: stability region and z = dt·λ", fontsize=10)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)


def _points(figure: Any, axis: Any, found: Spectrum, window: list[float]) -> None:
    low, high, height = window
    z = found.z
    outside = int(((z.real < low) | (z.real > high) | (z.imag.abs() > height)).sum())
    label = "z = dt·λ of the steps" + (f" ({outside} of {len(z)} lie outside)" if outside else "")
    look = {"cmap": "viridis", "s": 10, "edgecolors": "black", "linewidths": 0.2, "zorder": 3}
    points = axis.scatter(z.real, z.imag, c=found.t, label=label, **look)
    figure.colorbar(points, ax=axis, label="t", shrink=0.8)
