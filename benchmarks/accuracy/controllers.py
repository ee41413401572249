"""What a step costs under each controller: evaluations at equal error, and how many steps are rejected."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch

import adamode
from adamode.solvers.step.controller import PRESETS

from .lines import ratios
from .measurements import Measurements, geometric_mean
from .problems import PROBLEMS, TEN, TIMES, reference_error

METHODS = ("dopri5", "dop853")
CONTROLLERS = {"default": adamode.PID(), **PRESETS}


@dataclasses.dataclass(frozen=True)
class Cost:
    """nfe: over the classical controller's at equal error, by method.
    error: achieved error over its at equal tolerance.
    rejected: share of attempts.
    """

    nfe: dict[str, float]
    error: dict[str, float]
    rejected: dict[str, float]


def costs(known: Measurements) -> dict[str, Cost]:
    """Geometric means over the ten problems and the tolerances 1e-3 … 1e-10."""
    base = {m: known.lines(f"adamode {m}", "per_sample", controller=CONTROLLERS["I"]) for m in METHODS}
    found = {}
    for name, controller in CONTROLLERS.items():
        nfe, error, rejected = {}, {}, {}
        for method in METHODS:
            lines = known.lines(f"adamode {method}", "per_sample", controller=controller)
            pairs = [(lines[p], base[method][p], reference_error(p) / 10) for p in TEN]
            nfe[method] = geometric_mean(np.array([ratios(a, b, noise) for a, b, noise in pairs]))
            error[method] = geometric_mean(np.array([a.error / b.error for a, b, _ in pairs]))
            rejected[method] = float(np.mean([rejected_share(p, method, controller) for p in TEN]))
        found[name] = Cost(nfe, error, rejected)
    return found


@torch.no_grad()
def rejected_share(name: str, method: str, controller: adamode.PID, tol: float = 1e-6) -> float:
    """Rejected over attempted steps at one tolerance."""
    y0, t = PROBLEMS[name].state(torch.float64), torch.from_numpy(TIMES)
    sol = adamode.solve(
        PROBLEMS[name].f, y0, t, method=method, rtol=tol, atol=tol, gradient=None, controller=controller
    )
    return sol.stats.n_rejected / sol.stats.n_steps if sol.stats.n_steps else math.nan
