"""The walk back over one tape by compiled programs: the same result as `DiscreteWalk`.

A program is one transposed step, or a loop over several, for torch to compile; step sizes are tensors.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from ...solvers.device.programs import Programs, loops_in_graph, signature
from ...solvers.device.queue import Queue
from ...solvers.device.saved import KeptStages, Recipe
from ...solvers.errors import DynamicsError
from ...solvers.methods.tableau import Numeric, Tableau
from ...solvers.step.attempt import settled
from ...solvers.step.clocks import ONE, Clocks, distance, sent, times_between
from ...solvers.step.runge_kutta import Field, StageList, regular, rk_step
from ..dynamics.adapt import refuse_unlike
from ..dynamics.traced import Calls, ModuleCalls
from .tape import Solved, Tape
from .walk import BarList, ByPlace, step_back


@dataclasses.dataclass(frozen=True)
class Way:
    """What a program depends on besides shapes.

    recipe: how to make whole what each stage kept; None: stages are taken again.
    outputs: whether outputs lie inside the step (or, in a loop, at the end of an earlier one).
    count: how many tensors θ has.
    clocks: of the state; ends are [2, …] then.
    spares: f(t1, y1) is not evaluated where nothing comes back through it: a fixed grid's last step does not.
    """

    calls: Calls
    tableau: Tableau
    numeric: Numeric
    recipe: Recipe | None = None
    outputs: bool = False
    count: int = 0
    clocks: Clocks = ONE
    spares: bool = False

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells programs apart."""
        recipe = None if self.recipe is None else self.recipe.key
        return (type(self.calls), self.numeric, recipe, self.outputs, self.count)


class Carry(NamedTuple):
    """What goes from step to step: λ, the held k̄, sums of θ's gradients."""

    lam: Tensor
    held: Tensor
    totals: Sequence[Tensor]


class Group(NamedTuple):
    """Several steps: [n, 2] ends, [n, *S] y0 and f(t0, y0), and of their outputs [n, n_stages, *S] of each
    k̄, [n, *S] of dL/dy, [n, *S] cotangents at the steps' ends; or none."""

    ends: Tensor
    ys: Tensor
    ks: Tensor
    outputs: tuple[Tensor, ...]


