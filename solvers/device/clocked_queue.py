"""The march over a clock a sample where only the end of the solve is wanted: queued, or compiled."""

from __future__ import annotations

import dataclasses
import functools

import torch
from torch import Tensor

from ..march.clocked import ClockedMarch
from ..march.samples import SampleOutput, SampleSettings
from ..march.watching import Watching
from ..step.attempt import RUNNING, SUCCESS, Clock, Here, Limits, attempt
from ..step.clocks import Tolerance
from ..step.runge_kutta import Field, StageList
from .captured import several
from .programs import Bounds, Form, Programs, State, loops_in_graph, several_program, signature
from .queue import Queue


@dataclasses.dataclass(frozen=True)
class Samples(Form):
    """A clock a sample: (attempts made, the clock's tensors, y, k); the last state is handed out."""

    def once(self, field: Field, bounds: Bounds, state: State) -> State:
        """As `attempt`."""
        made, *clock, y, k = state
        end, direction, least = bounds.limits
        limits, tolerance = Limits(end, end, direction, least), Tolerance(bounds.rtol, bounds.atol)
        here, make = Here(Clock(*clock), y, k), functools.partial(StageList, self.rules.numeric)
        _, (after, y, k) = attempt(self.rules, field, limits, tolerance, here, make)
        return made + 1, *after, y, k

    def goes_on(self, state: State) -> Tensor:
        """Of any sample."""
        return (state[1 + Clock._fields.index("status")] == RUNNING).any()


class QueuedClocks(ClockedMarch):
    """The march over a clock a sample where only the end of the solve is wanted: eager, queued or compiled.

    queue: how many attempts are made between two looks of the host, and what is compiled.
    """

    def __init__(
        self, field: Field, z0: Tensor, settings: SampleSettings, output: SampleOutput, queue: Queue
    ):
        super().__init__(field, z0, settings, output, Watching())
        self.queue, self.owner = queue, queue.owner
        self.programs = None if self.owner is None else Programs.of(self.owner)

    def attempts(self) -> int:
        """`sync_every` attempts; how many samples go on. One host read."""
        self.made += self.queue.sync_every - 1  # `run` counts one
        with torch.no_grad():
            made = None if self.programs is None else self._compiled(self.programs)
            if made is None:
                for _ in range(self.queue.sync_every):
                    self.clock, self.y, self.first = self._try(self.end)[1]
        running = self.clock.running.sum()
        if made is None:  # calls were counted by the field
            return int(running)  # host read
        running, made = torch.stack((running, made)).tolist()  # host read
        self.n_calls += (self.rules.tableau.n_stages - 1) * made
        return running

    def arrive(self) -> None:
        """Writes what has arrived: before samples leave the batch, and at the end."""
        clock, output = self.clock, self.output
        # One that has made no step was there at its start.
        here = (clock.status == SUCCESS) & (clock.n_accepted > 0)
        state = self.y.movedim(self.clocks.batch, 0)
        mask = here.view(-1, *[1] * (state.dim() - 1))
        before = output.values[1].index_select(0, self.index)
        output.values[1] = output.values[1].index_copy(0, self.index, torch.where(mask, state, before))

    def evaluations(self) -> Tensor:
        """Those of the start, and of the attempts of each sample."""
        return self.nfe + (self.rules.tableau.n_stages - 1) * (self.clock.n_accepted + self.clock.n_rejected)

    def _compiled(self, programs: Programs) -> Tensor | None:
        """`sync_every` attempts in one compiled call, and how many were made; None, from now on, where it
        cannot be."""
        n, y, device = self.queue.sync_every, self.y, self.y.device
        rtol, atol = self.tolerance.tensors(y)
        form = Samples(self.rules)
        state = (torch.zeros((), dtype=torch.int64, device=device), *self.clock, y, self.first)
        key = ("samples", form, n, signature(rtol, atol, *state))
        bounds = Bounds((self.end, self.direction, self.least), rtol, atol)
        most = torch.full((), n, dtype=torch.int64, device=device)
        arguments = (self.owner, most, bounds, state)
        in_graph = loops_in_graph(y)
        if in_graph or n == 1:
            attempts = None if in_graph else n
            make = functools.partial(several_program, form, self.queue.calls, attempts)
            found = programs.run(key, make, *arguments)
        else:
            found = several(programs, key, form, self.queue.calls, n, arguments)
        if found is None:
            self.programs = None
            return None
        made, *clock, self.y, self.first = found
        self.clock = Clock(*clock)
        return made
