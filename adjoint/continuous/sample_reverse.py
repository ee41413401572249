"""The continuous adjoints with a step size for each sample, in the forward and the reverse solve.

dL/dθ is one quadrature for the whole batch, Σ_b −dt_b Σ_i b_i (∂F/∂θ)ᵀa: one copy of θ's gradient,
where carrying θ in the state would need one a sample. A step's first stage is evaluated anew here: the
stage that it repeats was saved in another attempt for each sample.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any

import torch
from torch import Tensor

from ...solvers.errors import ReconstructionError, solver_error
from ...solvers.march.clocked import Watching
from ...solvers.march.host import Stats
from ...solvers.march.samples import SampleRecorder, SampleSettings, SampleStep
from ...solvers.march.stacked_dense import StackedDense
from ...solvers.sample_solve import sample_solve
from ...solvers.status import Status
from ...solvers.step.clocks import Each
from ..dynamics.protocol import Dynamics, ThetaSum
from .guard import WAY_OUT


class SampleCarrier(abc.ABC):
    """What is solved backwards, [2, *z]: a, and beside it the state or what stands for it.

    settings: their norm is that of one half.  clocks: of the state z; of the pair afterwards.
    """

    def __init__(self, dynamics: Dynamics, settings: SampleSettings, clocks: Each, stats: Stats):
        self.dynamics, self.settings, self.stats = dynamics, settings, stats
        self.clocks = Each(clocks.batch + 1, clocks.ndim + 1)

    @abc.abstractmethod
    def state(self, t: Tensor, pair: Tensor) -> Tensor:
        """z at the samples' times, [B, 1, …]."""

    def field(self, t: Tensor, pair: Tensor) -> tuple[Tensor, tuple[Any, Any]]:
        """(F, −(∂F/∂z)ᵀa) at z, and what the quadrature needs."""
        self.stats.nfe_backward += 1
        dz, saved = self.dynamics.forward(t, self.state(t, pair))
        z_bar, deltas = self.dynamics.vjp(saved, pair[1])
        return torch.stack((dz, z_bar.neg())), (saved, deltas)

    def norm(self, pair: Tensor) -> Tensor:
        """The larger of the norms of both halves, [B]."""
        return torch.maximum(self.settings.norm(pair[0]), self.settings.norm(pair[1]))

    def start(self, z: Tensor, a: Tensor) -> Tensor:
        """At an observation, with the stored state put back."""
        return torch.stack((z, a))

    def adjoint(self, pair: Tensor) -> Tensor:
        """a."""
        return pair[1]

    @abc.abstractmethod
    def landed(self, pair: Tensor, z: Tensor, running: Tensor) -> None:
        """The samples in `running` have reached an observation, where the stored state is z."""


class SampleStateAndAdjoint(SampleCarrier):
    """[z, a]: backsolve."""

    def __init__(self, dynamics: Dynamics, settings: SampleSettings, clocks: Each, stats: Stats):
        super().__init__(dynamics, settings, clocks, stats)
        self.distances: list[Tensor] = []

    def state(self, t: Tensor, pair: Tensor) -> Tensor:
        """The rebuilt one."""
        return pair[0]

    def landed(self, pair: Tensor, z: Tensor, running: Tensor) -> None:
        """Notes how far each sample's rebuilt state is from the stored one."""
        off = self.settings.norm((pair[0] - z) / self.settings.tolerance.scale(z))
        self.distances.append(torch.where(running, off, 0.0))

    def judge(self, limit: float) -> ReconstructionError | None:
        """Compares the reconstruction error with its limit; one host read a backward pass."""
        if not self.distances:
            return None
        worst, sample = torch.stack(self.distances).amax(0).max(0)
        found, b = torch.stack((worst.double(), sample.double())).tolist()  # host read
        self.stats.reconstruction_error = found
        if found <= limit:
            return None
        return ReconstructionError(
            f"backsolve: solved backwards, the state of sample {int(b)} is {found:.3g} tolerances (RMS) from "
            f"the stored one; the limit is {limit:g}. Its gradient cannot be trusted. {WAY_OUT} Or solve "
            "with a tighter tolerance, or raise reconstruction_limit."
        )


class SampleAdjointAtState(SampleCarrier):
    """[q, a], with z(t) from the dense output of the forward solve; what q is for: `interpolating`."""

    def __init__(
        self, dynamics: Dynamics, dense: StackedDense, settings: SampleSettings, clocks: Each, stats: Stats
    ):
        super().__init__(dynamics, settings, clocks, stats)
        self.dense = dense

    def state(self, t: Tensor, pair: Tensor) -> Tensor:
        """That of the forward solve."""
        return self.dense.value(t.reshape(-1).double())

    def landed(self, pair: Tensor, z: Tensor, running: Tensor) -> None:
        """Nothing to compare."""


class SampleQuadrature(SampleRecorder):
    """Sums dL/dθ over accepted steps; each attempt brings its own first stage."""

    def __init__(self, theta: ThetaSum, b_index: tuple[int, ...], b: Tensor):
        self.theta, self.b_index, self.b = theta, b_index, b

    def step(self, step: SampleStep) -> None:
        """Σ −dt b_i (∂F/∂θ)ᵀa_i with each sample's own dt, 0 where it did not accept."""
        dt = torch.where(step.accepted, step.t1 - step.t0, 0.0).to(self.b.dtype)
        parts = [step.result.saved[i] for i in self.b_index]
        weights = -self.b[:, None] * dt
        self.theta.add([saved for saved, _ in parts], [deltas for _, deltas in parts], weights)


