"""The walk back over one tape by compiled programs: the same result as `DiscreteWalk`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from ...solvers.device.loops import loops_in_graph
from ...solvers.device.programs import Programs, signature
from ...solvers.device.queue import Queue
from ...solvers.device.saved import KeptStages
from ...solvers.errors import NotRepeatableError
from ...solvers.march.host import Stats
from ...solvers.march.output import Place, by_step
from ...solvers.methods.tableau import Tableau
from ...solvers.step.interpolant import weights
from ...solvers.step.memory_order import regular
from ..dynamics.protocol import Dynamics
from ..dynamics.repeatable import refuse_unlike
from ..dynamics.traced import ModuleCalls
from .compiled_step import Way, close, loop, row, single
from .tape import Tape
from .walk import pulled


class CompiledWalk:
    """dL/dz at the start and θ's gradients, by programs of the queue's owner.

    dynamics: the same, for θ.  like: the state at the start.
    places, g: of the outputs; the first is the start.  complain: what happens where func does not repeat
    its values.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        queue: Queue,
        tableau: Tableau,
        tape: Tape,
        places: Sequence[Place],
        g: Sequence[Tensor],
        stats: Stats,
        like: Tensor,
        complain: Callable[[NotRepeatableError], None],
    ):
        self.queue, self.tape, self.g, self.stats = queue, tape, g, stats
        self.like, self.complain = regular(like.detach()), complain
        self.theta = dynamics.theta()
        self.programs = Programs.of(queue.owner)
        numeric = tableau.numeric(like.dtype, like.device)
        self.way = Way(queue.calls, tableau, numeric, count=len(self.theta))
        self.ending, self.inside = by_step(places)

    def run(self) -> tuple[Tensor, list[Tensor]] | None:
        """(dL/dz at the start without the cotangent of the output there, θ's gradients); None where the
        programs could not be compiled, or an output needs stages of its own (dop853)."""
        if (self.inside and self.way.tableau.c_dense) or not self._same_parameters():
            return None
        lam, held = self._zeros(), self._zeros()
        totals = [torch.zeros_like(p) for p in self.theta]
        walk = self._loops if self.queue.sync_every > 1 else self._singles
        for found in walk(lam, held, totals):
            if found is None:
                return None
            lam, held, totals = found
        closed = self._close(lam, held, totals)
        if closed is None:
            return None
        lam, totals = closed
        for i in self.ending.get(-1, ())[1:]:  # outputs at the start itself, but for the first
            lam = lam + self.g[i]
        return lam, totals

    def _same_parameters(self) -> bool:
        """Whether those of a module that require gradients are still those of the forward solve."""
        if not isinstance(self.queue.calls, ModuleCalls):
            return True
        now = [id(p) for p in self.queue.owner.parameters() if p.requires_grad]
        return now == [id(p) for p in self.theta]

    def _zeros(self) -> Tensor:
        return torch.zeros_like(self.like)

    def _close(self, lam: Tensor, held: Tensor, totals: list[Tensor]) -> tuple[Tensor, list[Tensor]] | None:
        """Through the very first stage; and whether func gives the same value there as it did."""
        first = self.tape.steps[0]
        y0 = self.like
        t0 = torch.full((1,), first.t0, dtype=torch.float64, device=y0.device)
        arguments = (self.queue.owner, t0, y0, first.k0, lam, held, totals)
        key = ("close", self.way.key, signature(y0))
        found = self.programs.run(key, functools.partial(close, self.way), *arguments)
        if found is None:
            return None
        lam, totals, off = found
        self.stats.nfe_recomputed += 1
        self.stats.nfe_backward += 1
        if first.saved is None:
            refuse_unlike(float(off), y0.dtype, self.complain)  # host read
        return lam, totals

    def _ended(self, n: int, lam: Tensor) -> Tensor:
        for i in self.ending.get(n, ()):
            lam = lam + self.g[i]
        return lam

    def _outputs(self, n: int, dt: float) -> tuple[Tensor, Tensor]:
        """What outputs inside step n add to each k̄_i and to dL/dy."""
        return pulled([(self.g[i], weights(self.way.numeric, theta)) for i, theta in self.inside[n]], dt)

    def _singles(self, lam: Tensor, held: Tensor, totals: list[Tensor]) -> Iterator[Any]:
        """All steps, each in one call."""
        yield from self._each(range(len(self.tape.steps)), lam, held, totals)

    def _each(self, group: range, lam: Tensor, held: Tensor, totals: list[Tensor]) -> Iterator[Any]:
        """The steps of a group, from the last, each in one call."""
        m = self.way.tableau.n_stages - 1
        for n in reversed(group):
            step = self.tape.steps[n]
            lam = self._ended(n, lam)
            inside = self._outputs(n, step.dt) if n in self.inside else None
            way = dataclasses.replace(self.way, outputs=inside is not None)
            if isinstance(step.saved, KeptStages):
                way = dataclasses.replace(way, recipe=step.saved.recipe)
                known = (step.saved.times, step.saved.states, step.saved.lean)
            else:
                known = (step.y0, step.k0)
                self.stats.nfe_recomputed += m
            ends = torch.tensor([step.t0, step.t1], dtype=torch.float64, device="cpu")
            ends = ends.to(lam.device, non_blocking=True)
            key = ("back", way.key, signature(self.like))
            arguments = (self.queue.owner, ends, known, lam, held, inside, totals)
            found = self.programs.run(key, functools.partial(single, way), *arguments)
            yield found
            self.stats.nfe_backward += m
            lam, held, totals = found

    def _loops(self, lam: Tensor, held: Tensor, totals: list[Tensor]) -> Iterator[Any]:
        """Groups of up to sync_every steps, each in one call."""
        m, n_steps, size = self.way.tableau.n_stages - 1, len(self.tape.steps), self.queue.sync_every
        in_graph = loops_in_graph(self.like)
        for end in range(n_steps, 0, -size):
            group = range(max(end - size, 0), end)
            if not in_graph and len(group) < size:
                yield from self._each(group, lam, held, totals)
                return
            lam = self._ended(end - 1, lam)
            steps = [self.tape.steps[n] for n in group]
            pad = [steps[-1]] * (size - len(steps))  # one program for groups of every length
            ends = torch.tensor([[s.t0, s.t1] for s in steps + pad], dtype=torch.float64, device="cpu")
            outputs = self._outputs_of(group, size)
            way = dataclasses.replace(self.way, outputs=bool(outputs))
            last = (torch.tensor([len(steps) - 1], dtype=torch.int64, device="cpu"),) if in_graph else ()
            arguments = (
                self.queue.owner,
                *last,
                ends.to(lam.device, non_blocking=True),
                torch.stack(cast("list[Tensor]", [s.y0 for s in steps + pad])),  # none has kept its stages
                torch.stack(cast("list[Tensor]", [s.k0 for s in steps + pad])),
                lam,
                held,
                outputs,
                totals,
            )
            key, make = ("loop back", way.key, size, signature(self.like)), loop if in_graph else row
            found = self.programs.run(key, functools.partial(make, way), *arguments)
            yield found
            self.stats.nfe_backward += m * len(steps)
            self.stats.nfe_recomputed += m * len(steps)
            lam, held, totals = found

    def _outputs_of(self, group: range, size: int) -> tuple[Tensor, ...]:
        """For each step of the group, what the outputs in it and at its end add; () where there are none
        but at the last one's end."""
        inside = any(n in self.inside for n in group)
        if not inside and not any(n in self.ending for n in group[:-1]):
            return ()
        k_bar = self.like.new_zeros((size, self.way.tableau.n_stages, *self.like.shape))
        y_bar, at_end = (self.like.new_zeros((size, *self.like.shape)) for _ in range(2))
        for j, n in enumerate(group):
            if n in self.inside:
                k_bar[j], y_bar[j] = self._outputs(n, self.tape.steps[n].dt)
            if n != group[-1]:
                for i in self.ending.get(n, ()):
                    at_end[j] += self.g[i]
        return k_bar, y_bar, at_end
