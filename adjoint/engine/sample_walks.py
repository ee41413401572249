"""What each gradient choice keeps of a per-sample solve, and how it walks back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from ...solvers.errors import NotRepeatableError, ReconstructionError
from ...solvers.march.clocked_dense import SampleDense
from ...solvers.march.host import Stats
from ...solvers.march.samples import SampleRecorder, SampleSettings, SampleStep
from ...solvers.step.clocks import Each
from ..continuous.stepping import PerSample, reverse_settings
from ..continuous.ways import record_continuous
from ..discrete.sample_tape import SampleCheckpointTape, SampleTape
from ..discrete.sample_walk import SampleDiscreteWalk
from ..dynamics.protocol import Dynamics
from ..gradient import Backsolve, Discrete, Gradient, Interpolating
from ..recording import Result, Seen


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
    assert isinstance(gradient, (Backsolve, Interpolating))
    return _continuous(context, dynamics, gradient)


def _discrete(context: SampleContext, dynamics: Dynamics, gradient: Discrete) -> SampleRecording:
    clocks, z0 = context.clocks, context.z0
    batch = clocks.batch_size(z0)
    tape: SampleTape | SampleCheckpointTape = SampleTape(batch, z0.device, stages=gradient.keep == "stages")
    if gradient.checkpoints is not None:
        tape = SampleCheckpointTape(batch, z0.device, gradient.checkpoints)

    def back(own: SampleTape | SampleCheckpointTape, g: Tensor, at_start: Tensor, want: bool) -> Result:
        walk = SampleDiscreteWalk(
            dynamics, context.settings.tableau, own, g, clocks, context.stats, want_theta=want
        )
        a = walk.run()
        for row, mask in zip(g[1:], at_start, strict=False):  # outputs at the start itself
            a = a + torch.where(clocks.spread(mask), row, 0.0)
        return a, walk.theta.result()

    def walk(times: Tensor, values: Tensor, g: Tensor, want: bool) -> Result:
        tape.last.check(dynamics, context.stats, _raise)
        return back(tape, g, times[1:] == times[:1], want)

    def ask(output: SampleDense, t: Tensor, values: Tensor, g: Tensor, want: bool) -> Result:
        asked = tape.with_outputs([output.outputs(step, t) for step in output.steps])
        return back(asked, g, output.at_start(t), want)

    return SampleRecording(tape, walk, ask, saves=True)  # a first stage's is kept in any case


def _continuous(
    context: SampleContext, dynamics: Dynamics, gradient: Backsolve | Interpolating
) -> SampleRecording:
    stepping = PerSample(
        forward=context.settings,
        backward=reverse_settings(context.settings, gradient),
        clocks=context.clocks,
        stats=context.stats,
        batch=context.clocks.batch_size(context.z0),
    )
    recording = record_continuous(dynamics, gradient, stepping, _raise)

    def walk(times: Tensor, values: Tensor, g: Tensor, want: bool) -> Result:
        return recording.walk(Seen(times, values), g, want)

    def ask(output: SampleDense, t: Tensor, values: Tensor, g: Tensor, want: bool) -> Result:
        return walk(torch.cat((context.start[None], t)), values, g, want)

    return SampleRecording(recording.recorder, walk, ask, dense=recording.dense)


def _raise(error: NotRepeatableError | ReconstructionError) -> None:
    raise error
