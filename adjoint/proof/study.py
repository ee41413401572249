"""The adjoint on its way, for study: a(t), the rebuilt state beside the forward one, norms by block."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...solvers.checks import check_times
from ...solvers.errors import (
    AdamodeError,
    ArgumentError,
    ArgumentTypeError,
    NotRepeatableError,
    ReconstructionError,
    SolverError,
    nearest,
)
from ...solvers.march.dense import DenseOutput
from ...solvers.march.output import Step
from ...solvers.solve import Observers, Wish, forward_solve
from ...solvers.stats import Stats
from ...solvers.step.field import CountedField
from ...solvers.trace import Trace, TraceRow
from ..arguments import Direct, Discrete, Gradient, Options, Request, read_request
from ..dynamics.protocol import named_blocks
from ..engine.differentiate import record_for
from ..engine.problem import SharedProblem
from ..solve import make_problem, solve


@dataclasses.dataclass(frozen=True)
class AdjointTrajectory:
    """dL/dz along the way back, one row at each end of a step of the walk, from the end to the start.

    t: [n].  a: [n, *z], dL/dz(t) (at an observation: after its cotangent has come in, but for the start's).
    state: [n, *z], the forward solution there, from its dense output.  rebuilt: [n, *z], the state that
    backsolve solved backwards, or None.  blocks: names of the blocks of a `Dynamics`, or ().
    forward, backward: every attempt of the solve and of the walk back, in their own order of time; nfe
    counts evaluations of func in the one, of its VJP in the other.  Of the discrete adjoint backward is
    the accepted steps with dt turned round.  given_up: a first walk back that backsolve gave up, to start
    again from kept states, or None.  failure: why the walk ended early or cannot be trusted, or None.
    """

    t: Tensor
    a: Tensor
    state: Tensor
    rebuilt: Tensor | None
    blocks: tuple[str, ...]
    stats: Stats
    forward: tuple[TraceRow, ...] = ()
    backward: tuple[TraceRow, ...] = ()
    given_up: AdjointTrajectory | None = None
    failure: AdamodeError | None = None

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


class _Walk:
    """Listens to the walk back: the adjoint at every step's ends, and every attempt of a reverse solve.

    A walk that comes back to the end of time has been given up and begins anew.
    """

    def __init__(self, end: float, stats: Stats):
        self.end, self.stats = end, stats
        self.rows: list[tuple[float, Tensor, Tensor | None]] = []
        self.vjps: list[int] = []  # at each row
        self.lost: list[tuple[float, Tensor, Tensor | None]] = []  # the rows of a walk given up
        self.trace, self.counts, self.begun = Trace(Stats()), list[int](), 0

    def watch(self, time: float, a: Tensor, z: Tensor | None) -> None:
        """Sees the adjoint, and the state solved backwards."""
        if self.rows and time == self.end:
            self.lost, self.rows, self.vjps, self.begun = self.rows, [], [], len(self.counts)
        self.rows.append((time, a.clone(), None if z is None else z.clone()))
        self.vjps.append(self.stats.nfe_backward)

    def count(self, step: Step) -> None:
        """Of each attempt of a reverse solve."""
        self.counts.append(self.stats.nfe_backward)

    def observers(self) -> Observers:
        """Of the reverse solve."""
        return Observers(hooks=(self.count,), on_reject=self.count)

    def attempts(self) -> tuple[list[TraceRow], list[TraceRow]]:
        """Those of the reverse solve that holds, and those of the one given up."""
        rows = [
            dataclasses.replace(row, nfe=n) for row, n in zip(self.trace.rows(), self.counts, strict=True)
        ]
        return rows[self.begun :], rows[: self.begun]

    def steps_back(self, forward: Sequence[TraceRow]) -> list[TraceRow]:
        """The discrete adjoint's: the accepted steps of the solve from the last to the first."""
        accepted = [row for row in forward if row.accepted][::-1]
        ends = [self.end, *(row.t for row in accepted)]
        found = []
        # The first row of the walk is the end itself.  An early row may be shown twice, where f jumps.
        counts = {time: n for (time, _, _), n in zip(self.rows, self.vjps, strict=True)}
        for row, end in zip(accepted, ends, strict=False):
            if row.t in counts:
                back = dataclasses.replace(row, t=end, dt=-row.dt, factor=math.nan, nfe=counts[row.t])
                found.append(back)
        return found


def adjoint_trajectory(
    func: Any,
    y0: Tensor,
    t: Tensor,
    cotangent: Tensor,
    *,
    gradient: Gradient = Discrete(),  # noqa: B008  (frozen)
    partial: bool = False,
    **arguments: Any,
) -> AdjointTrajectory:
    """Solves forwards, then walks the adjoint back from the cotangents of y at every t.

    func, y0, t and the keyword arguments are those of `adamode.solve` with shared stepping; y0 is one
    tensor.  cotangent: [T, *y0.shape], ∂L/∂y(t_i).  gradient: Discrete, Interpolating or Backsolve.
    partial: a walk back that fails is returned as far as it came, with its failure, and not raised.
    Raises ArgumentError for a cotangent of another shape, or Direct(), which has no adjoint to show;
    SolverError where the forward solve cannot go on (with its trace) or the reverse one cannot;
    ReconstructionError as `adamode.solve` does.
    """
    request = _checked(func, y0, t, cotangent, gradient, arguments)
    times = check_times(t)
    problem = make_problem(request)
    assert isinstance(problem, SharedProblem)
    dynamics = problem.make_dynamics()
    walk, trace = _Walk(times[-1], problem.stats), Trace(problem.stats)
    problem = dataclasses.replace(problem, reverse_observers=walk.observers(), reverse_trace=walk.trace)
    recording = record_for(problem, dynamics, gradient, walk.watch)
    failure: AdamodeError | None = None
    with torch.no_grad(), problem.autocast.outside():
        try:
            run = forward_solve(
                CountedField(dynamics.forward, problem.stats),
                request.z0.detach(),
                times,
                problem.settings,
                problem.stats,
                Wish(dense=True, trace=trace),
                Observers(hooks=(recording.recorder.step,)),
            )
        except SolverError as error:
            error.trace = trace.rows()
            raise
        try:
            recording.walk(problem.seen(run, run.values), cotangent, False)
        except (SolverError, ReconstructionError, NotRepeatableError) as error:
            if not partial:
                raise
            failure = error
        dense = DenseOutput(run.steps, times[0], times[-1])
        blocks, forward = named_blocks(func), tuple(trace.rows())
        backward, lost = walk.attempts()
        if isinstance(gradient, Discrete):
            backward = walk.steps_back(forward)
        given_up = None
        if walk.lost:
            given_up = _trajectory(walk.lost, dense, blocks, problem.stats, forward, lost)
        way = _trajectory(walk.rows, dense, blocks, problem.stats, forward, backward)
    return dataclasses.replace(way, given_up=given_up, failure=failure)


def _trajectory(
    rows: list[tuple[float, Tensor, Tensor | None]],
    dense: DenseOutput,
    blocks: tuple[str, ...],
    stats: Stats,
    forward: tuple[TraceRow, ...],
    backward: list[TraceRow],
) -> AdjointTrajectory:
    """One walk back, its rows stacked."""
    rebuilt = [z for _, _, z in rows if z is not None]
    return AdjointTrajectory(
        torch.tensor([time for time, _, _ in rows], dtype=torch.float64, device="cpu"),
        torch.stack([a for _, a, _ in rows]),
        torch.stack([dense.value(time) for time, _, _ in rows]),
        torch.stack(rebuilt) if rebuilt else None,
        blocks,
        stats,
        forward,
        tuple(backward),
    )


def _checked(
    func: Any, y0: Tensor, t: Tensor, cotangent: Tensor, gradient: Gradient, arguments: dict[str, Any]
) -> Request:
    """The request, or an error of the argument that is wrong."""
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
    return read_request(func, y0, t, Options(**{**named, **arguments, "gradient": gradient}))
