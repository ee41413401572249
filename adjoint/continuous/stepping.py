"""How the forward integrator solves a reverse problem: with one step size, or with one a sample."""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from ...solvers.device.queue import Queue
from ...solvers.errors import solver_error
from ...solvers.march.dense import DenseOutput
from ...solvers.march.output import Step
from ...solvers.march.samples import SampleNorm, SampleSettings, SampleStep, Together
from ...solvers.march.stacked_dense import StackedDense
from ...solvers.methods import get_method
from ...solvers.solve import Observers, Settings, Wish, forward_solve, sample_solve
from ...solvers.stats import Stats
from ...solvers.status import Status
from ...solvers.step.clocks import Clocks, Each, One, each
from ...solvers.step.field import CountedField
from ...solvers.step.norms import Norm, Tolerance
from ...solvers.trace import Trace
from ..dynamics.protocol import Dynamics
from ..gradient import Backsolve, Interpolating
from ..recording import Rows, Seen
from .carrier import Carrier, Past
from .observations import Kept, Observations, in_each_order, in_order
from .quadrature import Quadrature, ThetaNorm

S = TypeVar("S", Settings, SampleSettings)
C = TypeVar("C", bound=Clocks)


def reverse_settings(settings: S, gradient: Backsolve | Interpolating) -> S:
    """The reverse solve's settings: the forward ones but for what the gradient choice names."""
    tolerance = Tolerance(
        settings.tolerance.rtol if gradient.rtol is None else gradient.rtol,
        settings.tolerance.atol if gradient.atol is None else gradient.atol,
    )
    tableau = settings.tableau
    if gradient.method is not None:
        tableau = get_method(gradient.method, f"{type(gradient).__name__}: method")
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

    forward, backward: settings, their norm that of a state.  clocks: of the state.
    stats: of the whole solve.
    """

    forward: S
    backward: S
    clocks: C
    stats: Stats[Any, Any]

    def limited(self, most: int) -> Stepping[S, C]:
        """With at most that many attempts between two observations of the reverse solve."""
        most = min(self.backward.max_steps, most)
        return dataclasses.replace(self, backward=dataclasses.replace(self.backward, max_steps=most))

    def distance(self, back: Tensor, stored: Tensor) -> Tensor:
        """How far a rebuilt state is from the stored one, in the looser of both tolerances; a number a clock.

        The stored state is only as near to the solution as the forward tolerance: a reverse solve that is
        finer comes back to the solution, and not to it.
        """
        ours, theirs = self.backward.tolerance, self.forward.tolerance
        tolerance = Tolerance(looser(ours.rtol, theirs.rtol), looser(ours.atol, theirs.atol))
        return self.backward.norm((back - stored) / tolerance.scale(stored))

    def count(self, own: Stats[Any, Any]) -> None:
        """Adds the attempts of one interval."""
        stats = self.stats
        stats.n_accepted_backward = stats.n_accepted_backward + own.n_accepted
        stats.n_rejected_backward = stats.n_rejected_backward + own.n_rejected

    def forward_to(self, dynamics: Dynamics, z: Tensor, start: Any, t: float) -> Tensor | None:
        """The state solved forwards from (start, z) to t, to compare a failure's with; None: it has none."""
        return None

    @property
    @abc.abstractmethod
    def fixed(self) -> bool:
        """Whether the reverse solve's steps are fixed: then no tolerance measures a distance."""

    @abc.abstractmethod
    def first_dt(self, steps: Sequence[Any]) -> Any:
        """|dt| of a reverse solve to begin with, from the forward solve's kept steps; None for Hairer's."""

    @abc.abstractmethod
    def kept(self, step: Any) -> Kept:
        """A time of a forward step and the state there."""

    @abc.abstractmethod
    def observations(self, seen: Seen, g: Rows, kept: Iterable[Kept] = ()) -> Observations:
        """What was seen, and further states of which no loss depends, in order of time."""

    @abc.abstractmethod
    def past(self, steps: Sequence[Any], seen: Observations) -> Past:
        """The forward solution from its kept steps."""

    @abc.abstractmethod
    def solve(
        self, carrier: Carrier, pair: Tensor, i: int, dt: Any, quadrature: Quadrature
    ) -> tuple[Tensor, Any]:
        """The pair at observation i − 1 from that at observation i, and the next |dt|; dt as of `first_dt`.

        Raises SolverError where the solve cannot go on.
        """


