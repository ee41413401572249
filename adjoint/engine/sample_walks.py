"""What each gradient choice keeps of a per-sample solve, and how it walks back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor

from ...solvers.errors import NotRepeatableError, ReconstructionError, SolverError
from ...solvers.march.clocked_dense import SampleDense
from ...solvers.march.host import Stats
from ...solvers.march.samples import SampleRecorder, SampleSettings, SampleStep
from ...solvers.march.stacked_dense import StackedDense
from ...solvers.step.clocks import Each
from ..continuous.guard import judged_by
from ..continuous.sample_reverse import (
    SampleAdjointAtState,
    SampleCarrier,
    SampleReverseSolve,
    SampleStateAndAdjoint,
    observations,
)
from ..discrete.anchors import SampleAnchors
from ..discrete.record import record_discrete
from ..discrete.walk import Solved
from ..dynamics.by_autograd import AutogradDynamics
from ..dynamics.protocol import Dynamics, ThetaSum
from ..gradient import Backsolve, Discrete, Gradient, Interpolating
from ..recording import Seen
from .walks import PATIENCE, reverse_settings

Result = tuple[Tensor, list[Tensor]]  # dL/dz at the start before the first cotangent, gradients of θ


@dataclasses.dataclass(frozen=True)
class SampleRecording:
    """recorder: of the forward solve.  dense: its attempts must be kept, with their stages.

    walk(times, values, g, want_theta): back over outputs and events; times: [n, B], NaN where not
    reached, the first row the start.  ask(output, t, values, g, want_theta): the same for any times
    t [n, B] of a dense output; values and g have a first row for the start.
    saves: as of `walks.Recording`.
    """

    recorder: SampleRecorder
    walk: Callable[[Tensor, Tensor, Tensor, bool], Result]
    ask: Callable[[SampleDense, Tensor, Tensor, Tensor, bool], Result]
    dense: bool = False
    saves: bool = False


@dataclasses.dataclass(frozen=True)
class SampleContext:
    """What all walks need; kept: the list that the forward solve's attempts are put into."""

    z0: Tensor
    start: Tensor
    clocks: Each
    settings: SampleSettings
    stats: Stats
    kept: list[SampleStep]


def record_samples(context: SampleContext, dynamics: Dynamics, gradient: Gradient) -> SampleRecording:
    """The recording that a gradient choice needs."""
    if isinstance(gradient, Discrete):
        return _discrete(context, dynamics, gradient)
    if isinstance(dynamics, AutogradDynamics):
        dynamics.late = True
    assert isinstance(gradient, (Backsolve, Interpolating))
    return _continuous(context, dynamics, gradient)


def _discrete(context: SampleContext, dynamics: Dynamics, gradient: Discrete) -> SampleRecording:
    tableau, stats = context.settings.tableau, context.stats
    solved = Solved(dynamics, tableau, context.clocks, context.z0, stats, _raise)
    found = record_discrete(solved, gradient)

    def walk(times: Tensor, values: Tensor, g: Tensor, want: bool) -> Result:
        return found.walk(Seen(times, values), g, want)

    def ask(output: SampleDense, t: Tensor, values: Tensor, g: Tensor, want: bool) -> Result:
        times = torch.cat((context.start[None], t))
        return found.walk(Seen(times, values, outputs=[output.outputs(x, t) for x in output.steps]), g, want)

    return SampleRecording(found.recorder, walk, ask, saves=found.saves)


def _continuous(
    context: SampleContext, dynamics: Dynamics, gradient: Backsolve | Interpolating
) -> SampleRecording:
    settings = reverse_settings(context.settings, gradient)
    backsolve = gradient if isinstance(gradient, Backsolve) else None
    batch = context.clocks.batch_size(context.z0)
    anchors = SampleAnchors(batch, context.clocks, backsolve.anchors if backsolve else 0)

    def once(
        own: SampleSettings, times: Tensor, values: Tensor, g: Tensor, want: bool
    ) -> tuple[Tensor, list[Tensor], ReconstructionError | None]:
        carrier = _carrier(context, dynamics, own, backsolve)
        seen = observations(times, values, g, context.clocks)
        solve = SampleReverseSolve(
            dynamics, carrier, own, seen, context.clocks, context.stats, want_theta=want
        )
        a = solve.run()
        off = None
        if backsolve is not None and isinstance(carrier, SampleStateAndAdjoint):
            off = carrier.judge(math.inf if own.dt is not None else backsolve.reconstruction_limit)
        return a, solve.theta.result(), off

    def walk(times: Tensor, values: Tensor, g: Tensor, want: bool) -> Result:
        anchors.last.check(dynamics, context.stats, _raise)
        if backsolve is None and not context.kept:  # no sample took a step: all outputs are its start
            seen = observations(times, values, g, context.clocks)
            return seen.g[1:].sum(0), ThetaSum(dynamics).result()
        short = settings
        if anchors.states:
            attempts = context.stats.n_steps
            most = attempts if isinstance(attempts, int) else int(attempts.max())  # host read
            limit = PATIENCE * (most + 10)
            short = dataclasses.replace(settings, max_steps=min(settings.max_steps, limit))
        try:
            a, theta, off = once(short, times, values, g, want)
            if off is None:
                return a, theta
        except SolverError:
            if not anchors.states:
                raise
        if anchors.states:  # once more, from nearer: the kept states confine the drift
            own_times, states = zip(*anchors.states.values(), strict=True)
            kept = torch.stack(states)
            times = torch.cat((times, torch.stack(own_times)))
            values, g = torch.cat((values, kept)), torch.cat((g, torch.zeros_like(kept)))
            a, theta, off = once(settings, times, values, g, want)
        if off is not None:
            raise off
        return a, theta

    def ask(output: SampleDense, t: Tensor, values: Tensor, g: Tensor, want: bool) -> Result:
        return walk(torch.cat((context.start[None], t)), values, g, want)

    return SampleRecording(anchors, walk, ask, dense=backsolve is None)


def _raise(error: NotRepeatableError) -> None:
    raise error


def _carrier(
    context: SampleContext, dynamics: Dynamics, settings: SampleSettings, backsolve: Backsolve | None
) -> SampleCarrier:
    if backsolve is not None:
        judge = judged_by(settings, context.settings)
        return SampleStateAndAdjoint(dynamics, judge, context.clocks, context.stats)
    numeric = context.settings.tableau.numeric(context.z0.dtype, context.z0.device)
    dense = StackedDense(context.kept, context.start, context.z0.detach(), context.clocks, numeric)
    return SampleAdjointAtState(dynamics, dense, settings, context.clocks, context.stats)
