"""One solve of one problem by one code at one tolerance: its error, and its calls of the right-hand side."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

import adamode
from adamode.inspect.problem import Problem
from adamode.inspect.reference import as_scipy_calls

from .problems import PROBLEMS, TIMES, error

OURS = ("dopri5", "tsit5", "dopri8", "dop853")
# What our methods are compared with; scipy's first. torchdiffeq's release has no tsit5.
KIND = {
    "dopri5": ("scipy RK45", "torchdiffeq dopri5", "torchode dopri5", "torchode tsit5"),
    "tsit5": ("scipy RK45", "torchdiffeq dopri5", "torchode dopri5", "torchode tsit5"),
    "dopri8": ("scipy DOP853", "torchdiffeq dopri8"),
    "dop853": ("scipy DOP853", "torchdiffeq dopri8"),
}


@dataclasses.dataclass(frozen=True)
class Point:
    """nfe: calls of the right-hand side, counted in it, those that only serve the output included.

    error: NaN where the code gave up (at loose tolerances the planet of D5 falls into its sun).
    """

    tolerance: float
    error: float
    nfe: int


class Counter:
    """A right-hand side for batches: y [B, n] or [n]; t 0-d, [B] or [B, 1]."""

    def __init__(self, problem: Problem):
        self.problem, self.nfe = problem, 0

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        self.nfe += 1
        if t.dim() == 1:
            t = t[:, None]
        return self.problem.f(t, y)


def _adamode(f: Counter, method: str, tol: float, **options: Any) -> Tensor:
    t = torch.from_numpy(TIMES)
    y0 = f.problem.state(torch.float64)
    if options.get("stepping") != "per_sample":
        return adamode.solve(f, y0, t, method=method, rtol=tol, atol=tol, gradient=None, **options).y
    # In company of two other starts, which must not matter.
    batch = torch.stack((y0, 0.9 * y0, 1.1 * y0))
    sol = adamode.solve(f, batch, t, method=method, rtol=tol, atol=tol, gradient=None, **options)
    f.nfe = int(sol.stats.nfe[0])
    return sol.y[:, 0]


def _torchdiffeq(f: Counter, method: str, tol: float) -> Tensor:
    import torchdiffeq

    return torchdiffeq.odeint(
        f, f.problem.state(torch.float64), torch.from_numpy(TIMES), rtol=tol, atol=tol, method=method
    )


def _torchode(f: Counter, method: str, tol: float) -> Tensor:
    import torchode

    term = torchode.ODETerm(f)
    step = {"dopri5": torchode.Dopri5, "tsit5": torchode.Tsit5}[method](term=term)
    controller = torchode.IntegralController(atol=tol, rtol=tol, term=term).double()
    times = torch.from_numpy(TIMES)[None]
    problem = torchode.InitialValueProblem(y0=f.problem.state(torch.float64)[None], t_eval=times)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = torchode.AutoDiffAdjoint(step, controller, max_steps=5000).solve(problem)
    # B1 blows up in it at loose tolerances, and then it steps for ever; the most needed elsewhere is 2000.
    return found.ys[0] if int(found.status[0]) == 0 else torch.tensor(torch.nan)


def _scipy(problem: Problem, method: str, tol: float) -> tuple[np.ndarray, int]:
    span = (TIMES[0], TIMES[-1])
    found = solve_ivp(
        as_scipy_calls(problem.f), span, np.array(problem.y0), method=method, t_eval=TIMES, rtol=tol, atol=tol
    )
    values = found.y.T if found.success else np.full((len(TIMES), len(problem.y0)), np.nan)
    return values, found.nfev


_LIBRARIES: dict[str, Callable[..., Tensor]] = {
    "adamode": _adamode,
    "torchdiffeq": _torchdiffeq,
    "torchode": _torchode,
}


@torch.no_grad()
def measure(name: str, code: str, tol: float, **options: Any) -> Point:
    """code: "scipy RK45", "adamode dopri5", …; options: more arguments of `adamode.solve`."""
    library, method = code.split()
    if library == "scipy":
        values, nfe = _scipy(PROBLEMS[name], method, tol)
    else:
        f = Counter(PROBLEMS[name])
        try:
            values, nfe = _LIBRARIES[library](f, method, tol, **options).numpy(), f.nfe
        except (RuntimeError, AssertionError):  # as the libraries say that they cannot go on
            values, nfe = np.array(np.nan), f.nfe
    return Point(tol, error(name, values), nfe)
