"""Per-sample attempts where only the end of the solve is wanted: eager, queued or compiled.

What an attempt is stands in `sample_attempt`; the start, and samples that leave the batch, in `batched`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..march.samples import Rows, SampleNorm
from ..status import Status
from ..step.controller import PID
from ..step.runge_kutta import StageBuffer
from .loops import loops_in_graph
from .programs import Programs, signature
from .queue import Queue
from .sample_attempt import SampleClock, SampleEnds, SampleRules, attempt_samples, sample_program

if TYPE_CHECKING:
    from ..march.clocked import SampleSolve


def march_for(solve: SampleSolve, queue: Queue | None) -> SampleMarch | None:
    """The march of a solve; None where something is wanted that only `SampleSolve`'s attempts do."""
    settings, output = solve.settings, solve.output
    asked = (
        solve.differentiable or solve.keep or solve.listeners or solve.recorder is not None,
        solve.events is not None or len(settings.stops) or settings.fresh_first,
        output.every_step or output.derivatives is not None or output.rows.shape[1] > 2,
        settings.dt is not None or settings.controller.force_dt_min,
    )
    name = norm_name(settings.norm)
    return None if any(asked) or name is None else SampleMarch(solve, name, queue or Queue())


def norm_name(norm: SampleNorm) -> str | None:
    """Which of `Each`' norms it is; None for another one."""
    name = getattr(norm, "__name__", "")
    return name if name in ("rms", "maximum", "block_rms") and hasattr(norm, "__self__") else None


class SampleMarch:
    """The attempts of a solve that has begun (`SampleSolve._begin`); rows and state are the solve's own."""

    def __init__(self, solve: SampleSolve, norm: str, queue: Queue):
        settings = solve.settings
        controller: PID = settings.controller
        self.solve, self.queue = solve, queue
        self.rules = SampleRules(
            settings.tableau, solve.numeric, controller, solve.clocks, norm, settings.max_steps
        )
        self.owner = queue.owner
        self.programs = None if self.owner is None else Programs.of(self.owner)
        self.buffer: StageBuffer | None = None
        self.first_nfe = solve.rows.nfe
        self.limits = self._limits()

    def _limits(self) -> SampleEnds:
        r = self.solve.rows
        least = 1e-20 * self.solve.span.index_select(0, r.index).clamp(max=1.0)
        return SampleEnds(r.end, r.direction, least)

    def attempts(self) -> int:
        """`sync_every` attempts; how many samples go on. One host read."""
        solve = self.solve
        with torch.no_grad():
            found = self._compiled() if self.owner is not None else None
            clock, made = (self._queued(), None) if found is None else found
        for name, value in zip(clock._fields, clock, strict=True):
            setattr(solve.rows, name, value)
        running = solve.rows.running.sum()
        if made is None:  # calls were counted by the field
            return int(running)  # host read
        running, made = torch.stack((running, made)).tolist()  # host read
        solve.stats.n_calls += (self.rules.tableau.n_stages - 1) * made
        return running

    def arrive(self) -> None:
        """Writes what has arrived, and counts: before samples leave the batch, and at the end."""
        solve = self.solve
        r, output = solve.rows, solve.output
        there = r.status == int(Status.SUCCESS)
        here = torch.where(r.n_accepted > 0, there, False)  # else it was there at its start
        state = solve.y.movedim(solve.clocks.batch, 0)
        mask = here.view(-1, *[1] * (state.dim() - 1))
        output.values[1] = output.values[1].index_copy(
            0, r.index, torch.where(mask, state, output.values[1].index_select(0, r.index))
        )
        r.nfe = self.first_nfe + (self.rules.tableau.n_stages - 1) * (r.n_accepted + r.n_rejected)

    def select(self, keep: Tensor) -> None:
        """Samples have left the batch; keep: the positions of those that stayed."""
        self.buffer, self.limits = None, self._limits()
        self.first_nfe = self.first_nfe.index_select(0, keep)

    def _queued(self) -> SampleClock:
        solve, clock = self.solve, self._clock()
        for _ in range(self.queue.sync_every):
            clock, solve.y, solve.first = attempt_samples(
                self.rules,
                solve.field,
                self.limits,
                solve.tolerance,
                clock,
                solve.y,
                solve.first,
                self._stages,
            )
        return clock

    def _clock(self) -> SampleClock:
        rows: Rows = self.solve.rows
        return SampleClock(*(getattr(rows, name) for name in SampleClock._fields))

    def _stages(self, dt: Tensor) -> StageBuffer:
        if self.buffer is None:
            self.buffer = StageBuffer(self.rules.numeric, self.solve.y, dt)
        return self.buffer.again(dt)

    def _compiled(self) -> tuple[SampleClock, Tensor] | None:
        """The same in one compiled call, and how many were made; None, from now on, where it cannot be."""
        assert self.programs is not None
        solve, n = self.solve, self.queue.sync_every
        rtol, atol = solve.tolerance.tensors(solve.y)
        clock, y = self._clock(), solve.y
        key = ("samples", self.rules, n, signature(y, solve.first, rtol, atol, *clock))
        make = functools.partial(
            sample_program, self.rules, self.queue.calls, None if loops_in_graph(y) else n
        )
        most = torch.full((), n, dtype=torch.int64, device=y.device)
        arguments = (most, tuple(self.limits), rtol, atol, tuple(clock), y, solve.first)
        found = self.programs.run(key, make, self.owner, *arguments)
        if found is None:
            self.owner = None
            return None
        made, *numbers, solve.y, solve.first = found
        return SampleClock(*numbers), made
