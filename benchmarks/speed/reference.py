"""What the right numbers are: our own engine in float64, checked against torchdiffeq's."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

import adamode
from adamode import Discrete

from .cases import Case
from .subject import gradient_call, stacked

CHECKED = 16  # samples: backpropagation in float64 at 1e-12 keeps every stage


def solve_for(case: Case) -> list[Tensor]:
    """dL/dz0 and dL/dθ, or z(t_end), by the case's reference method and the discrete adjoint, in float64."""
    method, tol = case.reference
    settings = {"rtol": tol, "atol": tol, "method": method}
    if case.kind != "gradient":
        func = case.plain if case.dynamics is None else case.dynamics
        return [adamode.solve(func, case.z0, case.t, gradient=None, **settings).y[-1]]
    z0 = case.z0.detach().requires_grad_()
    y = adamode.solve(case.dynamics, z0, case.t, gradient=Discrete(keep="state"), **settings).y
    found = torch.autograd.grad((y[1:] * case.w).sum(), [z0, *case.theta])
    return [x.detach() for x in found]


def doubt(case: Case) -> float:
    """How far torchdiffeq's own method of that order, by backpropagation in float64, is from `solve_for`.

    As `error` measures it; on the first samples only.
    """
    import torchdiffeq

    method, tol = case.reference
    settings = {"rtol": tol, "atol": tol, "method": {"dop853": "dopri8"}.get(method, method)}
    if case.dynamics is not None:
        case = case.head(2 if case.convolutional else CHECKED)

    def forward(f: torch.nn.Module, y0: Tensor) -> Tensor:
        return torchdiffeq.odeint(f, y0, case.t, **settings)[1:]

    if case.kind != "gradient":
        with torch.no_grad():
            theirs = [forward(case.plain, case.z0)[-1]]
    else:
        theirs = gradient_call(stacked(case), forward)()
    return error(theirs, solve_for(case))


class References:
    """`solve_for` and `doubt`, kept in a folder under a name made of the problem's own numbers."""

    def __init__(self, folder: Path | None):
        self.folder = folder

    def _kept(self, what: str, case: Case, compute: Callable[[], list[Tensor]]) -> list[Tensor]:
        if self.folder is None:
            return compute()
        numbers = hashlib.sha256(repr((case.kind, case.reference, case.t.tolist())).encode())
        for x in (case.z0, case.w, *case.theta):
            numbers.update(x.detach().cpu().numpy().tobytes())
        file = self.folder / f"{case.name}-{what}-{numbers.hexdigest()[:16]}.pt"
        if not file.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            scratch = file.with_suffix(f".{os.getpid()}.part")
            torch.save(compute(), scratch)
            scratch.replace(file)
        return torch.load(file, weights_only=True)

    def solve_for(self, case: Case) -> list[Tensor]:
        """The right numbers."""
        return self._kept("right", case, lambda: solve_for(case))

    def doubt(self, case: Case) -> float:
        """How far torchdiffeq's are from them."""
        if importlib.util.find_spec("torchdiffeq") is None:
            return math.nan
        return float(self._kept("doubt", case, lambda: [torch.tensor(doubt(case))])[0])


def error(found: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    """The largest ‖found − right‖ / ‖right‖ over dL/dz0 and every parameter (or of z(t_end)), 2-norms.

    NaN where anything found is not finite.
    """
    largest = 0.0
    for a, b in zip(found, right, strict=True):
        off = float((a.double() - b).norm() / b.norm())
        if not math.isfinite(off):
            return math.nan
        largest = max(largest, off)
    return largest
