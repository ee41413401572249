"""How the forward integrator solves a reverse problem: with one step size, or with one a sample.

A reverse solve stops at its observations: outputs, events and kept states in order of time.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from ...solvers.device.queue import Queue
from ...solvers.errors import NotRepeatableError, ReconstructionError, SolverError, solver_error
from ...solvers.march.dense import DenseOutput, StackedDense
from ...solvers.march.output import Step
from ...solvers.march.samples import SampleNorm, SampleSettings, SampleStep, Together
from ...solvers.methods import get_method
from ...solvers.solve import Observers, Settings, Wish, forward_solve, sample_solve
from ...solvers.stats import Stats
from ...solvers.status import Status
from ...solvers.step.clocks import Clocks, Each, Norm, One, Tolerance, each
from ...solvers.step.field import CountedField
from ...solvers.trace import Trace
from ..dynamics.protocol import Dynamics
from ..gradients import Backsolve, Interpolating
from ..recording import Recorder, Rows, Seen
from .jacobian import reverse_jacobian

S = TypeVar("S", Settings, SampleSettings)
C = TypeVar("C", bound=Clocks)


# (scaled errors of z, of a, of θ's adjoints) → 0-d
class ReverseField(Protocol):
    """(t, pair) → its derivative and what the quadrature needs; state: z there."""

    def __call__(self, t: Tensor, pair: Tensor) -> tuple[Tensor, Any]:
        """Its value, and what f saved with its deltas."""

    def state(self, t: Tensor, pair: Tensor) -> Tensor:
        """The state z at a time, beside or in the pair."""


ThetaNorm = Callable[[Tensor, Tensor, list[Tensor]], Tensor]
# time, adjoint there, the state solved backwards (None where it is not)
Watch = Callable[[float, Tensor, "Tensor | None"], None]


def _raise(error: ReconstructionError | NotRepeatableError) -> None:
    raise error


@dataclasses.dataclass(frozen=True)
class ReverseWish:
    """The wishes for the way back; the first five need a solve with one step size.

    settings: of a reverse solve, where they were given.
    observers, trace: torchdiffeq's callbacks, and studies.
    theta_norm: judges reverse steps by (z, a, θ's adjoints); θ's errors are computed for it, and only then.
    watch: sees the adjoint at the end of every accepted reverse step.
    complain: what happens to a reconstruction error past its limit, and to a func that is not repeatable
        (torchdiffeq's face warns of them).
    guard: around the whole (its manners).
    """

    settings: Settings | None = None
    observers: Observers = Observers()  # noqa: RUF009  (frozen)
    trace: Trace | None = None
    theta_norm: ThetaNorm | None = None
    watch: Watch | None = None
    complain: Callable[[ReconstructionError | NotRepeatableError], None] = _raise
    guard: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext


@dataclasses.dataclass(frozen=True)
class Observations:
    """The rows of a reverse solve, the start first.

    times: floats in order of time; per sample [n, B], each column in its own order.
    values, g: the states and their cotangents, a row for each time.
    """

    times: Any
    values: Rows
    g: Rows


Kept = tuple[Any, Tensor]  # a time (per sample [B]) and the state there


@dataclasses.dataclass(frozen=True)
class Interval:
    """What the solve of one interval is asked, from observation i back to i − 1.

    times: of all observations.
    dt: |dt| to begin with, or None for Hairer's.
    recorder: sees the steps.
    judge: a step's error ratio, instead of the seminorm's (shared steps).
    """

    times: Any
    i: int
    dt: Any
    recorder: Recorder
    judge: Callable[[Step], Tensor] | None

    @property
    def ends(self) -> tuple[Any, Any]:
        """Where it begins and where it ends."""
        return self.times[self.i], self.times[self.i - 1]


def reverse_settings(settings: S, gradient: Backsolve | Interpolating) -> S:
    """The reverse solve's settings: the forward ones but for what the gradient choice names."""
    rtol = settings.tolerance.rtol if gradient.rtol is None else gradient.rtol
    atol = settings.tolerance.atol if gradient.atol is None else gradient.atol
    tableau = settings.tableau if gradient.method is None else get_method(gradient.method, implicit=True)
    tolerance = Tolerance(rtol, atol, settings.tolerance.paired)
    return dataclasses.replace(settings, tolerance=tolerance, tableau=tableau, dt0=None)


@functools.lru_cache(maxsize=16)  # one function for one norm: programs are known by it
def seminorm(norm: Norm) -> Norm:
    """The larger of the norms of both halves of a pair; θ is in none of them.

    Source: P. Kidger, R. T. Q. Chen, T. Lyons, "Hey, that's not an ODE", ICML 2021.
    """
    return lambda pair: torch.maximum(norm(pair[0]), norm(pair[1]))


def looser(a: float | Tensor, b: float | Tensor) -> float | Tensor:
    """The larger of two tolerances, entry by entry."""
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        return max(a, b)
    both = (
        x if isinstance(x, Tensor) else torch.tensor(x, dtype=torch.float64, device="cpu") for x in (a, b)
    )
    return torch.maximum(*both)


@dataclasses.dataclass(frozen=True)
class Stepping(abc.ABC, Generic[S, C]):
    """What decides the steps of both solves.

    forward, backward: settings, their norm that of a state.
    clocks: of the state.
    stats: of the whole solve.
    """

    forward: S
    backward: S
    clocks: C
    stats: Stats[Any, Any]
    reverse: ReverseWish = ReverseWish()

    def limited(self, most: int) -> Stepping[S, C]:
        """This stepping with at most so many attempts between two observations of the reverse solve."""
        most = min(self.backward.max_steps, most)
        return dataclasses.replace(self, backward=dataclasses.replace(self.backward, max_steps=most))

    def distance(self, back: Tensor, stored: Tensor) -> Tensor:
        """How far a rebuilt state is from the stored one, in the looser of both tolerances; a number a clock.

        The stored state is only as near to the solution as the forward tolerance: a reverse solve that is
        finer comes back to the solution, and not to it.
        """
        ours, theirs = self.backward.tolerance, self.forward.tolerance
        rtol, atol = looser(ours.rtol, theirs.rtol), looser(ours.atol, theirs.atol)
        tolerance = Tolerance(rtol, atol, theirs.paired)
        return self.backward.norm((back - stored) / tolerance.scale(stored))

    def forward_to(self, dynamics: Dynamics, z: Tensor, start: Any, t: float) -> Tensor | None:
        """The state solved forwards from (start, z) to t, to compare a failure's with, or None."""
        return None

    @abc.abstractmethod
    def kept(self, step: Any) -> Kept:
        """A time of a forward step and the state there."""

    @abc.abstractmethod
    def observations(self, seen: Seen, g: Rows, kept: Iterable[Kept] = ()) -> Observations:
        """What was seen, and kept states on which no loss depends, in order of time."""

    @abc.abstractmethod
    def past(self, steps: Sequence[Any], seen: Observations) -> tuple[Callable[[Any], Tensor], Any]:
        """The forward solution as a function of time, and |dt| of a reverse solve to begin with (None:
        Hairer's), from the forward steps. Time: a float; per sample as f wants it."""

    @abc.abstractmethod
    def solve(self, field: ReverseField, pair: Tensor, asked: Interval) -> tuple[Tensor, Any]:
        """The pair at the end of the interval from that at its start, and the next |dt|.

        Raises SolverError where the solve cannot go on.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shared(Stepping[Settings, One]):
    """One step size. queue: of the reverse solve."""

    queue: Queue | None = None

    def forward_to(self, dynamics: Dynamics, z: Tensor, start: Any, t: float) -> Tensor | None:
        """The state at t by the forward settings; its evaluations are not counted."""
        field = CountedField(dynamics.forward, Stats())
        try:
            return forward_solve(field, z, [start, t], self.forward, Stats()).values[-1]
        except SolverError:
            return None  # the comparison is a courtesy; the failure itself is what counts

    def kept(self, step: Step) -> Kept:
        """The step's start."""
        return step.t0, step.y0

    def observations(self, seen: Seen, g: Rows, kept: Iterable[Kept] = ()) -> Observations:
        """The observations that were reached: none lies after a terminal event. A kept state counts where it
        lies strictly inside and at no other row's time."""
        start = seen.times[0]
        all_rows = zip(seen.times, seen.values, g, seen.places, strict=True)
        rows: list[tuple[Any, Tensor, Tensor]] = [(t, z, own) for t, z, own, at in all_rows if at.step != -2]
        known, length = {t for t, *_ in rows}, max(abs(t - start) for t, *_ in rows)
        inside = [(t, z) for t, z in kept if t not in known and abs(t - start) < length]
        rows += [(t, z, torch.zeros_like(z)) for t, z in inside]
        rows.sort(key=lambda row: abs(row[0] - start))
        return Observations(*zip(*rows, strict=True))

    def past(self, steps: Sequence[Step], seen: Observations) -> tuple[Callable[[float], Tensor], float]:
        """The first |dt| is the last forward step's."""
        start, end = seen.times[0], seen.times[-1]
        output, (low, high) = DenseOutput(steps, start, end), sorted((start, end))

        def value(t: float | Tensor) -> Tensor:
            if isinstance(t, float):
                return output.value(t)
            # Of an implicit step, whose nodes may be rounded or lie past its end.
            return output.value(min(max(float(t), low), high))  # host read

        return value, abs(steps[-1].dt)

    def solve(self, field: ReverseField, pair: Tensor, asked: Interval) -> tuple[Tensor, Any]:
        """By `forward_solve`."""
        own, (begin, end), observers = Stats(), asked.ends, self.reverse.observers
        jacobian = reverse_jacobian(self.backward.jacobian, field.state)
        norm = seminorm(self.backward.norm)
        settings = dataclasses.replace(self.backward, norm=norm, dt0=asked.dt, jacobian=jacobian)
        hooks = (asked.recorder.step, *observers.hooks)
        observers = dataclasses.replace(observers, hooks=hooks, ratio=asked.judge)
        wish = Wish(trace=self.reverse.trace, queue=self.queue)
        run = forward_solve(field, pair, [begin, end], settings, own, wish, observers)
        self.stats.nfe_backward += own.nfe  # made inside compiled programs; the field counts the others
        self.stats.n_accepted_backward += own.n_accepted
        self.stats.n_rejected_backward += own.n_rejected
        return run.values[-1], own.dt_last


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerSample(Stepping[SampleSettings, Each]):
    """A step size for each sample.

    Each attempt evaluates its first stage anew: the stage that it repeats was saved in another attempt for
    each sample.
    batch: the number of samples.
    """

    batch: int

    def kept(self, step: SampleStep) -> Kept:
        """The end of an attempt where it was accepted, else NaN."""
        shape = list(step.y0.shape)
        shape[self.clocks.batch] = self.batch
        time = step.t1.new_full((self.batch,), math.nan)
        state = self.clocks.put(step.y0.new_full(shape, math.nan), step.index, step.result.y1)
        return time.index_copy(0, step.index, torch.where(step.accepted, step.t1, math.nan)), state

    def observations(self, seen: Seen, g: Rows, kept: Iterable[Kept] = ()) -> Observations:
        """Each sample's observations in its own order. A shorter column repeats its last row, with g = 0."""
        times, values = seen.times, seen.values
        assert isinstance(times, Tensor)
        assert isinstance(values, Tensor)
        assert isinstance(g, Tensor)
        for time, z in kept:
            times, values = torch.cat((times, time[None])), torch.cat((values, z[None]))
            g = torch.cat((g, torch.zeros_like(z)[None]))
        missing = times.isnan() | self.clocks.rows_per_sample(values.isnan()).any(2)
        missing = missing & (times != times[0])  # an output at the start is the start, whatever that holds
        key = torch.where(missing, torch.inf, (times - times[0]).abs())
        order = key.argsort(dim=0, stable=True)
        reached = (~missing).sum(0)
        rank = torch.arange(len(times), dtype=torch.int64, device=times.device)[:, None].expand_as(order)
        pick = order.gather(0, torch.minimum(rank, reached - 1))
        by_sample, cotangents = values.movedim(self.clocks.batch + 1, 1), g.movedim(self.clocks.batch + 1, 1)
        samples = torch.arange(times.shape[1], dtype=torch.int64, device=times.device)
        own = cotangents[pick, samples]
        # A sample that never began holds NaN: it stands still where a healthy one starts.
        begins = self.clocks.all(torch.isfinite(values[0]))
        twin = torch.where(begins, samples, begins.to(torch.int8).argmax())
        pick = torch.where(begins, pick, 0)
        z = by_sample[pick, twin].movedim(1, self.clocks.batch + 1)
        own = torch.where((rank < reached).view(*rank.shape, *[1] * (own.dim() - 2)), own, 0.0)
        return Observations(times[pick, twin], z, own.movedim(1, self.clocks.batch + 1))

    def past(
        self, steps: Sequence[SampleStep], seen: Observations
    ) -> tuple[Callable[[Tensor], Tensor], Tensor | None]:
        """The first |dt| is Hairer's; of samples that step together the last forward step's, as with one step
        size."""
        z0, dt, together = seen.values[0], None, self.backward.together
        if together is not None and together.n < self.batch:
            dt = 0.01 * (seen.times[-1] - seen.times[0]).abs()
            for step in steps:
                own = torch.where(step.accepted, (step.t1 - step.t0).abs(), dt[step.index])
                dt = dt.index_copy(0, step.index, own)
            size = torch.ones_like(dt).new_zeros(together.n).index_add(0, together.ids, torch.ones_like(dt))
            dt = torch.where(size[together.ids] > 1, dt, math.nan)
        output = StackedDense(steps, seen.times[0], z0, self.clocks)
        return lambda t: output.value(t.reshape(-1).double()), dt

    def solve(self, field: ReverseField, pair: Tensor, asked: Interval) -> tuple[Tensor, Any]:
        """By `sample_solve`; a sample that fails on the way back has no gradient: an error, not a NaN."""
        own: Stats[Any, Any] = Stats()
        settings = dataclasses.replace(
            self.backward,
            clocks=each(self.clocks.batch + 1, self.clocks.ndim + 1),
            norm=seminorm(self.backward.norm),
            dt0=asked.dt,
            jacobian=reverse_jacobian(self.backward.jacobian, field.state),
            compact=False,
            fresh_first=True,
            together=self._together(asked.times),
            dt0_open=asked.dt is not None and asked.i == len(asked.times) - 1 and self._mixed(),
        )
        way = torch.stack(asked.ends, 1)
        run = sample_solve(field, pair, way, settings, own, recorder=asked.recorder)
        self._check(run.status, run.clock.t, own)
        self.stats.n_accepted_backward = self.stats.n_accepted_backward + own.n_accepted
        self.stats.n_rejected_backward = self.stats.n_rejected_backward + own.n_rejected
        # What a sample begins with that has not moved yet. A tenth of its way: 3 % fewer evaluations and 46
        # steps rejected instead of 20; a thousandth: 11 % more and 27 (128 samples, terminal events).
        dt = 0.01 * (asked.times[-1] - asked.times[0]).abs()
        if asked.dt is not None:
            dt = torch.where(asked.dt.isnan(), dt, asked.dt)
        return run.values[-1], torch.where(way[:, 0] != way[:, 1], run.clock.dt, dt)

    def _mixed(self) -> bool:
        """Whether some samples may step alone and some together."""
        return self.backward.together is not None and 1 < self.backward.together.n < self.batch

    def _together(self, times: Tensor) -> Together | None:
        """Samples of a group share the steps of the reverse solve too, where they stop at the same times."""
        together = self.backward.together
        if together is None:
            return None
        own = torch.zeros_like(times[:, : together.n]).index_copy(1, together.ids, times)
        if bool((own[:, together.ids] != times).any()):  # host read
            return None

        def norm(pairs: Each) -> SampleNorm:
            half = together.norm(dataclasses.replace(self.clocks, groups=pairs.groups))
            return lambda pair: torch.maximum(half(pair[0]), half(pair[1]))

        return dataclasses.replace(together, norm=norm)

    def _check(self, status: Tensor, t: Tensor, own: Stats[Any, Any]) -> None:
        failed = status != int(Status.SUCCESS)
        n, b = torch.stack((failed.sum(), failed.to(torch.int8).argmax())).tolist()  # host read
        if n:
            steps = Stats(n_accepted=int(own.n_accepted[b]), n_rejected=int(own.n_rejected[b]))
            detail = f"It is that of sample {b} ({n} of {len(status)} failed)."
            raise solver_error(float(t[b]), float(own.dt_last[b]), Status(int(status[b])), steps, detail)
