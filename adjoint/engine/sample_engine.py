"""Per-sample stepping: which gradient runs how."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...solvers.errors import DynamicsError, SolverError
from ...solvers.march.clocked import Watching
from ...solvers.march.clocked_events import SampleEvents
from ...solvers.march.host import Stats
from ...solvers.march.samples import SampleListener, SampleRecorder, SampleSettings, SampleStep, beside
from ...solvers.sample_solve import SampleRun, sample_solve
from ...solvers.status import Status
from ...solvers.step.clocks import Each
from ...solvers.step.field import Autocast
from ...solvers.trace import SampleTrace
from ..dynamics.protocol import Dynamics
from ..gradient import Direct, Gradient
from .function import Solve, Task
from .problem import Speed
from .sample_walks import SampleContext, record_samples
from .speed import sample_queue
from .time_move import Flow, moved_end, moved_start
from .transformed import gradient_allowed, moves, transformed

_RECORDED = "a gradient is wanted, and per sample the host keeps every attempt for its way back"


@dataclasses.dataclass(frozen=True)
class SampleWish:
    """What a solve is to record besides the values at the times."""

    every_step: bool = False
    dense: bool = False
    events: SampleEvents | None = None
    trace: SampleTrace | None = None


@dataclasses.dataclass(frozen=True)
class SampleProblem:
    """One per-sample solve, checked and packed.

    plain, make_dynamics: as in `engine.Problem`.  t: [B, T], differentiable; times: the same, float64
    and detached.  speed, func: how attempts are made, what a program would compile.
    """

    plain: Callable[[Tensor, Tensor], Tensor]
    make_dynamics: Callable[[], Dynamics]
    z0: Tensor
    t: Tensor
    times: Tensor
    clocks: Each
    settings: SampleSettings
    autocast: Autocast
    stats: Stats
    wish: SampleWish
    speed: Speed = Speed()  # noqa: RUF009  (frozen)
    func: Any = None

    def after(self, time: Tensor) -> Tensor:
        """Times at which f jumps, just after the jump."""
        direction = torch.where(self.times[:, -1] < self.times[:, 0], -1.0, 1.0)
        return beside(time, self.settings.at_jump(time.detach().reshape(-1).double()), direction)

    def flow(self, seen_at: Callable[[Tensor], Tensor] = lambda time: time) -> Callable[..., Tensor]:
        """f for `time_move`: counted, and 0 where it is not finite, with no NaN in the graph."""
        clocks = self.clocks

        def call(time: Tensor, z: Tensor) -> Tensor:
            self.stats.nfe, self.stats.n_calls = self.stats.nfe + 1, self.stats.n_calls + 1
            return self.plain(time, z)

        def f(time: Tensor, z: Tensor) -> Tensor:
            time = seen_at(time)
            with torch.no_grad():
                fine = clocks.all(torch.isfinite(z.detach()))
                fine = fine & clocks.all(torch.isfinite(call(time.detach(), z.detach())))
            if not bool(fine.any()):  # host read
                return torch.zeros_like(z)
            healthy = fine.to(torch.int8).argmax().reshape(1)
            mask = clocks.spread(fine)
            state = torch.where(mask, z, z.index_select(clocks.batch, healthy))
            time = torch.where(fine.view(time.shape), time, time.index_select(0, healthy))
            return torch.where(mask, call(time, state), 0.0)

        return f

    def solve(
        self,
        z0: Tensor,
        inner: Callable[..., Any],
        kept: list[SampleStep],
        *,
        dense: bool = False,
        recorder: SampleRecorder | None = None,
        **options: Any,
    ) -> SampleRun:
        """The forward pass; batched calls are counted, attempts put into kept where dense is wished."""

        whole = self.clocks.batch_size(z0)

        def field(t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
            self.stats.n_calls += 1
            if self.clocks.batch_size(z) == whole:
                return inner(t, z)
            try:
                return inner(t, z)
            except (DynamicsError, RuntimeError, IndexError) as error:
                if isinstance(error, (SolverError, torch.OutOfMemoryError)):
                    raise
                raise DynamicsError(
                    f"func failed with the {self.clocks.batch_size(z)} of {whole} samples still under way, "
                    "after it had worked with all of them. compact=True takes finished samples out of the "
                    "batch, so func must hold no data of its own for each sample (put it into the state, "
                    f"with derivative 0) or leave compact out. It said: {error}"
                ) from error

        wish = self.wish
        dense = dense or wish.dense
        listeners: list[SampleListener] = [KeepSteps(kept)] if dense else []
        if wish.trace is not None:
            listeners.append(wish.trace)
        return sample_solve(
            field,
            z0,
            self.times,
            self.clocks,
            self.settings,
            self.stats,
            every_step=wish.every_step,
            watching=Watching(recorder, wish.events, tuple(listeners), dense),
            **options,
        )


class KeepSteps(SampleListener):
    """A listener that keeps every attempt."""

    def __init__(self, steps: list[SampleStep]):
        self.steps = steps

    def attempt(self, step: SampleStep, dt_next: Tensor, nfe: Tensor) -> None:
        """One attempt."""
        self.steps.append(step)


@dataclasses.dataclass(frozen=True)
class SampleWalkBack:
    """An adjoint for any times inside the solve: `SampleRecording.ask`."""

    theta: tuple[Tensor, ...]
    ask: Callable[..., tuple[Tensor, list[Tensor]]]


@dataclasses.dataclass
class SampleAnswer:
    """values: [n, *state], outputs and then the events' rows; run: the rest; steps: for dense output.

    tape, dynamics: of the discrete adjoint, where there is one; run.derivatives then holds those at the
    start.  start: the state that the steps began with, if it has another graph than y0.
    """

    values: Tensor
    run: SampleRun
    steps: list[SampleStep]
    again: SampleWalkBack | None = None
    start: Tensor | None = None


def differentiate_samples(problem: SampleProblem, gradient: Gradient | None) -> SampleAnswer:
    """Solves, with the gradient asked for where one can flow."""
    plain = lambda t, z: (problem.plain(t, z), None)  # noqa: E731
    kept: list[SampleStep] = []
    with problem.autocast.outside():
        if transformed():
            gradient = _gradient_allowed(problem, gradient)
        if isinstance(gradient, Direct) and (torch.is_grad_enabled() or transformed()):
            sample_queue(problem, _RECORDED)
            return _direct(problem, plain, kept)
        if gradient is not None and torch.is_grad_enabled():
            dynamics = problem.make_dynamics()
            problem.stats.n_calls = int(problem.stats.nfe)  # func's parameters may be found by a call
            theta = dynamics.theta()
            if any(x.requires_grad for x in (problem.z0, problem.t, *theta)):
                sample_queue(problem, _RECORDED)
                return _adjoint(problem, dynamics, gradient, kept)
        queue = sample_queue(problem, "")
        with torch.no_grad():
            run = problem.solve(problem.z0.detach(), plain, kept, queue=queue)
        return SampleAnswer(run.values, run, kept)


def _gradient_allowed(problem: SampleProblem, gradient: Gradient | None) -> Gradient | None:
    """`gradient_allowed` for a per-sample solve."""
    problem.stats.nfe, problem.stats.n_calls = problem.stats.nfe + 1, problem.stats.n_calls + 1
    start = problem.clocks.time(problem.times[:, 0], problem.z0)
    events = problem.wish.events is not None
    inputs = (problem.z0, problem.t)
    return gradient_allowed(gradient, lambda: problem.plain(start, problem.z0), inputs, events=events)


def _direct(problem: SampleProblem, plain: Callable[..., Any], kept: list[SampleStep]) -> SampleAnswer:
    """Through the steps by autograd; a time enters by moving the state along the flow."""
    z0, t = problem.z0, problem.t
    timed = moves(t)
    start = moved_start(Flow(problem.flow(problem.after), problem.clocks), z0, t[:, 0]) if timed else z0
    run = problem.solve(start, plain, kept, differentiable=True, derivatives=timed)
    values = [z0, *run.values[1:]]
    if timed:
        assert run.derivatives is not None
        flow = Flow(problem.flow(), problem.clocks)
        for i, row in enumerate(_time_of_rows(problem, run)):
            if i > 0:
                slope = torch.where(torch.isnan(run.derivatives[i]), 0.0, run.derivatives[i])
                # A row without a time that was given stands at the start, and does not move.
                own = torch.where(row.sum(1) > 0, (t * row).sum(1), problem.times[:, 0].to(t))
                values[i] = moved_end(flow, values[i], slope, own)
    return SampleAnswer(torch.stack(values), run, kept, start=start)


def _time_of_rows(problem: SampleProblem, run: SampleRun) -> Tensor:
    """[n, B, T] of zeros and ones: which given time each row of a sample's outputs belongs to."""
    n, (batch, width) = len(run.times), problem.t.shape
    if not problem.wish.every_step:
        return torch.eye(width, dtype=problem.z0.dtype, device=problem.z0.device)[:, None].expand(
            n, batch, -1
        )
    picks = torch.zeros((n, batch, width), dtype=problem.z0.dtype, device=problem.z0.device)
    arrived = (run.rows.status == int(Status.SUCCESS)).to(picks)
    stays = problem.times[:, 0] == problem.times[:, -1]  # its end is written although it takes no step
    last = (run.rows.n_accepted + stays).clamp(max=n - 1)
    picks[last, torch.arange(batch, dtype=torch.int64, device=picks.device), width - 1] = arrived
    picks[0] = 0.0
    picks[0, :, 0] = 1.0
    return picks


