"""func asked again for the page: eigenvalues of ∂f/∂y where steps start, stages of a dense output alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...adjoint.solve import make_problem
from ...solvers.errors import AdamodeError
from ...solvers.methods import EVERY
from ...solvers.step.clocks import Each
from .seen import Floats, Seen

MOST_GRADIENTS = 20_000  # of one entry of f each: some 2 s
MOST_VALUES = 12  # eigenvalues of one start in the page, the largest


class Flow:
    """f of a solve, at the states of its attempts, of which all entries must have been kept."""

    def __init__(self, seen: Seen):
        self.seen = seen
        self.problem = make_problem(seen.request)
        self.clocks, self.z0 = self.problem.clocks, self.problem.z0.detach()

    def state(self, entries: Floats) -> Tensor:
        """The engine's state with these entries, of every sample."""
        y = torch.tensor(entries.tolist(), dtype=torch.float64, device="cpu")
        if not isinstance(self.clocks, Each):
            return y.to(self.z0).reshape(self.z0.shape)
        axis = self.clocks.batch
        shape = [n for i, n in enumerate(self.z0.shape) if i != axis]
        return y.to(self.z0).reshape(shape).unsqueeze(axis).expand(self.z0.shape).contiguous()

    def time(self, t: float) -> Tensor:
        """As f wants it."""
        lanes = self.clocks.shape(self.z0)
        whole = torch.full(lanes, t, dtype=torch.float64, device=self.z0.device)
        return self.clocks.time(whole, self.z0)

    def entries(self, z: Tensor, sample: int | None) -> Tensor:
        """Those of one sample, or of all."""
        return self.clocks.per_sample(z)[sample] if isinstance(self.clocks, Each) else z.reshape(-1)

    def slope(self, t: float, y: Floats, sample: int | None) -> Floats:
        """f(t, y) of a sample, [n]."""
        with torch.no_grad():
            dz = self.problem.plain(self.time(t), self.state(y))
        return np.array(self.entries(dz, sample).double().tolist())

    def eigenvalues(self, t: float, y: Floats, sample: int | None) -> list[complex]:
        """Of ∂f/∂y at (t, y), the largest first; [] where it is not finite."""
        with torch.enable_grad():
            z = self.state(y).requires_grad_()
            dz = self.entries(self.problem.plain(self.time(t), z), sample)
            if not dz.requires_grad:
                return [0j] * min(len(y), MOST_VALUES)
            rows = [
                torch.autograd.grad(entry, z, retain_graph=True, allow_unused=True)[0]
                for entry in dz.unbind()
            ]
        zero = torch.zeros_like(self.z0)
        jacobian = torch.stack([self.entries(zero if g is None else g, sample) for g in rows]).double()
        if not bool(torch.isfinite(jacobian).all()):
            return []
        values = np.linalg.eigvals(np.array(jacobian.tolist())).tolist()
        return sorted(values, key=abs, reverse=True)[:MOST_VALUES]


def spectra(seen: Seen) -> tuple[list[int | None], list[list[list[float]]], str]:
    """Of each row which list of eigenvalues is its start's, the lists [[re, im], …], and why there are none
    or not all."""
    none: list[int | None] = [None] * len(seen.rows)
    width = seen.y0.shape[1]
    if not _whole(seen):
        return none, [], "λ is not known: the state has more entries than a trace keeps."
    starts = {(row.sample, row.t): i for i, row in reversed(list(enumerate(seen.rows)))}
    stride = max(1, math.ceil(len(starts) * width / MOST_GRADIENTS))
    found: dict[tuple[int | None, float], int] = {}
    lists: list[list[list[float]]] = []
    try:
        flow = Flow(seen)
        for key, i in sorted(starts.items(), key=lambda pair: pair[1])[::stride]:
            values = flow.eigenvalues(seen.rows[i].t, seen.y0[i], seen.rows[i].sample)
            if values:
                found[key] = len(lists)
                lists.append([[z.real, z.imag] for z in values])
    except (RuntimeError, AdamodeError, NotImplementedError) as error:  # func cannot be differentiated
        return none, [], f"λ is not known: func could not be differentiated ({type(error).__name__})."
    some = f"λ was computed at every {stride}th start." if stride > 1 else ""
    more = "" if width <= MOST_VALUES else f"The {MOST_VALUES} largest of {width} eigenvalues are shown."
    which = [found.get((row.sample, row.t)) for row in seen.rows]
    return which, lists, " ".join(filter(None, (some, more)))


def further_stages(seen: Seen) -> Floats | None:
    """The stages that only the dense output has, [n, further, c]; None where there are none, or not known."""
    tableaus = [EVERY[row.method] for row in seen.rows]
    most = max(len(t.c_dense) for t in tableaus)
    if not most or not _whole(seen):
        return None
    found = np.full((len(seen.rows), most, seen.y0.shape[1]), math.nan)
    try:
        flow = Flow(seen)
        for i, (row, tableau) in enumerate(zip(seen.rows, tableaus, strict=True)):
            numeric: Any = tableau.numeric(torch.float64, torch.device("cpu"))
            n, stages = tableau.n_stages, list(seen.stages[i])
            for j in range(len(tableau.c_dense)):
                terms = numeric.a_rows[n + j]
                y = seen.y0[i] + row.dt * sum(w * stages[k] for k, w in terms)
                time = row.t + numeric.c[n + j] * row.dt
                stages[n + j : n + j + 1] = [flow.slope(time, y, row.sample)]
                found[i, j] = stages[n + j]
    except (RuntimeError, AdamodeError, NotImplementedError):
        return None
    return found


def _whole(seen: Seen) -> bool:
    """Whether the page has all entries of a clock's state."""
    look, _ = seen.looks[0]
    z0 = seen.request.z0
    n = z0.numel() // z0.shape[seen.batch] if seen.many else z0.numel()
    return look.vectors.shape[-1] == n == len(seen.positions)
