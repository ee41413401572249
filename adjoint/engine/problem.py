"""One solve, checked and packed: with one clock, or with a clock a sample."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...solvers.device import natives
from ...solvers.device.programs import Row, clock_of
from ...solvers.errors import SolverError
from ...solvers.march.dense import DenseOutput, SampleDense
from ...solvers.march.host import Outcome
from ...solvers.march.output import as_time
from ...solvers.march.samples import SampleRecorder, SampleSettings, beside
from ...solvers.solve import Observers, Run, SampleRun, Settings, Wish, forward_solve, sample_solve
from ...solvers.stats import Stats
from ...solvers.status import Status
from ...solvers.step.clocks import ONE, Clocks, Each
from ...solvers.step.field import Autocast, CountedBatches, CountedField
from ..continuous.stepping import ReverseWish
from ..discrete.penalties import StepPenalties
from ..dynamics.protocol import Dynamics
from ..recording import Recording, Seen
from .time_move import Flow


@dataclasses.dataclass(frozen=True)
class Speed:
    """How attempts are made: `sync_every` and `compile` of `solve`."""

    sync_every: int = 1
    compile: bool = False


class StrandedError(Exception):
    """A whole solve that does not arrive, or has nowhere to go: the eager way says why."""


class Told(NamedTuple):
    """What a whole solve tells: the row of each clock's last attempt, |dt| of its first, and the number of
    (batched) evaluations of func."""

    row: Tensor
    dt_first: Tensor
    n_calls: int


@dataclasses.dataclass(frozen=True)
class Problem(abc.ABC):
    """One solve. What differs between one clock and a clock a sample are its methods.

    plain: f(t, z) → dz under the caller's grad mode; make_dynamics: the same with its VJP (made when a
        gradient is wanted).
    t: differentiable, on the state's device; times: the same, detached (one clock: floats; else [B, T]
        float64).
    wish: what to record besides.
    speed, func, named: how attempts are made, what a program would compile, whether params were named.
    reverse: what is wished of the way back.
    penalties: sums over the steps, told as rows behind the values (`discrete.penalties`).
    """

    plain: Callable[[Tensor, Tensor], Tensor]
    make_dynamics: Callable[[], Dynamics]
    z0: Tensor
    t: Tensor
    times: Any
    settings: Any
    autocast: Autocast
    stats: Stats
    wish: Wish = Wish()  # noqa: RUF009  (frozen)
    speed: Speed = Speed()
    func: Any = None
    named: bool = False
    reverse: ReverseWish = ReverseWish()  # noqa: RUF009  (frozen)
    penalties: StepPenalties | None = None

    @contextlib.contextmanager
    def traced(self) -> Iterator[None]:
        """An error tells all attempts, where a trace was asked for: it is the solve to study."""
        try:
            yield
        except SolverError as error:
            error.trace = None if self.wish.trace is None else self.wish.trace.rows()
            raise

    @property
    def by_programs(self) -> bool:
        """Whether a whole solve by native programs is to be tried."""
        return self.speed.compile and natives.MODE != "off" and self.settings.plain

    @property
    @abc.abstractmethod
    def clocks(self) -> Clocks:
        """Which clocks the state has."""

    @property
    @abc.abstractmethod
    def start(self) -> Tensor:
        """The start as func wants it."""

    @abc.abstractmethod
    def solve(
        self, z0: Tensor, field: Callable[..., Any], wish: Wish, recording: Recording | None = None
    ) -> Any:
        """The forward pass."""

    def penalised(self, run: Any) -> Any:
        """The run of a solve, with the penalties behind its values."""
        if self.penalties is None:
            return run
        return dataclasses.replace(run, values=self.penalties.after(run.values))

    @abc.abstractmethod
    def evaluate(self, time: Tensor, z: Tensor, counted: Any = 1) -> Tensor:
        """f once, counted; a clock a sample: for the samples in counted, [B]."""

    @abc.abstractmethod
    def lanes(self) -> Tensor:
        """The times as [T, lanes], float64, on the state's device: a lane a clock."""

    def begun_like(self) -> Hashable:
        """Numbers of which all that a whole solve begins with, but the state, is made; None: there are others
        that cannot be compared."""
        return None

    @abc.abstractmethod
    def arrived(self, values: Tensor, slopes: Tensor | None, told: Told) -> Any:
        """The run of a whole solve; counts in stats."""

    @abc.abstractmethod
    def flow(self, *, start: bool = False) -> Flow:
        """f for times that move; start: those of the start."""

    @abc.abstractmethod
    def seen(self, run: Any, values: Tensor) -> Seen:
        """Outputs and events of a run, in the order of the values."""

    @abc.abstractmethod
    def asked(self, output: Any, times: Any, values: Tensor) -> Seen:
        """Times that a dense output was asked for; the values have the start's first."""

    @abc.abstractmethod
    def own_times(self, run: Any) -> list[tuple[int, Tensor]]:
        """Which rows of the values move with a time that was given, and the times."""

    @abc.abstractmethod
    def to_times(self, rows: Tensor, run: Any) -> Tensor:
        """Cotangents of the outputs' times, a row each, as one of t."""

    @abc.abstractmethod
    def dense(self, run: Any, start: Tensor) -> Any:
        """What answers questions to the dense output; start: the state that the steps began with."""


