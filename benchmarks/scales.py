"""``python -m benchmarks.scales``: what α, β, ε and the denominator do, drawn (docs/study/scales.md)."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adamode import HBNODE, AdamNODE
from adamode.models.denominators import DENOMINATORS, get_denominator
from adamode.plotting import BLUE, GREEN, ORANGE, save_figure

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "scales.png"
OMEGA, ROWS, DAMPING = 0.7, 60.0, 0.067  # of the Silverbox's resonance, per row
D0 = 1 / math.sqrt(math.log(2))  # 1/√softplus(0)
GREY = "#888888"
EXACT: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-12}


def swing(a: float, f0: float, *, b: float = 0.5) -> tuple[Tensor, Tensor]:
    """(t, h/h0) of AdamODE with the field −ω²h/(A·D(0)), let go where the field is −f0."""
    h0 = torch.tensor([[f0 * a * D0 / OMEGA**2]], dtype=torch.float64)
    stiffness = OMEGA**2 / (a * D0)
    block = AdamNODE(
        lambda t, h: -stiffness * h, alpha=1 - a, beta=1 - b, eps=1e-8, denominator="softplus", **EXACT
    ).double()
    times = torch.linspace(0.0, ROWS, 301, dtype=torch.float64)
    with torch.no_grad():
        path = block.trajectory(h0, times)["h"][:, 0, 0]
    return times, path / h0[0, 0]


def heavy_ball(gamma: float) -> tuple[Tensor, Tensor]:
    """(t, h/h0) of the heavy ball h'' = −γh' − ω²h."""
    block = HBNODE(lambda t, h: OMEGA**2 * h, gamma=gamma, **EXACT).double()
    times = torch.linspace(0.0, ROWS, 61, dtype=torch.float64)
    with torch.no_grad():
        path = block.trajectory(torch.ones(1, 1, dtype=torch.float64), times)["h"][:, 0, 0]
    return times, path


def draw(figure: Any) -> None:
    """A as damping, D as normalisation, D(v), and the speed at which a constant field moves h."""
    (one, two), (three, four) = figure.subplots(2, 2)
    for axis in (one, two):
        axis.plot(*heavy_ball(DAMPING), ".", color=GREY, markersize=4, label=f"heavy ball, γ = {DAMPING}")
        axis.set_xlabel("t, rows")
        axis.set_ylabel("h / h(0)")
    for a, colour in ((DAMPING, BLUE), (0.3, GREEN), (0.9, ORANGE)):
        one.plot(*swing(a, 0.05), color=colour, linewidth=1.2, label=f"A = {a}")
    one.set_title("A is the damping (f² ≤ .0025)")
    for f0, colour in ((0.05, BLUE), (1.0, GREEN), (4.0, ORANGE)):
        two.plot(*swing(DAMPING, f0), color=colour, linewidth=1.2, label=f"f(0)² = {f0 * f0:.2g}")
    two.set_title("D normalises once f² is not small (A = .067)")
    size = torch.logspace(-3, 2, 200, dtype=torch.float64)
    for kind, colour in zip(DENOMINATORS, (BLUE, GREEN, ORANGE), strict=True):
        d = get_denominator(kind).value
        v = torch.logspace(-10, 4, 200, dtype=torch.float64)
        three.loglog(v, d(v, 1e-8), color=colour, label=f"{kind}, ε = 1e-8")
        four.loglog(size, size * d(size**2, 1e-8), color=colour, label=f"{kind}, ε = 1e-8")
    three.loglog(v, get_denominator("exact").value(v, 1e-3), "--", color=BLUE, label="exact, ε = 1e-3")
    four.loglog(size, size * get_denominator("exact").value(size**2, 1e-3), "--", color=BLUE)
    three.set_title("D(v)")
    three.set_xlabel("v")
    four.set_title("Speed under a constant f: |h'| = |f|·D(f²)")
    four.set_xlabel("|f|")
    for axis in (one, two, three, four):
        axis.legend(fontsize=7, loc="best" if axis in (three, four) else "upper right")
    two.set_ylim(top=1.6)  # room for the legend


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scales", description=__doc__)
    parser.add_argument("--picture", type=Path, default=PICTURE, help="where it is written")
    save_figure(parser.parse_args().picture, draw, size=(10, 7))


if __name__ == "__main__":
    main()
