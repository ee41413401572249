"""Per-sample stepping from checked arguments to differentiable values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..solvers.axes import Axes
from ..solvers.checks import check_sample_times
from ..solvers.errors import ArgumentError
from ..solvers.field import Autocast
from ..solvers.loop import Stats
from ..solvers.sample_solve import SampleRun, sample_solve
from ..solvers.samples import SampleNorm, SampleSettings
from ..solvers.solution import Solution
from ..solvers.state import Layout
from .dynamics import Dynamics
from .function import Solve, Task
from .gradient import Backsolve, Direct, Discrete, Gradient
from .request import Request
from .sample_discrete import SampleDiscreteWalk
from .sample_record import SampleTape
from .wrap import check_independent_samples, wrap


@dataclasses.dataclass(frozen=True)
class SampleProblem:
    """One per-sample solve, checked and packed.

    plain, make_dynamics: as in `engine.Problem`.  t: [B, T], differentiable; times: the same, float64
    and detached.
    """

    plain: Callable[[Tensor, Tensor], Tensor]
    make_dynamics: Callable[[], Dynamics]
    z0: Tensor
    t: Tensor
    times: Tensor
    axes: Axes
    settings: SampleSettings
    autocast: Autocast
    stats: Stats

    def field(self, inner: Callable[[Tensor, Tensor], tuple[Tensor, Any]]) -> Callable[..., Any]:
        """inner, its batched calls counted."""

        def call(t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
            self.stats.n_calls += 1
            return inner(t, z)

        return call

    def solve(self, z0: Tensor, inner: Callable[..., Any], **options: Any) -> SampleRun:
        """The forward pass."""
        return sample_solve(
            self.field(inner), z0, self.times, self.axes, self.settings, self.stats, **options
        )


def solve_samples(request: Request) -> Solution:
    """The solve; no sample raises, each has its status."""
    options, z0, t, layout = request.options, request.z0, request.t, request.layout
    check_independent_samples(request.func)
    if isinstance(options.gradient, Backsolve):
        raise ArgumentError(
            "gradient=Backsolve() needs stepping='shared'; per sample use Discrete() or Direct()."
        )
    axes = Axes(1 if isinstance(request.func, Dynamics) else 0, z0.dim())
    batch = axes.batch_size(z0)
    times = check_sample_times(t, z0, batch)
    wide = t if t.dim() == 2 else t.expand(batch, -1)
    if options.save == "end":
        times, wide = times[:, [0, -1]], wide[:, [0, -1]]
    stats = Stats()
    start = axes.clock(times[:, 0], z0)
    plain, make_dynamics, autocast = wrap(request.func, layout, z0, start, options.params, stats, cast=False)
    settings = _settings(request, axes, batch)
    problem = SampleProblem(plain, make_dynamics, z0, wide, times, axes, settings, autocast, stats)
    values, status = differentiate_samples(problem, options.gradient)
    own_t = t if t.dim() == 1 else t.t()
    if options.save == "end":
        values, own_t = values[-1:], own_t[-1:]
    return Solution(own_t, layout.unpack(values), status, stats)


def _settings(request: Request, axes: Axes, batch: int) -> SampleSettings:
    options, z0 = request.options, request.z0
    stops = sorted({*request.stops, *request.jumps})
    dt0 = options.dt0
    if dt0 is not None:
        dt0 = torch.as_tensor(dt0, dtype=torch.float64, device=z0.device).detach()
        if dt0.dim() > 1 or dt0.numel() not in (1, batch) or not bool((dt0 > 0).all()):
            raise ArgumentError(
                f"dt0={options.dt0!r} must be positive: a number, or one a sample [B={batch}]."
            )
        dt0 = dt0.expand(batch)
    return SampleSettings(
        request.tableau,
        request.tolerance,
        sample_norm(options.norm, request.layout, axes),
        options.controller,
        dt0,
        options.dt,
        options.max_steps,
        torch.tensor(stops, dtype=torch.float64).to(z0.device),
        torch.tensor([t in request.jumps for t in stops], dtype=torch.bool).to(z0.device),
        options.compact,
    )


def sample_norm(norm: str | Callable[[Any], Tensor], layout: Layout, axes: Axes) -> SampleNorm:
    """The error norm of each sample, [b]. For a pytree "rms" is the largest of its leaves' RMS."""
    if callable(norm):

        def own(z: Tensor) -> Tensor:
            value = torch.as_tensor(norm(layout.unpack(z)))
            if value.shape != (axes.batch_size(z),):
                raise ArgumentError(
                    f"norm returned shape {tuple(value.shape)}; with per-sample stepping it must give one "
                    f"number a sample, shape ({axes.batch_size(z)},)."
                )
            return value

        return own
    if norm == "max":
        return axes.maximum
    if layout.single:
        return axes.rms
    return lambda z: torch.stack([Axes(0, leaf.dim()).rms(leaf) for leaf in layout.leaves(z)]).amax(0)


