"""The march over any clocks: time, step size, acceptance and status are tensors, one entry a sample.

All samples attempt their own step in one batched evaluation of f. A sample that has finished stays,
with a step of length 0, or (compact) leaves the batch, so that f sees fewer and fewer. A sample that
fails keeps its status; its row is overwritten by a healthy one's, so that no NaN stays in the batch.
One host read per attempt: how many samples go on, how many outputs lie in the step, what needs care, whether
an event may fire (then a second).

Source of the idea: M. Lienen, S. Günnemann, torchode: A parallel ODE solver for PyTorch, 2022.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from ..stats import Stats
from ..status import Status
from ..step.attempt import (
    Clock,
    Here,
    Limits,
    Proposal,
    Rules,
    attempt,
    clock_at,
    first_step,
    least_of_span,
    stage_times,
)
from ..step.controller import UNKNOWN
from ..step.field import CountedBatches
from ..step.further import dense_stages
from ..step.groups import Groups
from ..step.implicit.esdirk import ImplicitSteps
from ..step.implicit.newton import Measure
from ..step.runge_kutta import Field, StageBuffer, StageList, Stages, owned, rk_step
from . import repeats
from .events import Looked, SampleEvents
from .samples import Due, SampleOutput, SampleRecorder, SampleSettings, SampleStep, beside
from .watching import Watching


class ClockedMarch:
    """One solve with a step size for each sample.

    field: counts its batched calls itself.
    output: with the times of the samples.
    differentiable: autograd follows the steps.
    columns: what there is one of for each sample in the batch, besides its clock and its state.
    """

    columns: tuple[str, ...] = ("index", "ids", "end", "direction", "least", "began", "nfe", "n_jacobians")

    def __init__(
        self,
        field: Field,
        z0: Tensor,
        settings: SampleSettings,
        output: SampleOutput,
        watching: Watching,
        *,
        differentiable: bool = False,
    ):
        self.field = owned(field) if differentiable else field
        self.clocks, self.settings, self.output = output.clocks, settings, output
        self.watching, self.differentiable = watching, differentiable
        self.recorder = watching.recorder or SampleRecorder()
        self.followed = differentiable or watching.recorder is not None
        tableau, self.tolerance = settings.tableau, settings.tolerance
        numeric = tableau.numeric(z0.dtype, z0.device)
        self.taker = settings.taker()
        self.rules = Rules(
            *(tableau, numeric, settings.norm, settings.controller, self.clocks, settings.max_steps),
            fixed=settings.dt is not None,
            fresh_first=settings.fresh_first,
            taker=self.taker,
        )
        self.y0 = self.y = self.first = self.slope0 = z0  # the slopes are evaluated where the solve begins
        t0, self.end = output.start, output.end
        self.direction = torch.where(self.end < t0, -1.0, torch.ones_like(t0))
        self.least, self.began = least_of_span((self.end - t0).abs()), t0
        self.index = torch.arange(len(t0), dtype=torch.int64, device=t0.device)
        self.clock = self.whole = clock_at(t0, torch.zeros_like(t0))
        self.nfe = self.whole_nfe = self.n_jacobians = self.whole_jacobians = torch.zeros_like(self.index)
        self.dt_first: Tensor | None = None  # none where nothing goes anywhere
        self.buffer: StageBuffer | None = None
        self.steps: list[SampleStep] = []
        self.events: SampleEvents | None = None
        self.nobody = torch.zeros_like(self.index[:1], dtype=torch.bool)
        asks = isinstance(field, CountedBatches) and not self.rules.fixed  # no walk back
        self.made, self.look = 0, repeats.FIRST if asks else 0
        self.n_calls = 0  # batched calls that the field has not counted
        self.ids = self.index if settings.together is None else settings.together.ids
        self._regroup()

    def run(self, stats: Stats[Tensor, Tensor]) -> Clock:
        """Steps until no sample goes on; fills stats. The clocks as they ended, in the order of the batch."""
        running = self._begin()
        while running:
            if self.settings.compact and running < len(self.index):
                self._compact(running)
            running = self.attempts()
            self.made += 1
            if 0 < self.look <= self.made:
                self._look(running)
        self.arrive()
        self._write_back()
        if self.settings.present is not None:
            self.settings.present(None)
        if self.dt_first is not None:
            stats.dt_first = self.dt_first
        stats.nfe, stats.n_calls = stats.nfe + self.whole_nfe, stats.n_calls + self.n_calls
        stats.n_accepted, stats.n_rejected = self.whole.n_accepted, self.whole.n_rejected
        if self.settings.tableau.wants_jacobian:
            stats.n_newton, stats.n_jacobians = self.whole.n_unsolved, self.whole_jacobians
        stats.dt_last = self.whole.dt
        return self.whole

    def _look(self, running: int) -> None:
        """Asks func twice where a sample hardly comes on. Raises SolverError where func is random."""
        ends, most = (self.began, self.end), self.settings.max_steps
        self.look, t, dt = repeats.looked(self.clock, ends, self.made, most)
        if running and not self.look:
            self.nfe = self.nfe + 2 * self.clock.running
            repeats.refuse_random(self.field, (t, self._resting()), self.y, dt)

    def arrive(self) -> None:
        """What is to be done before samples leave the batch, and at the end."""

    def evaluations(self) -> Tensor:
        """Of func, of each sample in the batch."""
        return self.nfe

    def _begin(self) -> int:
        """First evaluation and first step size; how many samples have somewhere to go."""
        clocks = self.clocks
        bad = ~self.rules.clocks.agreed(clocks.all(torch.isfinite(self.y)))
        self._mark(bad, Status.NON_FINITE)
        self._mark(~bad & (self.clock.t == self.end), Status.SUCCESS)
        self._replace(bad)
        saved = self._evaluate_first(~bad)
        unwell = ~self.rules.clocks.agreed(clocks.all(torch.isfinite(self.first)))
        self._mark(unwell & self.clock.running, Status.NON_FINITE)
        running, any_unwell = torch.stack((self.clock.running.sum(), unwell.sum())).tolist()  # host read
        if any_unwell:
            self._replace(bad | unwell)
            saved = self._evaluate_first(torch.zeros_like(bad))  # again, so that no NaN is in what is kept
            if not running:  # perhaps no sample is healthy
                self.first = self.first.detach()
        self.slope0 = torch.where(clocks.spread(bad | unwell), math.nan, self.first)
        self.output.start_derivatives(self.slope0)
        if self.watching.events is not None:
            self.events = self.watching.events(self.clock.t, self.y)
        if running:  # else no cotangent comes here, and the evaluation may be NaN in every row
            self.recorder.start(saved)
            self._regroup()
            self._first_step()
        return int(running)

    def _mark(self, which: Tensor, status: Status) -> None:
        self.clock = self.clock.marked(which, int(status))

    def _replace(self, bad: Tensor) -> None:
        """Overwrites bad rows of the working state by a healthy one's: NaN times 0 is NaN."""
        healthy = (~bad).to(torch.int8).argmax().reshape(1)
        mask = self.clocks.spread(bad)
        self.y = torch.where(mask, self.y.index_select(self.clocks.batch, healthy), self.y)
        t = self.clock.t
        self.clock = self.clock._replace(t=torch.where(bad, t.index_select(0, healthy), t))
        self.y = torch.where(mask & ~torch.isfinite(self.y), 0.0, self.y)  # where no sample is healthy

    def _evaluate_first(self, counted: Tensor) -> Any:
        time = self._beside_jump(self.clock.t, self.direction)
        self.first, saved = owned(self.field)(time, self.y)  # it outlives the probe's evaluation
        self.nfe = self.nfe + counted
        return saved

    def _beside_jump(self, t: Tensor, side: Tensor) -> Tensor:
        """Times as f wants them; where f jumps on the given side."""
        return beside(self.clocks.time(t, self.y), self.settings.at_jump(t), side)

    def _resting(self) -> Tensor:
        """Each sample's own time, as f wants it; beside a jump on the side that the sample has seen last."""
        t, arrived = self.clock.t, (self.clock.t == self.end) & (self.clock.n_accepted > 0)
        return self._beside_jump(t, torch.where(arrived, -self.direction, self.direction))

    def _first_step(self) -> None:
        settings, clock = self.settings, self.clock
        if settings.dt is not None:
            dt = torch.full_like(clock.t, settings.dt)
        elif settings.dt0 is not None and not settings.dt0_open:
            dt = settings.dt0
        else:
            here, limits = (clock.t, self.y, self.first), self._limits(self.end)
            seen_at = lambda t: self._beside_jump(t, -self.direction)  # noqa: E731
            dt = first_step(self.rules, self.field, limits, self.tolerance, here, seen_at)
            self.nfe = self.nfe + clock.running
            if settings.dt0 is not None:
                dt = torch.where(settings.dt0.isnan(), dt, settings.dt0)
        dt = dt.clamp(max=settings.controller.dt_max).detach()
        self.dt_first, self.clock = dt, clock._replace(dt=dt)

    def _limits(self, stop: Tensor) -> Limits:
        return Limits(stop, self.end, self.direction, self.least)

    def attempts(self) -> int:
        """One attempt of every sample; how many go on. One host read."""
        stop, jump = self.settings.next_stop(self.clock.t, self.end, self.direction)
        step, after = self._try(stop, jump)
        self._count(step)
        bad, jumped = self._with_care(step, jump)
        events, due = self.events, self.output.due(step)
        self.clock, self.y, self.first = after
        flags = [self.clock.running.sum(), bad.sum(), jumped.sum(), due.rounds, due.inside.sum()]
        flags += [] if events is None else [events.look(step)]
        n, also = len(flags), self._also()
        read = torch.cat((torch.stack(flags), also)).tolist()  # host read
        running, *todo = read[:n]
        self._told(read[n:], running)
        if todo[0]:
            step = self._clean(step)
        looked = events.suspected(step) if events is not None and any(todo[4:]) else None
        if todo[3] or looked is not None or self.watching.keep:
            self._ensure_dense(step, due.inside, looked)
        if looked is not None:
            running, step = self._fire(step, looked)
        if events is not None:
            events.advance(step.accepted)
        self._finish(step, jumped if todo[1] else None, due, todo[2])
        return int(running)

    def _with_care(self, step: SampleStep, jump: Tensor) -> tuple[Tensor, Tensor]:
        """Whose attempt is to be cleaned, and who met a jump of f; [1] where that cannot be."""
        bad = jumped = self.nobody
        if self.followed:
            bad = step.tried & ~step.accepted & (~step.finite | step.unsolved)
        if self.settings.jumps.shape[-1]:
            jumped = step.accepted & step.cut & jump & (step.t1 != self.end)
        return bad, jumped

    def _also(self) -> Tensor:
        """Numbers to be read with those of an attempt, [k]."""
        return self.index[:0]

    def _told(self, numbers: list[int], running: int) -> None:
        """What they are, and how many samples go on."""

    def _count(self, step: SampleStep) -> None:
        solved, paired = step.result.solved, step.result.paired
        calls: Any = step.tableau.n_stages - 1 if paired is None else paired.calls
        if solved is not None:
            calls = solved.calls
            self.n_jacobians = self.n_jacobians + solved.renewed * step.tried
        self.nfe = self.nfe + calls * step.tried
        if self.rules.taker is not None:
            self.rules.taker.accepted(step.accepted)

    def _regroup(self) -> None:
        """The norm of samples that step together is that of those still under way."""
        together = self.settings.together
        if together is not None:
            clocks = dataclasses.replace(self.clocks, groups=Groups(self.ids, together.n, self.clock.running))
            self.rules = dataclasses.replace(self.rules, clocks=clocks, norm=together.norm(clocks))

    def _try(self, stop: Tensor, jump: Tensor | None = None) -> tuple[SampleStep, Here]:
        self._regroup()
        here, limits = Here(self.clock, self.y, self.first), self._limits(stop)
        if isinstance(self.taker, ImplicitSteps):
            self.taker.measure = Measure(self.rules.clocks, self.rules.norm, self.tolerance)
        times_of = None
        if jump is not None and self.settings.jumps.shape[-1]:
            times_of = lambda clock, proposal: self._times_beside(clock, proposal, jump)  # noqa: E731
        tried, after = attempt(self.rules, self.field, limits, self.tolerance, here, self._stages, times_of)
        who = SampleStep(**vars(tried), index=self.index, clocks=self.clocks, tableau=self.rules.tableau)
        return who, after

    def _times_beside(self, clock: Clock, proposal: Proposal, jump: Tensor) -> list[Tensor]:
        """When the stages are evaluated: on the side of a jump that the step has seen."""
        times = stage_times(self.rules, clock.t, proposal.t1, self.y)
        before = proposal.cut & proposal.go & jump
        resting, stays = self._resting(), (proposal.t1 == clock.t).view(times[0].shape)
        for i, c in enumerate(self.rules.numeric.c):
            time = beside(times[i], before, -self.direction) if c == 1.0 else times[i]
            times[i] = torch.where(stays, resting, time)
        times[0] = resting  # at which the first stage was evaluated
        return times

    def _fire(self, step: SampleStep, looked: Looked) -> tuple[int, SampleStep]:
        """Records events that may fire and do; how many samples go on. A host read."""
        events = self.events
        assert events is not None
        if step.tableau.c_dense:
            looked = events.firing(step, closer=True)
        self._mark(events.ends(looked), Status.EVENT)
        numbers = torch.cat((self.clock.running.sum()[None], looked.firing.sum(0).amax(1)))
        running, *fired = numbers.tolist()  # host read
        if any(fired):
            until, met = events.locate(step, looked, fired)
            step = dataclasses.replace(step, until=until, outputs=met)
        return running, step

    def _finish(self, step: SampleStep, jumped: Tensor | None, due: Due, rounds: int) -> None:
        """What only some attempts need; the host knows by now which."""
        if rounds:
            step = dataclasses.replace(step, outputs=[*step.outputs, self.output.write(step, due, rounds)])
        self.recorder.step(step)
        if self.watching.on_attempt is not None:
            self.watching.on_attempt(step, step.accepted, self.clock.dt, self.nfe)
        if self.watching.keep:
            self.steps.append(step)
        if jumped is not None:
            self._restart(jumped)

    def _stages(self, dt: Tensor) -> Stages:
        if self.differentiable:
            return StageList(self.rules.numeric, dt)
        if self.watching.keep:
            return StageBuffer(self.rules.numeric, self.y, dt)
        if self.buffer is None or self.buffer.numeric is not self.rules.numeric:
            self.buffer = StageBuffer(self.rules.numeric, self.y, dt)
        return self.buffer.again(dt)

    def _clean(self, step: SampleStep) -> SampleStep:
        """The attempt again with a step of 0 where it was not finite, or its equations were not solved.

        Zero times NaN is NaN: one bad sample would spoil every sum over the batch in the backward pass.
        """
        dt = torch.where(self.clocks.spread(step.accepted), step.dt, 0.0)
        calm = step.times[0]
        mask = step.accepted.view(calm.shape)
        times = [torch.where(mask, t, calm) for t in step.times]
        first = self.field(times[0], step.y0) if self.settings.fresh_first else (step.first, None)
        if self.rules.taker is not None:
            result = self.rules.taker.repeated(self.field, step.y0, first, times, self._stages(dt))
        else:
            result = rk_step(self.field, step.y0, first, times, step.tableau, self._stages(dt))
        if self.differentiable:  # the graph so far goes through the attempt that was not finite: leave it
            last = result.stages.get(step.tableau.n_stages - 1)
            self.first = self.clocks.choose(step.accepted, last, step.first)
            self.y = self.clocks.choose(step.accepted, result.y1, step.y0)
        return dataclasses.replace(step, result=result, dt=dt, times=times)

    def _ensure_dense(self, step: SampleStep, inside: Tensor, looked: Looked | None) -> None:
        """The further stages of the dense output (dop853); counted for the samples that need them."""
        if step.tableau.c_dense:
            dense_stages(self.field, step.y0, step.times, step.tableau, step.result)
            needs = step.accepted
            if not self.watching.keep:
                needs = inside if looked is None else inside | looked.firing.any(0).any(0)
            self.nfe = self.nfe + len(step.tableau.c_dense) * needs

    def _restart(self, jumped: Tensor) -> None:
        """Evaluates the first stage anew just after a discontinuity."""
        k, saved = self.field(self._resting(), self.y)
        self.first = self.clocks.choose(jumped, k, self.first)
        self.nfe = self.nfe + jumped
        if self.taker is not None:
            self.taker.restarted(jumped)
        e1, e2 = (torch.where(jumped, UNKNOWN, e) for e in (self.clock.e1, self.clock.e2))
        self.clock = self.clock._replace(e1=e1, e2=e2)
        self.recorder.restart(saved, jumped, self.first)

    def _write_back(self) -> None:
        """Puts the clocks of the samples still here back where they stand in the whole batch."""
        if len(self.index) == len(self.whole_nfe):
            self.whole, self.whole_nfe = self.clock, self.evaluations()
            self.whole_jacobians = self.n_jacobians
            return
        pairs = zip(self.whole, self.clock, strict=True)
        self.whole = Clock(*(whole.index_copy(0, self.index, part) for whole, part in pairs))
        self.whole_nfe = self.whole_nfe.index_copy(0, self.index, self.evaluations())
        self.whole_jacobians = self.whole_jacobians.index_copy(0, self.index, self.n_jacobians)

    def _compact(self, running: int) -> None:
        """Finished samples leave the batch."""
        self.arrive()
        keep = self.clock.running.to(torch.int8).argsort(descending=True, stable=True)[:running]
        self._write_back()
        size = self.clocks.batch_size(self.y)
        for name in self.columns:
            setattr(self, name, getattr(self, name).index_select(0, keep))
        self.settings = self.settings.of(keep)
        if self.settings.present is not None:
            self.settings.present(self.index)
        self.clock = Clock(*(part.index_select(0, keep) for part in self.clock))
        self.y = self.y.index_select(self.clocks.batch, keep)
        self.first = self.first.index_select(self.clocks.batch, keep)
        self.tolerance = self.tolerance.select(keep, self.clocks, size)
        self.output.select(keep)
        if self.events is not None:
            self.events.select(keep)
        if self.taker is not None:
            self.taker.select(keep)
        self.buffer = None
        self.recorder.compact(keep)