class AtFloats:
    """A dense output asked at times that the stepper announces: none is read from the device."""

    def __init__(self, output: DenseOutput):
        self.output = output
        self.times: list[float] = []

    def prepare(self, times: Sequence[float]) -> None:
        """The times of the next questions, in order."""
        self.times = list(times)

    def value(self, t: Tensor) -> Tensor:
        """z at the next of them."""
        return self.output.value(self.times.pop(0))


class AtTensors:
    """A dense output asked for each sample at its own time."""

    def __init__(self, output: StackedDense):
        self.output = output

    def prepare(self, times: Sequence[float]) -> None:
        """Nothing: times are on the device."""

    def value(self, t: Tensor) -> Tensor:
        """z at t, [B, 1, …]."""
        return self.output.value(t.reshape(-1).double())


@dataclasses.dataclass(frozen=True)
class Shared(Stepping[Settings, One]):
    """One step size.

    queue, observers, trace: of the reverse solve.
    theta_norm: judges its steps by (z, a, θ's adjoints); θ's errors are computed for it, and only then.
    """

    queue: Queue | None = None
    observers: Observers = Observers()  # noqa: RUF009  (frozen)
    trace: Trace | None = None
    theta_norm: ThetaNorm | None = None

    @property
    def fixed(self) -> bool:
        """Whether a grid is given."""
        return self.backward.fixed

    def first_dt(self, steps: Sequence[Step]) -> float | None:
        """The last forward step's."""
        return abs(steps[-1].dt) if steps else None

    def kept(self, step: Step) -> Kept:
        """The step's start."""
        return step.t0, step.y0

    def observations(self, seen: Seen, g: Rows, kept: Iterable[Kept] = ()) -> Observations:
        """As lists."""
        return in_order(seen, g, kept)

    def past(self, steps: Sequence[Step], seen: Observations) -> Past:
        """Asked at floats."""
        return AtFloats(DenseOutput(steps, seen.times[0], seen.times[-1]))

    def forward_to(self, dynamics: Dynamics, z: Tensor, start: Any, t: float) -> Tensor:
        """With the forward settings; it is not counted."""
        field = CountedField(dynamics.forward, Stats())
        return forward_solve(field, z, [start, t], self.forward, Stats()).values[-1]

    def solve(
        self, carrier: Carrier, pair: Tensor, i: int, dt: float | None, quadrature: Quadrature
    ) -> tuple[Tensor, float]:
        """By `forward_solve`."""
        own, times, judge = Stats(), carrier.seen.times, None
        if self.theta_norm is not None:
            judge = functools.partial(quadrature.error_ratio, self.theta_norm, self.backward.tolerance)
        settings = dataclasses.replace(self.backward, norm=seminorm(self.backward.norm), dt0=dt)
        hooks = (quadrature.step, *self.observers.hooks)
        observers = dataclasses.replace(self.observers, hooks=hooks, ratio=judge)
        wish = Wish(trace=self.trace, queue=self.queue)
        run = forward_solve(carrier, pair, [times[i], times[i - 1]], settings, own, wish, observers)
        self.stats.nfe_backward += own.nfe  # made inside compiled programs; the carrier counts the others
        self.count(own)
        return run.values[-1], own.dt_last