def differentiate_samples(problem: SampleProblem, gradient: Gradient | None) -> tuple[Tensor, Tensor]:
    """(values [T, *state], status [B]), with the gradient asked for where one can flow."""
    plain = lambda t, z: (problem.plain(t, z), None)  # noqa: E731
    with problem.autocast.outside():
        if isinstance(gradient, Direct) and torch.is_grad_enabled():
            return _direct(problem, plain)
        if gradient is not None and torch.is_grad_enabled():
            dynamics = problem.make_dynamics()
            theta = dynamics.theta()
            if any(x.requires_grad for x in (problem.z0, problem.t, *theta)):
                assert isinstance(gradient, Discrete)
                return _discrete(problem, dynamics, gradient)
        with torch.no_grad():
            run = problem.solve(problem.z0.detach(), plain)
        return run.values, run.rows.status


def _direct(problem: SampleProblem, plain: Callable[..., Any]) -> tuple[Tensor, Tensor]:
    """Through the steps by autograd; times enter as (t − t.detach()) · y'(t)."""
    axes, z0, t = problem.axes, problem.z0, problem.t
    timed = t.requires_grad
    shift = (t - t.detach()).to(z0.dtype)
    start = z0
    if timed:
        slope = problem.plain(axes.clock(problem.times[:, 0], z0), z0)
        start = z0 - axes.spread(shift[:, 0]) * slope
    run = problem.solve(start, plain, differentiable=True, derivatives=timed)
    values = run.values
    if timed:
        assert run.derivatives is not None
        moved = [values[0] * 0 + z0]
        for i in range(1, len(values)):
            term = axes.spread(shift[:, i]) * run.derivatives[i]
            moved.append(values[i] + torch.where(torch.isnan(run.derivatives[i]), 0.0, term))
        values = torch.stack(moved)
    return values, run.rows.status


def _discrete(problem: SampleProblem, dynamics: Dynamics, gradient: Discrete) -> tuple[Tensor, Tensor]:
    axes, stats = problem.axes, problem.stats
    tape = SampleTape(axes.batch_size(problem.z0), problem.z0.device, stages=gradient.keep == "stages")
    ended: list[Tensor] = []

    def forward(z0: Tensor, derivatives: bool) -> tuple[Tensor, Tensor | None, SampleTape]:
        run = problem.solve(z0.detach(), dynamics.forward, derivatives=derivatives, recorder=tape)
        ended.append(run.rows.status)
        return run.values, run.derivatives, tape

    def backward(record: SampleTape, values: Tensor, g: Tensor, want: bool) -> tuple[Tensor, list[Tensor]]:
        stats.nfe_backward = stats.nfe_recomputed = 0
        tableau = problem.settings.tableau
        walk = SampleDiscreteWalk(dynamics, tableau, record, g, axes, stats, want_theta=want)
        return walk.run(), walk.theta.result()

    def time_gradient(g: Tensor, derivatives: Tensor, a: Tensor) -> Tensor:
        product = torch.where(g == 0, 0.0, g * derivatives)
        per_time = product.movedim(axes.batch + 1, 1).flatten(2).sum(2)  # [T, B]
        per_time[0] = -axes.per_sample(a * derivatives[0]).sum(1)
        return per_time.t()

    task = Task(forward, backward, time_gradient, problem.autocast)
    values = Solve.apply(task, problem.z0, problem.t, *dynamics.theta())
    return values, ended.pop()