@dataclasses.dataclass(frozen=True)
class SharedProblem(Problem):
    """The problem of a solve with one clock. observers: torchdiffeq's callbacks."""

    clocks = ONE
    settings: Settings
    times: Sequence[float]
    observers: Observers = Observers()  # noqa: RUF009  (frozen)

    @property
    def start(self) -> Tensor:
        """The time as a 0-d tensor."""
        return as_time(self.times[0], self.z0)

    def solve(
        self, z0: Tensor, field: Callable[..., Any], wish: Wish, recording: Recording | None = None
    ) -> Run:
        """Each call is counted."""
        observers = self.observers
        recorders = (self.penalties, None if recording is None else recording.recorder)
        if recorders != (None, None):
            hooks = tuple(recorder.step for recorder in recorders if recorder is not None)
            observers = dataclasses.replace(observers, hooks=(*hooks, *observers.hooks))
        counted = CountedField(field, self.stats)
        run = forward_solve(counted, z0, self.times, self.settings, self.stats, wish, observers)
        return self.penalised(run)

    def evaluate(self, time: Tensor, z: Tensor, counted: Any = 1) -> Tensor:
        """One evaluation."""
        self.stats.nfe += 1
        return self.plain(time, z)

    def lanes(self) -> Tensor:
        """One lane, [T, 1]."""
        times = torch.tensor(self.times, dtype=torch.float64, device="cpu")[:, None]
        return times.to(self.z0.device, non_blocking=True)

    def begun_like(self) -> Hashable:
        """Times, tolerances, the first step and the limit on attempts."""
        own, tolerance = self.settings, self.settings.tolerance
        numbers = (tolerance.rtol, tolerance.atol, own.dt0, own.max_steps)
        return None if any(isinstance(x, Tensor) for x in numbers) else (*numbers, *self.times)

    def arrived(self, values: Tensor, slopes: Tensor | None, told: Told) -> Run:
        """The run, its numbers read from the device."""
        dt_first, *numbers = torch.cat((told.dt_first[None], told.row)).tolist()  # host read
        stats, last = self.stats, Row(*numbers)
        stats.n_accepted, stats.n_rejected = int(last.n_accepted), int(last.n_rejected)
        stats.dt_first, stats.dt_last = dt_first, last.dt
        stats.nfe += told.n_calls
        outcome, times = Outcome(Status.SUCCESS, last.t, last.dt), list(self.times)
        return Run(values, slopes, times, [], [], [], last.t, outcome)

    def flow(self, *, start: bool = False) -> Flow:
        """f, each call counted. start: just after a jump there."""
        if start and self.times[0] in self.settings.jump_at:
            return Flow(lambda time, z: self.evaluate(self._after(time), z))
        return Flow(self.evaluate)

    def _after(self, time: Tensor) -> Tensor:
        """A time at which f jumps, just after the jump, with the gradient that it has."""
        way = torch.full_like(time, math.copysign(math.inf, self.times[-1] - self.times[0]))
        return time + (torch.nextafter(time.detach(), way) - time.detach())

    def seen(self, run: Run, values: Tensor) -> Seen:
        """The outputs by their places in the steps."""
        times = [*run.times, *(fired.t for fired in run.fired)]
        return Seen(times, values, [*run.places, *(fired.place for fired in run.fired)])

    def asked(self, output: DenseOutput, times: list[float], values: Tensor) -> Seen:
        """By their places in the steps."""
        return Seen([self.times[0], *times], values, output.places(times))

    def own_times(self, run: Run) -> list[tuple[int, Tensor]]:
        """Those of the outputs that were reached, but for the start."""
        own = list(enumerate(self.t))
        if self.wish.every_step:  # the last step may end at an event
            own = [(len(run.times) - 1, self.t[-1])] if run.times[-1] == self.times[-1] else []
        return [(i, time) for i, time in own if i and run.places[i].reached]

    def to_times(self, rows: Tensor, run: Run) -> Tensor:
        """With outputs at every step only the first and the last are times that were given."""
        if not self.wish.every_step:
            return rows
        ended = rows[-1:] if run.times[-1] == self.times[-1] else torch.zeros_like(rows[-1:])
        return torch.cat((rows[:1], rows.new_zeros(len(self.times) - 2), ended))

    def dense(self, run: Run, start: Tensor) -> DenseOutput:
        """The kept steps."""
        return DenseOutput(run.steps, self.times[0], run.end)


