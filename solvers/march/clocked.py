"""Stepping per sample: time, step size, acceptance and status are tensors, one entry a sample.

All samples attempt their own step in one batched evaluation of f. A sample that has finished stays,
with a step of length 0, or (compact) leaves the batch, so that f sees fewer and fewer. A sample that
fails keeps its status; its row is overwritten by a healthy one's, so that no NaN stays in the batch.
One host read per attempt: how many samples go on, how many outputs lie in the step, what needs care.

Source of the idea: M. Lienen, S. Günnemann, torchode: A parallel ODE solver for PyTorch, 2022.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..device.queue import Queue
from ..device.sample_attempt import finite_samples, next_sizes
from ..device.sample_march import SampleMarch, march_for
from ..methods.tableau import Numeric
from ..status import Status
from ..step.clocks import Each
from ..step.first_step import initial_steps
from ..step.norms import error_ratio
from ..step.runge_kutta import Field, StageBuffer, StageList, StepResult, dense_stages, owned, rk_step
from .clocked_events import SampleEvents
from .clocked_output import SampleOutput
from .host import Stats
from .samples import Rows, SampleListener, SampleRecorder, SampleSettings, SampleStep, beside


class SampleSolve:
    """One solve with a step size for each sample.

    field: counts its batched calls itself.  t0, end: [B].  recorder: keeps what an adjoint needs.
    listeners: see every attempt.  keep: each attempt owns its stages.
    queue: how many attempts are made between two looks of the host, and what is compiled (`sample_march`).
    """

    def __init__(
        self,
        field: Field,
        z0: Tensor,
        t0: Tensor,
        end: Tensor,
        clocks: Each,
        settings: SampleSettings,
        output: SampleOutput,
        stats: Stats,
        *,
        differentiable: bool = False,
        recorder: SampleRecorder | None = None,
        events: SampleEvents | None = None,
        listeners: Sequence[SampleListener] = (),
        keep: bool = False,
        queue: Queue | None = None,
    ):
        self.field = owned(field) if differentiable else field
        self.clocks, self.settings, self.output, self.stats = clocks, settings, output, stats
        self.differentiable, self.recorder = differentiable, recorder
        self.events, self.listeners, self.keep = events, listeners, keep
        self.tableau = settings.tableau
        self.numeric: Numeric = self.tableau.numeric(z0.dtype, z0.device)
        self.tolerance, self.norm = settings.tolerance, settings.norm
        self.y = self.first = self.slope0 = z0  # the slopes are evaluated where the solve begins
        self.rows, self.whole = Rows.begin(t0, end), Rows.begin(t0, end)
        self.span = (end - t0).abs()
        self.storage: Tensor | None = None
        self.queue = queue
        self.march: SampleMarch | None = None

    def run(self) -> Rows:
        """Steps until no sample goes on; the rows as they ended, in the order of the batch."""
        running = self._begin()
        self.march = march_for(self, self.queue)
        while running:
            if self.settings.compact and running < len(self.rows.index):
                self._compact(running)
            running = self._attempt() if self.march is None else self.march.attempts()
        if self.march is not None:
            self.march.arrive()
        self.rows.write_into(self.whole)
        return self.whole

    # The start

    def _begin(self) -> int:
        """First evaluation and first step size; how many samples have somewhere to go."""
        r = self.rows
        bad = ~self.clocks.all(torch.isfinite(self.y))
        r.mark(bad, Status.NON_FINITE)
        r.mark(~bad & (r.t == r.end), Status.SUCCESS)
        self._replace(bad)
        saved = self._evaluate_first(~bad)
        unwell = ~self.clocks.all(torch.isfinite(self.first))
        r.mark(unwell & r.running, Status.NON_FINITE)
        running, any_unwell = torch.stack((r.running.sum(), unwell.sum())).tolist()  # host read
        if any_unwell:
            self._replace(bad | unwell)
            saved = self._evaluate_first(torch.zeros_like(bad))  # again, so that no NaN is in what is kept
            if not running:  # perhaps no sample is healthy
                self.first = self.first.detach()
        self.slope0 = torch.where(self.clocks.spread(bad | unwell), math.nan, self.first)
        self.output.start_derivatives(self.slope0)
        if self.events is not None:
            self.events.start(r.t, self.y)
        if running:  # else no cotangent comes here, and the evaluation may be NaN in every row
            if self.recorder is not None:
                self.recorder.start(saved)
            self._first_step()
        return running

    def _replace(self, bad: Tensor) -> None:
        """Overwrites bad rows of the working state by a healthy one's: NaN times 0 is NaN."""
        healthy = (~bad).to(torch.int8).argmax().reshape(1)
        mask = self.clocks.spread(bad)
        self.y = torch.where(mask, self.y.index_select(self.clocks.batch, healthy), self.y)
        self.rows.t = torch.where(bad, self.rows.t.index_select(0, healthy), self.rows.t)
        self.y = torch.where(mask & ~torch.isfinite(self.y), 0.0, self.y)  # where no sample is healthy

    def _evaluate_first(self, counted: Tensor) -> Any:
        r = self.rows
        time = beside(self.clocks.time(r.t, self.y), self.settings.at_jump(r.t), r.direction)
        self.first, saved = owned(self.field)(time, self.y)  # it outlives the probe's evaluation
        r.nfe = r.nfe + counted
        return saved

    def _resting(self) -> Tensor:
        """Each sample's own time, as f wants it; beside a jump on the side that the sample has seen."""
        r = self.rows
        side = torch.where(r.t == r.end, -r.direction, r.direction)
        return beside(self.clocks.time(r.t, self.y), self.settings.at_jump(r.t), side)

    def _first_step(self) -> None:
        r, settings = self.rows, self.settings
        if settings.dt is not None:
            r.dt = torch.full_like(r.t, settings.dt)
        elif settings.dt0 is not None:
            r.dt = settings.dt0
        else:
            r.dt = initial_steps(
                self.field,
                r.t,
                r.end,
                r.direction,
                self.y,
                self.first,
                self.tableau.error_order,
                self.tolerance,
                self.norm,
                self.clocks,
                lambda t: beside(self.clocks.time(t, self.y), settings.at_jump(t), -r.direction),
            )
            r.nfe = r.nfe + r.running
        r.dt = r.dt.clamp(max=settings.controller.dt_max).detach()
        self.stats.dt_first = r.dt

    # One attempt

    def _attempt(self) -> int:
        """One attempt of every sample; how many go on. One host read."""
        stop, jump = self._next_stop()
        left = (stop - self.rows.t).abs()
        # A thousandth longer, rather than leave a sliver; a fixed step is what it is.
        cut = left <= (1.001 if self.settings.dt is None else 1.0 + 1e-9) * self.rows.dt
        self._give_up_if_too_short(cut)
        r = self.rows
        t1 = torch.where(cut, stop, r.t + r.direction * r.dt)
        t1 = torch.where(r.running, t1, r.t)  # those that have finished stay, with a step of length 0
        step = self._step(t1, cut & jump)
        rejected = r.running & ~step.accepted
        bad = rejected & ~step.finite
        jumped = step.accepted & cut & jump & (t1 != r.end)
        rounds = self.output.count(step)
        firing = None if self.events is None else self.events.look(step, self.tableau)
        self._advance(step, rejected, bad)
        counts = rounds.new_empty(0)
        if self.events is not None:
            counts = self.events.counts()
            if not self.tableau.c_dense:  # else it is known only when the dense output has been looked at
                r.mark(self.events.ends(), Status.EVENT)
        inside = self.output.inside.sum()
        flags = torch.stack((r.running.sum(), bad.sum(), jumped.sum(), rounds, inside))
        running, *todo = torch.cat((flags, counts)).tolist()  # host read
        if any(todo[:1]) and (self.differentiable or self.recorder is not None):
            self._clean(step)
        if any(todo[3:]) or self.keep:
            self._ensure_dense(step, firing)
        fired = todo[4:]
        if any(fired) and self.tableau.c_dense:
            running, fired = self._look_closer(step)
        self._finish(step, jumped, todo[1], todo[2], fired)
        return running

    def _look_closer(self, step: SampleStep) -> tuple[int, list[int]]:
        """Whether events that may fire do; how many samples go on, and how often each fires. A host read."""
        assert self.events is not None
        self.events.look(step, self.tableau, closer=True)
        self.rows.mark(self.events.ends(), Status.EVENT)
        running, *fired = torch.cat((self.rows.running.sum()[None], self.events.counts())).tolist()
        return running, fired

    def _finish(
        self, step: SampleStep, jumped: Tensor, any_jumped: int, rounds: int, fired: list[int]
    ) -> None:
        """What only some attempts need; the host knows by now which."""
        if self.events is not None:
            if any(fired):
                step.until = self.events.locate(step, fired, self.numeric)
                self.output.limit(step.until)
            self.events.advance(step.accepted)
        if rounds:
            step.outputs.extend(self.output.write(step, rounds, self.numeric))
        if self.recorder is not None:
            self.recorder.step(step)
        for listener in self.listeners:
            listener.attempt(step, self.rows)
        if any_jumped:
            self._restart(jumped)

    def _next_stop(self) -> tuple[Tensor, Tensor]:
        """Each sample's next time to hit, and whether f jumps there."""
        r, stops = self.rows, self.settings.stops
        if not len(stops):
            return r.end, torch.zeros_like(r.non_finite)
        ahead = (stops - r.t[:, None]) * r.direction[:, None]
        far = (r.end - r.t) * r.direction
        ahead = torch.where((ahead > 0) & (ahead <= far[:, None]), ahead, math.inf)
        distance, which = ahead.min(1)
        found = torch.isfinite(distance)
        return torch.where(found, stops[which], r.end), found & self.settings.jumps[which]

    def _shortest(self) -> Tensor:
        """`loop.shortest_step` for each sample."""
        t = self.rows.t.abs()
        spacing = torch.nextafter(t, torch.full_like(t, math.inf)) - t
        span = self.span.index_select(0, self.rows.index).clamp(max=1.0)
        return torch.maximum(10.0 * spacing, 1e-20 * span)

    def _give_up_if_too_short(self, cut: Tensor) -> None:
        r, c = self.rows, self.settings.controller
        # Not r.dt < …, so that a dt of NaN ends here.
        short = r.running & ~cut & ~(r.dt >= self._shortest().clamp(min=c.dt_min))
        if c.force_dt_min and c.dt_min > 0:
            raised = short & ~r.non_finite
            r.dt = torch.where(raised, c.dt_min, r.dt)
            short = short & ~raised
        self._fail(short)

    def _fail(self, which: Tensor) -> None:
        kind = torch.where(self.rows.non_finite, int(Status.NON_FINITE), int(Status.STEP_UNDERFLOW))
        self.rows.mark(which, kind)

    def _step(self, t1: Tensor, before_jump: Tensor) -> SampleStep:
        """Stages, error ratio and decision of one attempt from the present rows to t1."""
        r, clocks = self.rows, self.clocks
        dt = clocks.spread(t1 - r.t).to(self.y.dtype)
        times = [clocks.time(t1 if c == 1.0 else r.t + c * (t1 - r.t), self.y) for c in self.numeric.c]
        if len(self.settings.jumps):
            resting, stays = self._resting(), (t1 == r.t).view(times[0].shape)
            for i, c in enumerate(self.numeric.c):
                time = beside(times[i], before_jump, -r.direction) if c == 1.0 else times[i]
                times[i] = torch.where(stays, resting, time)
            times[0] = resting  # at which the first stage was evaluated
        result = self._stages(self.y, self.first, dt, times)
        r.nfe = r.nfe + (self.tableau.n_stages - 1) * r.running
        ratio, finite = self._judge(result)
        fits = torch.ones_like(finite) if self.settings.dt is not None else ratio <= 1.0
        if self.settings.controller.force_dt_min:
            fits = fits | ((t1 - r.t).abs() <= 1.001 * self.settings.controller.dt_min)
        accepted = r.running & finite & fits
        return SampleStep(
            r.index,
            r.t,
            t1,
            self.y,
            self.first,
            dt,
            times,
            result,
            ratio,
            finite,
            accepted,
            r.running,
            clocks,
        )

    def _stages(self, y: Tensor, first: Tensor, dt: Tensor, times: list[Tensor]) -> StepResult:
        stages: StageBuffer | StageList = StageList(self.numeric, dt)
        if not self.differentiable:
            stages = StageBuffer(self.numeric, y, dt, self.storage)
            self.storage = None if self.keep else stages.k
        evaluation = self.field(times[0], y) if self.settings.fresh_first else (first, None)
        return rk_step(self.field, y, evaluation, times, self.tableau, stages)

    @torch.no_grad()
    def _judge(self, result: StepResult) -> tuple[Tensor, Tensor]:
        finite = finite_samples(self.clocks, result.stages, result.y1)
        if self.settings.dt is not None:
            return torch.full_like(self.rows.t, math.nan), finite
        ratio = error_ratio(result.stages.errors(), self.y, result.y1, self.tolerance, self.norm)
        return ratio.to(self.rows.t).detach(), finite  # no_grad does not stop forward-mode AD

    def _advance(self, step: SampleStep, rejected: Tensor, bad: Tensor) -> None:
        """Moves on what accepted; gives every sample its next step size and status."""
        r, controller, accepted = self.rows, self.settings.controller, step.accepted
        taken = (step.t1 - step.t0).abs()
        r.n_accepted, r.n_rejected = r.n_accepted + accepted, r.n_rejected + rejected
        r.non_finite = (r.non_finite & ~accepted & ~rejected) | bad
        if self.settings.dt is None:
            numbers = (taken, r.dt, step.error_ratio, r.e1, r.e2)
            flags, order = (accepted, rejected, bad), self.tableau.error_order
            r.dt, r.e1, r.e2 = next_sizes(controller, order, numbers, r.after_rejection, flags)
            self._fail(rejected & (taken < self._shortest()))
        else:
            self._fail(rejected)  # a fixed step cannot be shortened
        r.after_rejection = (r.after_rejection & ~accepted) | rejected
        r.t = torch.where(accepted, step.t1, r.t)
        move = self.clocks.spread(accepted)
        self.first = torch.where(move, step.result.stages.get(self.tableau.n_stages - 1), self.first)
        self.y = torch.where(move, step.result.y1, self.y)
        r.mark(r.running & (r.t == r.end), Status.SUCCESS)
        r.mark(r.running & (r.n_accepted + r.n_rejected >= self.settings.max_steps), Status.MAX_STEPS)

    def _clean(self, step: SampleStep) -> None:
        """Evaluates the attempt again with a step of 0 where it was not finite.

        Zero times NaN is NaN: one bad sample would spoil every sum over the batch in the backward pass.
        """
        dt = torch.where(self.clocks.spread(step.accepted), step.dt, 0.0)
        calm = step.times[0]
        mask = step.accepted.view(calm.shape)
        times = [torch.where(mask, t, calm) for t in step.times]
        step.result = self._stages(step.y0, step.first, dt, times)
        step.dt, step.times = dt, times
        if self.differentiable:  # the graph so far goes through the attempt that was not finite: leave it
            move = self.clocks.spread(step.accepted)
            self.first = torch.where(move, step.result.stages.get(self.tableau.n_stages - 1), step.first)
            self.y = torch.where(move, step.result.y1, step.y0)

    def _ensure_dense(self, step: SampleStep, firing: Tensor | None) -> None:
        """The further stages of the dense output (dop853); counted for the samples that need them."""
        if self.tableau.c_dense:
            dense_stages(self.field, step.y0, step.times, self.tableau, step.result)
            needs = step.accepted
            if not self.keep:
                inside = self.output.inside
                needs = inside if firing is None else inside | firing.any(0).any(0)
            self.rows.nfe = self.rows.nfe + len(self.tableau.c_dense) * needs

    def _restart(self, jumped: Tensor) -> None:
        """Evaluates the first stage anew just after a discontinuity."""
        r = self.rows
        k, saved = self.field(self._resting(), self.y)
        self.first = torch.where(self.clocks.spread(jumped), k, self.first)
        r.nfe = r.nfe + jumped
        r.e1 = torch.where(jumped, 1.0, r.e1)
        r.e2 = torch.where(jumped, 1.0, r.e2)
        if self.recorder is not None:
            self.recorder.restart(saved, jumped, self.first)

    def _compact(self, running: int) -> None:
        """Finished samples leave the batch."""
        if self.march is not None:
            self.march.arrive()
        keep = self.rows.running.to(torch.int8).argsort(descending=True, stable=True)[:running]
        self.rows.write_into(self.whole)
        size = self.clocks.batch_size(self.y)
        self.rows = self.rows.select(keep)
        self.y = self.y.index_select(self.clocks.batch, keep)
        self.first = self.first.index_select(self.clocks.batch, keep)
        self.tolerance = self.tolerance.select(keep, self.clocks, size)
        self.output.select(keep)
        if self.events is not None:
            self.events.select(keep)
        self.storage = None
        if self.march is not None:
            self.march.select(keep)
        if self.recorder is not None:
            self.recorder.compact(keep)