@dataclasses.dataclass(frozen=True)
class PerSample(Stepping[SampleSettings, Each]):
    """A step size for each sample.

    Each attempt evaluates its first stage anew: the stage that it repeats was saved in another attempt for
    each sample.  batch: the number of samples.
    """

    batch: int

    @property
    def fixed(self) -> bool:
        """Whether a step is given."""
        return self.backward.dt is not None

    def first_dt(self, steps: Sequence[SampleStep]) -> None:
        """Hairer's."""

    def kept(self, step: SampleStep) -> Kept:
        """The end of an attempt where it was accepted, else NaN."""
        shape = list(step.y0.shape)
        shape[self.clocks.batch] = self.batch
        time = torch.where(step.accepted, step.t1, math.nan)
        whole = torch.full((self.batch,), math.nan, dtype=time.dtype, device=time.device)
        state = self.clocks.put(step.y0.new_full(shape, math.nan), step.index, step.result.y1)
        return whole.index_copy(0, step.index, time), state

    def observations(self, seen: Seen, g: Rows, kept: Iterable[Kept] = ()) -> Observations:
        """As tensors."""
        times, values, cotangents = seen.times, seen.values, g
        assert isinstance(times, Tensor)
        assert isinstance(values, Tensor)
        assert isinstance(cotangents, Tensor)
        for time, z in kept:
            times, values = torch.cat((times, time[None])), torch.cat((values, z[None]))
            cotangents = torch.cat((cotangents, torch.zeros_like(z)[None]))
        found = in_each_order(times, values, cotangents, self.clocks)
        together = self.backward.together
        if together is None:
            return found
        own = torch.zeros_like(found.times[:, : together.n]).index_copy(1, together.ids, found.times)
        aligned = bool((own[:, together.ids] == found.times).all())  # host read
        return dataclasses.replace(found, aligned=aligned)

    def _together(self) -> Together | None:
        """Samples of a group share the steps of the reverse solve too, where they stop at the same times."""
        together = self.backward.together
        if together is None:
            return None

        def norm(pairs: Each) -> SampleNorm:
            own = together.norm(dataclasses.replace(self.clocks, groups=pairs.groups))
            return lambda pair: torch.maximum(own(pair[0]), own(pair[1]))

        return dataclasses.replace(together, norm=norm)

    def past(self, steps: Sequence[SampleStep], seen: Observations) -> Past:
        """Asked at tensors."""
        z0 = seen.values[0]
        numeric = self.forward.tableau.numeric(z0.dtype, z0.device)
        return AtTensors(StackedDense(list(steps), seen.times[0], z0, self.clocks, numeric))

    def solve(
        self, carrier: Carrier, pair: Tensor, i: int, dt: Tensor | None, quadrature: Quadrature
    ) -> tuple[Tensor, Tensor]:
        """By `sample_solve`; a sample that fails on the way back has no gradient: an error, not a NaN."""
        own: Stats[Any, Any] = Stats()
        times = carrier.seen.times
        way = torch.stack((times[i], times[i - 1]), 1)
        settings = dataclasses.replace(
            self.backward,
            clocks=each(self.clocks.batch + 1, self.clocks.ndim + 1),
            norm=seminorm(self.backward.norm),
            dt0=dt,
            compact=False,
            fresh_first=True,
            together=self._together() if carrier.seen.aligned else None,
        )
        run = sample_solve(carrier, pair, way, settings, own, recorder=quadrature)
        self._check(run.status, run.clock.t, own)
        self.count(own)
        if dt is None:  # what a sample begins with that has not moved yet
            dt = 0.01 * (times[-1] - times[0]).abs()
        return run.values[-1], torch.where(way[:, 0] != way[:, 1], run.clock.dt, dt)

    def _check(self, status: Tensor, t: Tensor, own: Stats[Any, Any]) -> None:
        failed = status != int(Status.SUCCESS)
        n, b = torch.stack((failed.sum(), failed.to(torch.int8).argmax())).tolist()  # host read
        if n:
            steps = Stats(n_accepted=int(own.n_accepted[b]), n_rejected=int(own.n_rejected[b]))
            detail = f"It is that of sample {b} ({n} of {len(status)} failed)."
            kind = Status(int(status[b]))
            raise solver_error(float(t[b]), float(own.dt_last[b]), kind, steps, detail)
