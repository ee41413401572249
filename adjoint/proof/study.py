"""The adjoint on its way, for study: a(t), the rebuilt state beside the forward one, norms by block."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...solvers.attempts import TraceRow
from ...solvers.checks import check_times
from ...solvers.errors import (
    AdamodeError,
    ArgumentError,
    NotRepeatableError,
    ReconstructionError,
    SolverError,
)
from ...solvers.march.dense import DenseOutput
from ...solvers.march.output import Step
from ...solvers.solve import Observers, Wish
from ...solvers.stats import Stats
from ...solvers.trace import Trace
from ..arguments import Options, Request, check_names, read_request
from ..continuous.stepping import ReverseWish
from ..dynamics.protocol import Dynamics, named_blocks
from ..engine.differentiate import record_for
from ..engine.problem import SharedProblem
from ..gradients import Direct, Discrete, Gradient, Reversible
from ..solve import blocks_of, make_problem, solve


@dataclasses.dataclass(frozen=True)
class Vjp:
    """One product (∂f/∂z)ᵀ a at time t: RMS of the cotangent a and of the product, by block where there are
    blocks."""

    t: float
    cotangent: tuple[float, ...]
    product: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class AdjointTrajectory:
    """dL/dz along the walk back, one row at each end of its steps, from the end to the start.

    t: [n].
    a: [n, *z], dL/dz(t) (at an observation: after its cotangent has come in, but for the start's).
    state: [n, *z], the forward solution there, from its dense output.
    rebuilt: [n, *z], the state that backsolve solved backwards, or Reversible rebuilt, or None.
    blocks: names of the blocks of a `Dynamics`, or ().
    forward, backward: every attempt of the solve and of the walk back, in their own order of time; nfe
        counts evaluations of func in the one, of its VJP in the other. Of the discrete adjoint backward is
        the accepted steps with dt turned round.
    vjps: every VJP of func in the order in which they were made, those of a walk given up among them.
    given_up: a first walk back that backsolve gave up, to start again from stored states, or None.
    failure: why the walk ended early or cannot be trusted, or None.
    """

    t: Tensor
    a: Tensor
    state: Tensor
    rebuilt: Tensor | None
    blocks: tuple[str, ...]
    stats: Stats
    forward: Sequence[TraceRow] = ()
    backward: tuple[TraceRow, ...] = ()
    vjps: tuple[Vjp, ...] = ()
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


class _Seen(NamedTuple):
    """The adjoint at one time of a walk back, the state solved backwards, and the VJPs spent until then."""

    time: float
    a: Tensor
    rebuilt: Tensor | None
    vjps: int


class _WalkBack:
    """Listens to the walk back: the adjoint at every step's ends, and every attempt of a reverse solve.

    A walk that comes back to the end of time has been given up and begins anew.
    """

    def __init__(self, end: float, stats: Stats, listening: _Listening):
        self.end, self.stats, self.listening = end, stats, listening
        self.seen: list[_Seen] = []
        self.given_up: list[_Seen] = []
        self.trace, self.counts, self.begun = Trace(Stats()), list[int](), 0

    def watch(self, time: float, a: Tensor, z: Tensor | None) -> None:
        """Sees the adjoint, and the state solved backwards."""
        if self.seen and time == self.end:
            self.given_up, self.seen, self.begun = self.seen, [], len(self.counts)
        self.listening.counted(self.stats.nfe_backward)
        rebuilt = None if z is None else z.clone()
        self.seen.append(_Seen(time, a.clone(), rebuilt, self.stats.nfe_backward))

    def observers(self) -> Observers:
        """Of the reverse solve: count the VJPs at each attempt."""

        def count(step: Step) -> None:
            self.counts.append(self.stats.nfe_backward)

        return Observers(hooks=(count,), on_reject=count)

    def attempts(self) -> tuple[list[TraceRow], list[TraceRow]]:
        """Those of the reverse solve that holds, and those of the one given up."""
        pairs = zip(self.trace.rows(), self.counts, strict=True)
        rows = [dataclasses.replace(row, nfe=n) for row, n in pairs]
        return rows[self.begun :], rows[: self.begun]

    def steps_back(self, forward: Sequence[TraceRow]) -> list[TraceRow]:
        """The discrete adjoint's: the accepted steps of the solve from the last to the first."""
        accepted = [row for row in forward if row.accepted][::-1]
        ends = [self.end, *(row.t for row in accepted)]
        # The first time seen is the end itself. An early row may be shown twice, where f jumps.
        vjps = {seen.time: seen.vjps for seen in self.seen}
        return [
            dataclasses.replace(row, t=end, dt=-row.dt, factor=math.nan, nfe=vjps[row.t])
            for row, end in zip(accepted, ends, strict=False)
            if row.t in vjps
        ]


class _Listening:
    """Hears every VJP of a dynamics: at which time, of what, and what came out."""

    def __init__(self, dynamics: Dynamics, blocks: int):
        self.blocks = blocks
        self.times: dict[int, tuple[Tensor, Any]] = {}  # with what was saved, so that no number comes twice
        self.heard: list[tuple[Tensor, Tensor]] = []
        self.forward, self.vjp = dynamics.forward, dynamics.vjp
        # The engine looks at the class of a dynamics: a wrapper would be another.
        for name, method in (("forward", self._forward), ("vjp", self._vjp)):
            setattr(dynamics, name, method)

    def _forward(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        dz, saved = self.forward(t, z)
        if saved is not None:
            self.times[id(saved)] = t.detach(), saved
        return dz, saved

    def _vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        z_bar, deltas = self.vjp(saved, cotangent)
        t, _ = self.times.get(id(saved), (cotangent.new_full((), math.nan), None))
        sizes = torch.cat([self._sizes(cotangent), self._sizes(z_bar)])
        self.heard.append((t.double(), sizes))
        return z_bar, deltas

    def _sizes(self, x: Tensor) -> Tensor:
        return _rms(x.detach().reshape(self.blocks, -1))

    def counted(self, n: int) -> None:
        """So many belong to the walk: the discrete adjoint makes another one to show what it holds back."""
        del self.heard[n:]

    def told(self) -> tuple[Vjp, ...]:
        """All of them; one read of the device."""
        if not self.heard:
            return ()
        times = torch.stack([t.reshape(()) for t, _ in self.heard]).tolist()  # host read
        sizes = torch.stack([sizes for _, sizes in self.heard]).tolist()  # host read
        k = self.blocks
        return tuple(Vjp(t, tuple(row[:k]), tuple(row[k:])) for t, row in zip(times, sizes, strict=True))


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
    """The adjoint of a solve on its walk back from the cotangents of y at every t.

    func, y0, t, arguments: those of `adamode.solve` with shared stepping; y0 is one tensor.
    cotangent: [T, *y0.shape], ∂L/∂y(t_i).
    gradient: Discrete, Interpolating, Backsolve or Reversible.
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
    blocks = named_blocks(func)
    listening = _Listening(dynamics, max(1, len(blocks)))
    walk = _WalkBack(times[-1], problem.stats, listening)
    trace = Trace(problem.stats, request, blocks_of(request))
    reverse = ReverseWish(observers=walk.observers(), trace=walk.trace, watch=walk.watch)
    problem = dataclasses.replace(problem, reverse=reverse)
    recording = record_for(problem, dynamics, gradient)
    failure: AdamodeError | None = None
    with torch.no_grad(), problem.autocast.outside():
        try:
            whole = dataclasses.replace(problem, times=times)  # whatever outputs save asks for
            run = whole.solve(request.z0.detach(), dynamics.forward, Wish(dense=True, trace=trace), recording)
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
        forward = trace.rows()

        def trajectory(seen: list[_Seen], attempts: list[TraceRow], **more: Any) -> AdjointTrajectory:
            rebuilt = [at.rebuilt for at in seen if at.rebuilt is not None]
            return AdjointTrajectory(
                torch.tensor([at.time for at in seen], dtype=torch.float64, device="cpu"),
                torch.stack([at.a for at in seen]),
                torch.stack([dense.value(at.time) for at in seen]),
                torch.stack(rebuilt) if rebuilt else None,
                blocks,
                problem.stats,
                forward,
                tuple(attempts),
                listening.told(),
                **more,
            )

        backward, lost = walk.attempts()
        if isinstance(gradient, (Discrete, Reversible)):
            backward = walk.steps_back(forward)
        given_up = trajectory(walk.given_up, lost) if walk.given_up else None
        return trajectory(walk.seen, backward, given_up=given_up, failure=failure)


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
    check_names(arguments)
    return read_request(func, y0, t, Options(**{**named, **arguments, "gradient": gradient}))
