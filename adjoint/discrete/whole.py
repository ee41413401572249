"""The discrete walk back over a whole solve as one function of tensors: the same steps as `DiscreteWalk`."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...solvers.device.whole import ACCEPTED, T0, T1, loop
from ...solvers.methods.tableau import polynomial
from ...solvers.step.attempt import settled
from ...solvers.step.clocks import distance, times_between
from .compiled import Carry, Way, added, transposed


class Trail(NamedTuple):
    """What the forward solve left.

    n: [1] attempts.  rows [n, width, …], ys, ks [n, *S]: of each attempt.
    times: [T, lanes].
    states, kept: as in `Memory`.
    """

    n: Tensor
    rows: Tensor
    ys: Tensor
    ks: Tensor
    times: Tensor
    states: Tensor
    kept: tuple[Tensor, ...]


@dataclasses.dataclass(frozen=True)
class Walk:
    """The loop over the steps, from the last: what its functions close over.

    g: [T, *S], the cotangents of the outputs, zeros for those that are none.
    """

    way: Way
    owner: Any
    trail: Trail
    g: Tensor

    def goes_on(self, j: Tensor, *rest: Tensor) -> Tensor:
        """Whether a step is left."""
        return (j >= 0).all()

    def once(self, j: Tensor, place: Tensor, lam: Tensor, held: Tensor, *totals: Tensor) -> Any:
        """Step j, transposed, and the outputs in it."""
        way, trail, clocks = self.way, self.trail, self.way.clocks
        row, y0, k0 = (x.index_select(0, j)[0] for x in (trail.rows, trail.ys, trail.ks))
        fine = row[ACCEPTED] > 0
        ends = torch.stack((row[T0], torch.where(fine, row[T1], row[T0])))
        outputs: Any = ()
        if way.outputs:
            place, at_end, y_bar, *k_bars = self.outputs(ends, fine, place, lam)
            outputs = (torch.stack(k_bars), y_bar, at_end)
        which = None if clocks.everyone(lam) is None else fine  # with one clock all that is kept was accepted
        own = held if which is None else clocks.choose(which, held, torch.zeros_like(held))
        carry = Carry(lam, own, totals)
        known = (settled(y0), settled(k0)) if way.recipe is None else self._known(j, ends)
        found = transposed(way, self.owner, ends, known, carry, outputs)
        back = (clocks.choose(which, x, old) for x, old in ((found.lam, lam), (found.held, held)))
        return (j - 1, place.clone(), *back, *found.totals)

    def _known(self, j: Tensor, ends: Tensor) -> tuple[Any, ...]:
        """The stages after the first of step j: their times, their states, what each kept."""
        way, trail, m = self.way, self.trail, self.way.tableau.n_stages - 1
        own = m * j + torch.arange(m, dtype=torch.int64, device=j.device)
        states, *kept = (x.index_select(0, own).unbind() for x in (trail.states, *trail.kept))
        t0, t1 = ends.unbind()
        times = [way.clocks.time(t, states[0]) for t in times_between(t0, t1, way.numeric.c)][1:]
        return times, states, list(zip(*kept, strict=True)) if kept else [()] * m

    def outputs(self, ends: Tensor, fine: Tensor, place: Tensor, like: Tensor) -> tuple[Tensor, ...]:
        """Places left before the step, and what outputs in it add to λ, to dL/dy and to each k̄_i; an output
        of each clock a turn."""
        clocks, numeric, times, g = self.way.clocks, self.way.numeric, self.trail.times, self.g
        t0, t1 = (x.reshape(-1).clone() for x in ends.unbind())
        fine = fine.reshape(-1).clone()
        direction = torch.sign(t1 - t0)

        def due(place: Tensor) -> tuple[Tensor, Tensor]:
            t = times.gather(0, place[None])[0]
            return t, fine & (place > 0) & ((t - t0) * direction > 0)

        def once(place: Tensor, at_end: Tensor, y_bar: Tensor, *k_bars: Tensor) -> Any:
            t, now = due(place)
            ended, shape = now & (t == t1), clocks.shape(g[0])
            theta = torch.where(now & ~ended, (t - t0) / (t1 - t0), 0.0).reshape(shape)
            own = clocks.pick(g, place)
            end = clocks.choose(ended.reshape(shape), own, torch.zeros_like(own))
            inside = clocks.choose((now & ~ended).reshape(shape), own, torch.zeros_like(own))
            dt = clocks.spread((t1 - t0).reshape(shape)).to(own.dtype)
            found = []
            for row, k_bar in zip(numeric.dense_rows, k_bars, strict=True):
                found.append(k_bar + inside * (clocks.spread(polynomial(row, theta)).to(own.dtype) * dt))
            return (torch.where(now, place - 1, place), at_end + end, y_bar + inside, *found)

        nought = tuple(torch.zeros_like(like) for _ in range(2 + len(numeric.dense_rows)))
        return loop(lambda place, *_: due(place)[1].any(), once, (place, *nought))


def walk_program(way: Way) -> Any:
    """(owner, trail, g, start) → [dL/dz before the steps, how far f there is from what it was (relative),
    place, λ, held, the sums of θ's gradients with what comes through the first stage …, and without it …]

    start: (place, λ, held, sums): what has come back from the steps after these.
    way.outputs: whether outputs lie before the end.
    """

    def walk_whole(owner: Any, trail: Trail, g: Tensor, start: Any) -> list[Tensor]:
        clocks, walk, (place, lam, held, totals) = way.clocks, Walk(way, owner, trail, g), start
        _, place, lam, held, *totals = loop(walk.goes_on, walk.once, (trail.n - 1, place, lam, held, *totals))

        def closing(new: Tensor, begun: Tensor, off: Tensor, *sums: Tensor) -> Any:
            t0, y0, k0 = trail.rows[0, T0], trail.ys[0], trail.ks[0]
            k, saved = way.calls.linearise(owner, clocks.time(t0, y0), y0)
            bar, delta = way.calls.vjp(owner, saved, held)
            gradients = way.calls.gradients(owner, [saved], [delta])
            return (torch.zeros_like(new), begun + bar, distance(k, k0), *added(sums, gradients))

        # A loop of one turn, so that func is traced in one way alone.
        given = (torch.ones_like(trail.n, dtype=torch.bool), lam, lam.new_zeros(()), *totals)
        _, begun, off, *closed = loop(lambda new, *_: new.all(), closing, given)
        if way.outputs and clocks.shape(begun):  # those of a sample that ends where it begins lie in no step
            number = torch.arange(len(g), dtype=torch.int64, device=g.device)[:, None]
            left = ((number > 0) & (number <= place)).to(g.dtype)
            begun = begun + (g * clocks.spread(left)).sum(0)
        return [begun, off, place, lam, held, *closed, *totals]

    return walk_whole