def added(totals: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> list[Tensor]:
    """The sums of θ's gradients with those of one step. DynamicsError where one has another shape."""
    if len(totals) != len(gradients):
        counts = f"{len(gradients)} gradients for the {len(totals)} tensors of theta()"
        raise DynamicsError(f"parameter_gradients returned {counts}: one for each, in that order.")
    found = []
    for total, g in zip(totals, gradients, strict=True):
        if g is not None and g.shape != total.shape:  # it would be broadcast silently
            shapes = f"{tuple(g.shape)} for a tensor of theta() of shape {tuple(total.shape)}"
            raise DynamicsError(f"parameter_gradients returned shape {shapes}: keep the order of theta().")
        found.append(total if g is None else total + g)
    return found


def transposed(
    way: Way, owner: Any, ends: Tensor, known: Sequence[Any], carry: Carry, outputs: Sequence[Tensor]
) -> Carry:
    """One step, transposed, between ends = [t0, t1].

    known: the stages' times, states and what was kept; or (y0, k0) to take them again.
    outputs: what those inside the step add to each k̄_i and to dL/dy, and those at its end to λ; or nothing.
    """
    t0, t1 = ends.unbind()
    clocks, like = way.clocks, carry.lam
    dt = settled(clocks.spread(t1 - t0).to(like.dtype))

    def field(t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        k, saved = way.calls.linearise(owner, t, settled(z))
        return settled(k), saved

    if way.recipe is None:
        y0, k0 = known
        times = [clocks.time(t, like) for t in times_between(t0, t1, way.numeric.c)]
        taken = _sparing(field, way, (times[0], y0), carry.held, outputs) if way.spares else field
        saved = rk_step(taken, y0, (k0, None), times, way.tableau, StageList(way.numeric, dt)).saved[1:]
    else:
        saved = [way.recipe.whole(*stage) for stage in zip(*known, strict=True)]
    deltas: list[Any] = [None] * len(saved)

    def pull(i: int, cotangent: Tensor) -> Tensor:
        bar, deltas[i - 1] = way.calls.vjp(owner, saved[i - 1], settled(cotangent))
        return bar

    inside = (outputs[0].unbind(), outputs[1]) if way.outputs else None
    lam = carry.lam + outputs[2] if len(outputs) > 2 else carry.lam
    lam, held = step_back(BarList(way.numeric), pull, dt, lam, carry.held, inside)
    gradients = way.calls.gradients(owner, list(saved), deltas)
    return Carry(settled(lam), settled(held), added(carry.totals, gradients))


def _sparing(
    field: Field, way: Way, there: tuple[Tensor, Tensor], held: Tensor, outputs: Sequence[Tensor]
) -> Field:
    """The field of one step, whose last evaluation is made `there`, where f has a value, if nothing comes
    back through it: its own place may be one where f has none, and 0 · NaN is NaN."""
    last = way.tableau.n_stages - 1
    through = held + outputs[0][last] if way.outputs else held
    idle, calls = (through == 0).all(), itertools.count(1)

    def evaluate(t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        if next(calls) == last:
            t, z = torch.where(idle, there[0], t), torch.where(idle, there[1], z)
        return field(t, z)

    return evaluate


def single(way: Way) -> Callable[..., Any]:
    """(owner, [t0, t1], known, carry, outputs) → carry: `transposed`."""

    # With *arguments instead of their names torch would hold the owner as long as the program.
    def step_back_once(
        owner: Any, ends: Tensor, known: tuple[Any, ...], carry: Carry, outputs: tuple[Tensor, ...]
    ) -> Carry:
        return transposed(way, owner, ends, known, carry, outputs)

    return step_back_once


def close(way: Way) -> Callable[..., Any]:
    """(owner, t0 [1], y0, k0, carry) → (carry, how far f(t0, y0) is from k0, relative): through the very
    first stage, which no step before shares."""

    def close_once(owner: Any, t0: Tensor, y0: Tensor, k0: Tensor, carry: Carry) -> Any:
        k, saved = way.calls.linearise(owner, t0[0].to(y0.dtype), y0)
        bar, delta = way.calls.vjp(owner, saved, carry.held)
        gradients = way.calls.gradients(owner, [saved], [delta])
        return Carry(carry.lam + bar, carry.held, added(carry.totals, gradients)), distance(k, k0)

    return close_once


def row(way: Way) -> Callable[..., Any]:
    """(owner, group, carry) → carry: the steps of `loop` one after another, where a loop's condition would
    make the host wait."""

    def step_back_row(owner: Any, group: Group, carry: Carry) -> Carry:
        for i in range(len(group.ends) - 1, -1, -1):
            own = [x[i] for x in group.outputs]
            carry = transposed(way, owner, group.ends[i], (group.ys[i], group.ks[i]), carry, own)
        return carry

    return step_back_row


def loop(way: Way) -> Callable[..., Any]:
    """(owner, group, carry, index of the step to begin with, int64 [1]) → carry."""
    from torch._higher_order_ops.while_loop import while_loop

    def step_back_many(owner: Any, group: Group, carry: Carry, last: Tensor) -> Carry:
        def goes_on(i: Tensor, *_: Tensor) -> Tensor:
            return (i >= 0).all()

        def body(i: Tensor, lam: Tensor, held: Tensor, *totals: Tensor) -> Any:
            ends, *own = (torch.index_select(x, 0, i)[0] for x in (group.ends, *group.outputs))
            known = [settled(torch.index_select(x, 0, i)[0]) for x in (group.ys, group.ks)]
            found = transposed(way, owner, ends, known, Carry(lam, held, totals), own)
            return (i - 1, found.lam, found.held, *found.totals)

        start = (last, carry.lam.clone(), carry.held.clone(), *(total.clone() for total in carry.totals))
        _, lam, held, *totals = while_loop(goes_on, body, start)
        return Carry(lam, held, totals)

    return step_back_many


class CompiledWalk:
    """The walk of one clock, by programs of the queue's owner.

    The parameters are those of the solve's dynamics.
    """

    def __init__(self, solved: Solved, queue: Queue, tape: Tape, outputs: ByPlace):
        self.solved, self.queue, self.tape, self.outputs = solved, queue, tape, outputs
        self.like, self.theta = regular(solved.z0.detach()), solved.dynamics.theta()
        self.programs = Programs.of(queue.owner)
        first = tape.attempt(0)  # all are of one method
        self.way = Way(queue.calls, first.tableau, first.numeric(self.like), count=len(self.theta))
        self.m = first.tableau.n_stages - 1

    def run(self) -> tuple[Tensor, list[Tensor]] | None:
        """(dL/dz at the start without the cotangent of the output there, θ's gradients); None where the
        programs could not be compiled, or an output needs stages of its own (dop853)."""
        if (self.outputs.within and self.way.tableau.c_dense) or not self._same_parameters():
            return None
        lam, held = (torch.zeros_like(self.like) for _ in range(2))
        carry = Carry(lam, held, [torch.zeros_like(p) for p in self.theta])
        size, in_graph = self.queue.sync_every, loops_in_graph(self.like)
        for end in range(len(self.tape.places), 0, -size):
            group = range(max(end - size, 0), end)
            if size > 1 and (in_graph or len(group) == size):
                found = self._together(group, carry, in_graph)
            else:
                found = self._each(group, carry)
            if found is None:
                return None
            carry = found
        found = self._close(carry)
        return None if found is None else (self.outputs.at_end(-1, found.lam), list(found.totals))

    def _same_parameters(self) -> bool:
        """Whether those of a module that require gradients are still those of the forward solve."""
        if not isinstance(self.queue.calls, ModuleCalls):
            return True
        now = [id(p) for p in self.queue.owner.parameters() if p.requires_grad]
        return now == [id(p) for p in self.theta]

    def _run(self, name: tuple[Any, ...], make: Any, way: Way, *arguments: Any) -> Any:
        """A program's result; None where it could not be compiled."""
        key = (name[0], way.key, *name[1:], signature(self.like))
        return self.programs.run(key, functools.partial(make, way), self.queue.owner, *arguments)

    def _close(self, carry: Carry) -> Carry | None:
        """Through the very first stage; and whether func gives the same value there as it did."""
        first = self.tape.attempt(0)
        t0 = torch.full((1,), first.ends[0], dtype=torch.float64, device=self.like.device)
        k0 = torch.zeros_like(self.like) if first.saved is not None else self.tape.states[0][1]
        found = self._run(("close",), close, self.way, t0, self.like, k0, carry)
        if found is None:
            return None
        self.solved.stats.nfe_recomputed += 1
        self.solved.stats.nfe_backward += 1
        if first.saved is None:
            refuse_unlike(float(found[1]), self.like.dtype, self.solved.complain)  # host read
        return cast("Carry", found[0])

    def _each(self, group: range, carry: Carry) -> Carry | None:
        """The steps of a group, from the last, each in one call."""
        found: Carry | None = carry
        for n in reversed(group):
            found = None if found is None else self._alone(n, found)
        return found

    def _alone(self, n: int, carry: Carry) -> Carry | None:
        """Step n in one call."""
        step, stats = self.tape.attempt(n), self.solved.stats
        carry = carry._replace(lam=self.outputs.at_end(n, carry.lam))
        inside = self.outputs.sums(n, step)[:2] if n in self.outputs.within else ()
        way = dataclasses.replace(self.way, outputs=bool(inside))
        if isinstance(step.saved, KeptStages):
            way = dataclasses.replace(way, recipe=step.saved.recipe)
            known: tuple[Any, ...] = (step.saved.times, step.saved.states, step.saved.lean)
        elif n not in self.tape.states:  # the attempt could not be compiled, and has kept its stages itself
            return None
        else:
            known = self.tape.states[n]
            stats.nfe_recomputed += self.m
        found = self._run(("back",), single, way, sent(step.ends, self.like.device), known, carry, inside)
        stats.nfe_backward += 0 if found is None else self.m
        return cast("Carry | None", found)

    def _together(self, group: range, carry: Carry, in_graph: bool) -> Carry | None:
        """A group of up to sync_every steps in one call."""
        size, stats = self.queue.sync_every, self.solved.stats
        if any(n not in self.tape.states for n in group):  # an attempt that could not be compiled
            return None
        carry = carry._replace(lam=self.outputs.at_end(group[-1], carry.lam))
        steps = [self.tape.attempt(n) for n in group]
        steps += [steps[-1]] * (size - len(steps))  # one program for groups of every length
        states = [self.tape.states[n] for n in group]  # none has kept its stages
        ys, ks = zip(*states, *[states[-1]] * (size - len(states)), strict=True)
        outputs = self._outputs_of(group)
        whole = Group(
            sent([step.ends for step in steps], self.like.device), torch.stack(ys), torch.stack(ks), outputs
        )
        way = dataclasses.replace(self.way, outputs=bool(outputs))
        last = [torch.tensor([len(group) - 1], dtype=torch.int64, device="cpu")] if in_graph else []
        found = self._run(("loop back", size), loop if in_graph else row, way, whole, carry, *last)
        if found is not None:
            stats.nfe_backward += self.m * len(group)
            stats.nfe_recomputed += self.m * len(group)
        return cast("Carry | None", found)

    def _outputs_of(self, group: range) -> tuple[Tensor, ...]:
        """Those of a `Group`; none where there are none but at the last step's end."""
        outputs, like, size = self.outputs, self.like, self.queue.sync_every
        inside = any(n in outputs.within for n in group)
        if not inside and not any(n in outputs.ending for n in group[:-1]):
            return ()
        k_bar = like.new_zeros((size, self.m + 1, *like.shape))
        y_bar, at_end = (like.new_zeros((size, *like.shape)) for _ in range(2))
        for j, n in enumerate(group):
            if n in outputs.within:
                k_bar[j], y_bar[j], _ = outputs.sums(n, self.tape.attempt(n))
            if n != group[-1]:
                at_end[j] = outputs.at_end(n, at_end[j])
        return k_bar, y_bar, at_end