@dataclasses.dataclass(frozen=True)
class Observations:
    """Outputs and events of every sample in its own order of time.

    times: [B, n], non-decreasing along the way; values, g: [n, *state].  Where a sample has fewer, its
    last repeats with g = 0.
    """

    times: Tensor
    values: Tensor
    g: Tensor


def observations(times: Tensor, values: Tensor, g: Tensor, clocks: Each) -> Observations:
    """Sorts each sample's outputs and events by its own time.

    times: [n, B], NaN where not reached; the first row is the start.
    """
    missing = times.isnan() | clocks.rows_per_sample(values.isnan()).any(2)
    missing = missing & (times != times[0])  # an output at the start is the start, whatever that holds
    key = torch.where(missing, torch.inf, (times - times[0]).abs())
    order = key.argsort(dim=0, stable=True)
    reached = (~missing).sum(0)
    rank = torch.arange(len(times), dtype=torch.int64, device=times.device)[:, None].expand_as(order)
    pick = order.gather(0, torch.minimum(rank, reached - 1))
    by_sample, cotangents = values.movedim(clocks.batch + 1, 1), g.movedim(clocks.batch + 1, 1)
    samples = torch.arange(times.shape[1], dtype=torch.int64, device=times.device)
    own = cotangents[pick, samples]
    # A sample that never began holds NaN: it stands still where a healthy one starts.
    begins = clocks.all(torch.isfinite(values[0]))
    twin = torch.where(begins, samples, begins.to(torch.int8).argmax())
    pick = torch.where(begins, pick, 0)
    z = by_sample[pick, twin].movedim(1, clocks.batch + 1)
    own = torch.where((rank < reached).view(*rank.shape, *[1] * (own.dim() - 2)), own, 0.0)
    return Observations(times[pick, twin].t(), z, own.movedim(1, clocks.batch + 1))


class SampleReverseSolve:
    """One reverse solve of all samples, observation by observation.

    first_dt: [B], |dt| to begin with, or None for Hairer's.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        carrier: SampleCarrier,
        settings: SampleSettings,
        seen: Observations,
        clocks: Each,
        stats: Stats,
        *,
        want_theta: bool = True,
        first_dt: Tensor | None = None,
    ):
        self.carrier, self.seen, self.clocks, self.stats = carrier, seen, clocks, stats
        self.settings = dataclasses.replace(
            settings, norm=carrier.norm, dt0=first_dt, compact=False, fresh_first=True, together=None
        )
        self.theta = ThetaSum(dynamics, wanted=want_theta)
        numeric = settings.tableau.numeric(seen.g.dtype, seen.g.device)
        self.quadrature = SampleQuadrature(self.theta, numeric.b_index, numeric.b_nonzero)

    def run(self) -> Tensor:
        """dL/dz at the start, without the cotangent of the output there; fills `theta`."""
        seen = self.seen
        a = seen.g[-1]
        for i in range(seen.times.shape[1] - 1, 0, -1):
            a = self._interval(i, a)
            if i > 1:
                a = a + seen.g[i - 1]
        return a

    def _interval(self, i: int, a: Tensor) -> Tensor:
        """From observation i to the one before, each sample over its own times."""
        times = self.seen.times[:, i - 1 : i + 1].flip(1)
        own: Stats[Tensor, Tensor] = Stats()
        start = self.carrier.start(self.seen.values[i], a)
        run = sample_solve(
            self.carrier.field,
            start,
            times,
            self.carrier.clocks,
            self.settings,
            own,
            watching=Watching(self.quadrature),
        )
        self._check(run.rows.status, run.rows.t, own)
        self.stats.n_accepted_backward = self.stats.n_accepted_backward + own.n_accepted
        self.stats.n_rejected_backward = self.stats.n_rejected_backward + own.n_rejected
        moved = times[:, 0] != times[:, 1]
        # A sample that has not moved yet begins with a hundredth of its whole way.
        dt = self.settings.dt0
        if dt is None:
            dt = 0.01 * (self.seen.times[:, -1] - self.seen.times[:, 0]).abs()
        self.settings = dataclasses.replace(self.settings, dt0=torch.where(moved, run.rows.dt, dt))
        state = run.values[-1]
        self.carrier.landed(state, self.seen.values[i - 1], moved)
        return torch.where(self.clocks.spread(moved), self.carrier.adjoint(state), a)

    def _check(self, status: Tensor, t: Tensor, own: Stats[Tensor, Tensor]) -> None:
        """A sample that fails on the way back has no gradient: an error, not a NaN (one host read)."""
        failed = status != int(Status.SUCCESS)
        any_failed, b = torch.stack((failed.sum(), failed.to(torch.int8).argmax())).tolist()  # host read
        if any_failed:
            kind = Status(int(status[b]))
            steps = Stats(n_accepted=int(own.n_accepted[b]), n_rejected=int(own.n_rejected[b]))
            detail = (
                f"This is the reverse solve of sample {b} ({any_failed} of {len(status)} failed). {WAY_OUT}"
            )
            raise solver_error(float(t[b]), float(own.dt_last[b]), kind, steps, detail)
