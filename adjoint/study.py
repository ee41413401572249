"""The adjoint on its way, for study: a(t), the rebuilt state beside the forward one, norms by block."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import torch
from torch import Tensor

from ..solvers.checks import check_times
from ..solvers.dense import DenseOutput
from ..solvers.errors import ArgumentError, ArgumentTypeError, nearest
from ..solvers.field import CountedField
from ..solvers.loop import Stats
from ..solvers.solve import Wish, forward_solve
from .gradient import Direct, Discrete, Gradient
from .request import Options, read_request
from .shared import make_problem
from .solve import solve
from .walks import record_for


@dataclasses.dataclass(frozen=True)
class AdjointTrajectory:
    """dL/dz along the way back, one row at each end of a step of the walk, from the end to the start.

    t: [n].  a: [n, *z], dL/dz(t) (at an observation: after its cotangent has come in).
    state: [n, *z], the forward solution there.  rebuilt: [n, *z], the state that backsolve solved
    backwards, or None.  blocks: names of the blocks of a `Dynamics`, or ().
    """

    t: Tensor
    a: Tensor
    state: Tensor
    rebuilt: Tensor | None
    blocks: tuple[str, ...]
    stats: Stats

    def norms(self) -> dict[str, Tensor]:
        """RMS over time, [n]: "a" and "state" (and "rebuilt − state"), by block where there are blocks."""
        whole = {"a": self.a, "state": self.state}
        if self.rebuilt is not None:
            whole["rebuilt − state"] = self.rebuilt - self.state
        found = {}
        for name, values in whole.items():
            if not self.blocks:
                found[name] = _rms(values)
            for i, block in enumerate(self.blocks):
                found[f"{name}, {block}"] = _rms(values[:, i])
        return found


def _rms(values: Tensor) -> Tensor:
    return values.double().reshape(len(values), -1).square().mean(1).sqrt()


def adjoint_trajectory(
    func: Any,
    y0: Tensor,
    t: Tensor,
    cotangent: Tensor,
    *,
    gradient: Gradient = Discrete(),  # noqa: B008  (frozen)
    **arguments: Any,
) -> AdjointTrajectory:
    """Solves forwards, then walks the adjoint back from the cotangents of y at every t.

    func, y0, t and the keyword arguments are those of `adamode.solve` with shared stepping; y0 is one
    tensor.  cotangent: [T, *y0.shape], ∂L/∂y(t_i).  gradient: Discrete, Interpolating or Backsolve.
    Raises ArgumentError for a cotangent of another shape, or Direct(), which has no adjoint to show.
    """
    if isinstance(gradient, Direct) or gradient is None:
        raise ArgumentError(f"gradient={gradient!r} has no adjoint trajectory: use Discrete() or another.")
    if not isinstance(cotangent, Tensor) or cotangent.shape != (len(t), *y0.shape):
        found = tuple(cotangent.shape) if isinstance(cotangent, Tensor) else type(cotangent).__name__
        raise ArgumentError(f"cotangent is {found}; it must be [T, *y0.shape] = {(len(t), *y0.shape)}.")
    defaults = {name: p.default for name, p in inspect.signature(solve).parameters.items()}
    named = {name: defaults[name] for name in Options.__dataclass_fields__}
    unknown = [name for name in arguments if name not in named]
    if unknown:
        raise ArgumentTypeError(f"unknown argument {unknown[0]!r}: {nearest(unknown[0], named)}")
    request = read_request(func, y0, t, Options(**{**named, **arguments, "gradient": gradient}))
    times = check_times(t, request.z0)
    problem = make_problem(request, times)
    dynamics = problem.make_dynamics()
    rows: list[tuple[float, Tensor, Tensor | None]] = []
    recording = record_for(problem, dynamics, gradient, lambda time, a, z: rows.append((time, a.clone(), z)))
    with torch.no_grad(), problem.autocast.outside():
        run = forward_solve(
            CountedField(dynamics.forward, problem.stats),
            request.z0.detach(),
            times,
            problem.settings,
            problem.stats,
            wish=Wish(dense=True),
            hooks=recording.hooks,
        )
        recording.walk(run.times, run.places, run.values, list(cotangent.unbind()), False)
        dense = DenseOutput(run.steps, times[0], times[-1])
        state = torch.stack([dense.value(time) for time, _, _ in rows])
    rebuilt = [z.clone() for _, _, z in rows if z is not None]
    return AdjointTrajectory(
        torch.tensor([time for time, _, _ in rows], dtype=torch.float64),
        torch.stack([a for _, a, _ in rows]),
        state,
        torch.stack(rebuilt) if rebuilt else None,
        tuple(getattr(func, "blocks", ())),
        problem.stats,
    )