@dataclasses.dataclass(frozen=True)
class SampleProblem(Problem):
    """The problem of a solve with a clock a sample."""

    settings: SampleSettings
    times: Tensor

    @property
    def clocks(self) -> Each:
        """The clocks of the settings."""
        return self.settings.clocks

    @property
    def start(self) -> Tensor:
        """Times [B, 1, …]."""
        return self.clocks.time(self.times[:, 0], self.z0)

    def solve(
        self, z0: Tensor, field: Callable[..., Any], wish: Wish, recording: Recording | None = None
    ) -> SampleRun:
        """Batched calls are counted."""
        clocks = self.clocks
        counted = CountedBatches(field, self.stats, clocks.batch, clocks.batch_size(z0))
        recorder: SampleRecorder | None = None if recording is None else recording.recorder
        if self.penalties is not None:
            recorder = self.penalties.beside(recorder)
        run = sample_solve(counted, z0, self.times, self.settings, self.stats, wish, recorder)
        return self.penalised(run)

    def evaluate(self, time: Tensor, z: Tensor, counted: Any = 1) -> Tensor:
        """One batched evaluation."""
        self.stats.nfe, self.stats.n_calls = self.stats.nfe + counted, self.stats.n_calls + 1
        return self.plain(time, z)

    def lanes(self) -> Tensor:
        """A lane a sample, [T, B]."""
        return self.times.t().contiguous()

    def arrived(self, values: Tensor, slopes: Tensor | None, told: Told) -> SampleRun:
        """The run, without a host read."""
        stats, clock, stages = self.stats, clock_of(told.row), self.settings.tableau.n_stages - 1
        n_accepted, n_rejected = clock.n_accepted.to(torch.int64), clock.n_rejected.to(torch.int64)
        clock = clock._replace(
            status=clock.status.to(torch.int8), n_accepted=n_accepted, n_rejected=n_rejected
        )
        estimated = self.settings.dt0 is None and not self.settings.fixed
        began = self.times[:, 0] != self.times[:, -1]
        stats.n_accepted, stats.n_rejected = clock.n_accepted, clock.n_rejected
        stats.dt_first, stats.dt_last = told.dt_first, clock.dt
        stats.nfe = stats.nfe + 1 + stages * (clock.n_accepted + clock.n_rejected) + estimated * began
        stats.n_calls += told.n_calls
        return SampleRun(values, slopes, self.times.t(), [], clock, [], values.new_empty(0))

    def flow(self, *, start: bool = False) -> Flow:
        """f is 0 where it is not finite, with no NaN in the graph. start: just after a jump there."""
        clocks = self.clocks

        def f(time: Tensor, z: Tensor) -> Tensor:
            time = self._after(time) if start else time
            with torch.no_grad():
                fine = clocks.all(torch.isfinite(z.detach()))
                fine = fine & clocks.all(torch.isfinite(self.evaluate(time.detach(), z.detach())))
            if not bool(fine.any()):  # host read
                return torch.zeros_like(z)
            healthy = fine.to(torch.int8).argmax().reshape(1)
            state = clocks.choose(fine, z, z.index_select(clocks.batch, healthy))
            time = torch.where(fine.view(time.shape), time, time.index_select(0, healthy))
            return torch.where(clocks.spread(fine), self.evaluate(time, state), 0.0)

        return Flow(f, clocks)

    def _after(self, time: Tensor) -> Tensor:
        """Times at which f jumps, just after the jump."""
        direction = torch.where(self.times[:, -1] < self.times[:, 0], -1.0, 1.0)
        return beside(time, self.settings.at_jump(time.detach().reshape(-1).double()), direction)

    def seen(self, run: SampleRun, values: Tensor) -> Seen:
        """The outputs by the times of each sample; NaN for an event that a sample did not meet."""
        return Seen(torch.cat((run.times, *(fired.t[None] for fired in run.fired))), values)

    def asked(self, output: SampleDense, times: Tensor, values: Tensor) -> Seen:
        """By what lies inside each attempt."""
        inside = [output.outputs(step, times) for step in output.steps]
        return Seen(torch.cat((self.times[None, :, 0], times)), values, outputs=inside)

    def own_times(self, run: SampleRun) -> list[tuple[int, Tensor]]:
        """Of every output; a row without a time that was given stands at the start, and does not move."""
        stays = self.times[:, 0].to(self.t)
        rows = enumerate(self._picks(run))
        return [(i, torch.where(row.sum(1) > 0, (self.t * row).sum(1), stays)) for i, row in rows if i]

    def to_times(self, rows: Tensor, run: SampleRun) -> Tensor:
        """Each row's own."""
        return (rows[:, :, None] * self._picks(run)).sum(0)

    def _picks(self, run: SampleRun) -> Tensor:
        """[n, B, T] of zeros and ones: which given time each row of a sample's outputs belongs to."""
        n, (batch, width) = len(run.times), self.t.shape
        if not self.wish.every_step:
            one_each = torch.eye(width, dtype=self.z0.dtype, device=self.z0.device)
            return one_each[:, None].expand(n, batch, -1)
        picks = torch.zeros((n, batch, width), dtype=self.z0.dtype, device=self.z0.device)
        arrived = (run.status == int(Status.SUCCESS)).to(picks)
        stays = self.times[:, 0] == self.times[:, -1]  # its end is written although it takes no step
        last = (run.clock.n_accepted + stays).clamp(max=n - 1)
        picks[last, torch.arange(batch, dtype=torch.int64, device=picks.device), width - 1] = arrived
        picks[0] = 0.0
        picks[0, :, 0] = 1.0
        return picks

    def dense(self, run: SampleRun, start: Tensor) -> SampleDense:
        """The attempts."""
        ends = (self.times[:, 0], self.times[:, -1])
        return SampleDense(run.steps, start, run.slope0, ends, self.clocks)
