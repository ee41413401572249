"""The reverse solve between two observations as one function of tensors, its loop in the graph: the same
steps as `ReverseSolve` takes with `Rebuilt` or `Interpolated`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...solvers.device.programs import STATUS, Bounds, Row, attempt_row, row_of
from ...solvers.device.whole import ACCEPTED, DT, T0, T1, loop
from ...solvers.methods.tableau import Numeric, polynomial
from ...solvers.step.attempt import (
    RUNNING,
    SUCCESS,
    Limits,
    Rules,
    clock_at,
    first_step,
    least_of_span,
    settling,
)
from ...solvers.step.clocks import Tolerance, distance
from ...solvers.step.runge_kutta import Field, StageList, with_strides
from ..discrete.compiled import added
from ..dynamics.traced import Calls, Gradients
from .carrier import Augmented
from .stepping import seminorm

N_ACCEPTED, N_REJECTED = Row._fields.index("n_accepted"), Row._fields.index("n_rejected")


class Past(NamedTuple):
    """The steps of the forward solve, in order.

    n: [1] how many.  rows [n, width], ys [n, *S], stages [n, s, *S]: of each; there may be room for more.
    """

    n: Tensor
    rows: Tensor
    ys: Tensor
    stages: Tensor


class Leg(NamedTuple):
    """What the way back from one observation to the one before is asked.

    ends: [2] float64, its start and end.  dt0: |dt| to begin with, 0-d float64 (NaN: Hairer's estimate).
    rtol, atol: of the reverse solve, loose: the looser of both solves' ones, [rtol, atol]; in the state's
        dtype.
    most: [1], attempts at most.
    pair: [2, *S], state and adjoint at the start.
    k: f there as the forward solve had it.  stored: the state at the end.
    totals: the sums of θ's gradients.
    past: where the state is looked up and not rebuilt, else ().
    """

    ends: Tensor
    dt0: Tensor
    rtol: Tensor
    atol: Tensor
    loose: list[Tensor]
    most: Tensor
    pair: Tensor
    k: Tensor
    stored: Tensor
    totals: list[Tensor]
    past: Past | tuple[()] = ()


class Told(NamedTuple):
    """What it tells the host, as a float64 vector.

    arrived: 0 or 1.  n_accepted, n_rejected: attempts.
    dt: |dt| that would be tried next.
    off: how far the rebuilt state is from the stored one, in tolerances.
    unlike: how far f at the start is from what it was, relative.
    """

    arrived: float
    n_accepted: float
    n_rejected: float
    dt: float
    off: float
    unlike: float


def _filled(gradients: Gradients, like: Sequence[Tensor]) -> list[Tensor]:
    """θ's gradients, zeros for those that are none."""
    pairs = zip(gradients, like, strict=True)
    return [torch.zeros_like(x) if g is None else g.reshape(x.shape) for g, x in pairs]


def _chosen(which: Tensor, new: Sequence[Tensor], old: Sequence[Tensor]) -> list[Tensor]:
    """The new tensors where the flag is set, else the old ones, of whose dtype and strides they are."""
    pairs = zip(new, old, strict=True)
    return [with_strides(torch.where(which, x.to(old.dtype), old), old.stride()) for x, old in pairs]


@dataclasses.dataclass(frozen=True)
class Attempts:
    """The loop over the attempts of one leg: what its two functions close over.

    rules: of a pair.  field: of (t, pair).
    """

    rules: Rules
    calls: Calls
    owner: Any
    field: Field
    bounds: Bounds
    leg: Leg

    def goes_on(self, row: Tensor, *rest: Tensor) -> Tensor:
        """Whether the end is not reached, and an attempt is left."""
        made = row[N_ACCEPTED] + row[N_REJECTED]
        return ((row[STATUS] == RUNNING) & (made < self.leg.most)).all()

    def once(self, row: Tensor, pair: Tensor, k: Tensor, *sums: Tensor) -> Any:
        """One attempt; one that is accepted adds its share to θ's gradients.

        sums: θ's gradients of the first stage, which the attempt before evaluated, and their sums.
        """
        half = len(sums) // 2
        firsts, totals = list(sums[:half]), list(sums[half:])
        make = functools.partial(StageList, self.rules.numeric)
        made = attempt_row(self.rules, self.field, self.bounds, (row, pair, k), make)
        accepted, dt = made.row[ACCEPTED] > 0, (made.row[T1] - made.row[T0]).to(pair.dtype)
        saved = made.tried.result.saved
        numeric = self.rules.numeric
        weights = dict(zip(numeric.b_index, (numeric.b_nonzero * -dt).unbind(), strict=True))
        first_weight = weights.pop(0, None)
        gradients = self._gradients([saved[i] for i in weights], torch.stack(list(weights.values())))
        new = added(totals, gradients)
        if first_weight is not None:
            new = [total + first_weight * own for total, own in zip(new, firsts, strict=True)]
            firsts = _chosen(accepted, _filled(self._gradients([saved[-1]], None), totals), firsts)
        return (made.row, made.y, made.k, *(x.clone() for x in firsts), *_chosen(accepted, new, totals))

    def _gradients(self, stages: Sequence[Any], weights: Tensor | None) -> Gradients:
        return self.calls.gradients(self.owner, [s for s, _ in stages], [d for _, d in stages], weights)


def _lookup(past: Past, numeric: Numeric) -> Callable[[Tensor], Tensor]:
    """The forward solution as a function of time. numeric: of the forward solve."""
    direction = torch.sign(past.rows[0, T1] - past.rows[0, T0])
    number = torch.arange(len(past.rows), dtype=torch.int64, device=past.rows.device)
    ends = torch.where(number < past.n, direction * past.rows[:, T1], torch.inf)

    def value(time: Tensor) -> Tensor:
        t = time.double()
        at = torch.searchsorted(ends, (torch.sign(past.rows[0, T1] - past.rows[0, T0]) * t).reshape(1))
        at = torch.minimum(at, past.n - 1)
        row, y0, stages = (x.index_select(0, at)[0] for x in (past.rows, past.ys, past.stages))
        span = row[T1] - row[T0]
        theta = (t - row[T0]) / span
        weights = [polynomial(own, theta).to(y0.dtype) for own in numeric.dense_rows]
        first, *others = (w * k for w, k in zip(weights, stages.unbind(), strict=True))
        return y0 + span.to(y0.dtype) * sum(others, first)

    return value


def leg_program(rules: Rules, calls: Calls, forward: Numeric | None = None) -> Any:
    """(owner, leg) → [`Told`, the pair at the end, the sums of θ's gradients …]

    rules: of a reverse solve, their norm that of a state.
    forward: the numbers of the forward solve, where its steps are looked up.
    """
    pairs = dataclasses.replace(rules, norm=seminorm(rules.norm))

    def leg_whole(owner: Any, leg: Leg) -> list[Tensor]:
        past = None if forward is None else _lookup(Past(*leg.past), forward)
        field = functools.partial(Augmented(calls, past).evaluate, owner)
        t0, end = leg.ends.unbind()
        direction = torch.where(end < t0, -1.0, torch.ones_like(t0))
        # In memory of its own: of what a loop captures, a view is freed twice.
        span = torch.stack((end, direction, least_of_span((end - t0).abs()), t0))
        bounds = Bounds(torch.stack((end, direction, span[2])), leg.rtol, leg.atol)
        # At the start the state is the observation itself.
        k, saved = Augmented(calls).evaluate(owner, rules.clocks.time(t0, leg.pair), leg.pair)
        firsts = _filled(calls.gradients(owner, [saved[0]], [saved[1]]), leg.totals)

        def estimate(new: Tensor, dt: Tensor) -> Any:
            end, direction, least, t0 = span.unbind()
            tolerance = Tolerance(leg.rtol, leg.atol)
            here = (t0, leg.pair, k)
            dt = first_step(pairs, field, Limits(end, end, direction, least), tolerance, here)
            return torch.zeros_like(new), dt

        dt = leg.dt0
        if forward is None:
            dt = loop(lambda new, dt: new.all(), estimate, (dt.isnan(), dt))[1]
        row = row_of(clock_at(t0, dt.clamp(max=rules.controller.dt_max)))
        attempts = Attempts(pairs, calls, owner, settling(field), bounds, leg)
        state = (row, leg.pair, k, *firsts, *leg.totals)
        row, pair, _, *sums = loop(attempts.goes_on, attempts.once, state)
        rtol, atol = leg.loose
        scale = Tolerance(rtol, atol).scale(leg.stored)
        off = rules.norm((pair[0] - leg.stored) / scale)
        arrived = row[STATUS] == SUCCESS
        numbers = (arrived, row[N_ACCEPTED], row[N_REJECTED], row[DT], off, distance(k[0], leg.k))
        return [torch.stack([x.double() for x in numbers]), pair, *sums[len(sums) // 2 :]]

    return leg_whole
