"""torchode: backpropagation through its steps (each sample has its own), and its joint continuous adjoint."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..cases import Case
from ..job import Counts, TorchJob
from ..subject import Forward, batch_first, job
from ..way import PEER, Way

Solver = Callable[[Any, Any, Any], nn.Module]  # (term, step method, controller) → the adjoint


def forward_of(case: Case, make: Solver, *, compiled: bool = False) -> Forward:
    """y at the times after the first, [B, T − 1, n]. The solver is built once for each f."""
    import torchode

    dtype, batch = case.z0.dtype, case.z0.shape[0 if case.dynamics is None else 1]
    times = case.t.to(dtype).expand(batch, -1).contiguous()
    several = times.shape[1] > 2
    options = (
        {"t_eval": times} if several else {"t_start": times[:, 0], "t_end": times[:, -1], "t_eval": None}
    )

    @functools.lru_cache(maxsize=2)
    def solver(f: nn.Module) -> Any:
        term = torchode.ODETerm(f)
        controller = torchode.IntegralController(atol=case.tol, rtol=case.tol, term=term)
        found = make(term, torchode.Dopri5(term=term), controller).to(times.device, dtype)
        return torch.compile(found.solve) if compiled else found.solve

    def forward(f: nn.Module, y0: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = solver(f)(torchode.InitialValueProblem(y0=y0, **options))
        return found.ys[:, 1:] if several else found.ys

    return forward


def autodiff(term: Any, step: Any, controller: Any) -> nn.Module:
    """Step sizes as constants: less work than its default, which differentiates the controller too."""
    import torchode

    return torchode.AutoDiffAdjoint(step, controller, backprop_through_step_size_control=False)


def joint_backsolve(term: Any, step: Any, controller: Any) -> nn.Module:
    """One step size for the whole batch on the way back, as in the other libraries."""
    import torchode

    return torchode.JointBacksolveAdjoint(term, step, controller)


def ways() -> list[Way]:
    """All. Its compiled solver is the recipe of its README."""

    def way(name: str, make: Solver, kind: str, *, compiled: bool = False) -> Way:
        def prepare(case: Case, _: Counts | None) -> TorchJob:
            eager = forward_of(case, make)
            if not compiled:
                return job(case, batch_first(case), eager, last=lambda y: y[:, -1])
            return job(case, batch_first(case), forward_of(case, make, compiled=True), eager=eager)

        return Way(
            f"torchode/{name}", PEER, prepare, lambda case: case.kind == kind, "torchode", slow=compiled
        )

    return [
        way("autodiff", autodiff, "gradient"),
        way("autodiff-compiled", autodiff, "gradient", compiled=True),
        way("joint-backsolve", joint_backsolve, "gradient"),
        way("forward", autodiff, "forward"),
    ]