def _adjoint(
    problem: SampleProblem, dynamics: Dynamics, gradient: Gradient, kept: list[SampleStep]
) -> SampleAnswer:
    clocks, stats, settings = problem.clocks, problem.stats, problem.settings
    context = SampleContext(problem.z0, problem.times[:, 0], clocks, settings, stats, kept)
    recording = record_samples(context, dynamics, gradient)
    runs: list[SampleRun] = []

    def forward(z0: Tensor, derivatives: bool) -> tuple[Tensor, Tensor | None, SampleRun]:
        field = dynamics.forward if recording.saves else lambda t, z: (dynamics.value(t, z), None)
        run = problem.solve(
            z0.detach(),
            field,
            kept,
            derivatives=derivatives,
            recorder=recording.recorder,
            dense=recording.dense,
        )
        first = None if run.derivatives is None else run.derivatives[:1].clone()
        # No view of the values: they become the Function's output, whose node holds this record.
        light = dataclasses.replace(run, values=run.values.new_empty(0), derivatives=first)
        runs.append(light)
        return run.values, run.derivatives, light

    def backward(record: SampleRun, values: Tensor, g: Tensor, want: bool) -> tuple[Tensor, list[Tensor]]:
        stats.nfe_backward = stats.nfe_recomputed = 0
        stats.n_accepted_backward = stats.n_rejected_backward = 0
        times = torch.cat((record.times, _event_times(problem)))
        return recording.walk(times, values, g, want)

    def time_gradient(g: Tensor, derivatives: Tensor, a: Tensor) -> Tensor:
        g = torch.cat((-a[None], g[1 : len(derivatives)]))
        product = torch.where(g == 0, 0.0, g * derivatives)  # 0 · NaN of a sample that failed
        per_row = clocks.rows_per_sample(product).sum(2)  # [n, B]
        return (per_row[:, :, None] * _time_of_rows(problem, runs[0])).sum(0)

    task = Task(forward, backward, time_gradient, problem.autocast)
    theta = dynamics.theta()
    values = Solve.apply(task, problem.z0, problem.t, *theta)
    return SampleAnswer(values, runs[0], kept, SampleWalkBack(theta, recording.ask))


def _event_times(problem: SampleProblem) -> Tensor:
    """[n events, B] in the order of their rows, NaN where a sample did not meet the event."""
    rows = [torch.full_like(problem.times[:, 0], math.nan)[None][:0]]
    fired = problem.wish.events.fired if problem.wish.events is not None else []
    for record in reversed(fired):
        empty = torch.full_like(problem.times[:, 0], math.nan)
        rows.append(empty.index_copy(0, record.index, torch.where(record.valid, record.t, math.nan))[None])
    return torch.cat(rows)
