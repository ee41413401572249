"""One attempt of every clock, decided in tensors: how long, whether accepted, how long the next.

`march.host` decides the same on Python floats, for one clock that the host looks at after every attempt.
Here nothing is read: attempts can be queued one after another, one that follows a finish changes nothing,
and all of it is a pure function of tensors, which `device.programs` can compile. A test holds the two
alike, attempt by attempt.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..methods.tableau import Numeric, Tableau
from ..status import Status
from .clocks import Clocks, Norm, Tolerance, error_ratio, times_between
from .controller import PID, SLIVER, UNKNOWN, UNSOLVED
from .runge_kutta import Field, Stages, StepResult, rk_step
from .taker import Taker

# As numbers: torch.compile takes a tensor for unequal to any member of an enumeration.
RUNNING, SUCCESS, MAX_STEPS, UNDERFLOW, NON_FINITE, NEWTON = (
    int(Status[name])
    for name in ("RUNNING", "SUCCESS", "MAX_STEPS", "STEP_UNDERFLOW", "NON_FINITE", "NEWTON")
)
FIXED_SLIVER = 1e-9  # a fixed step is what it is, but for the rounding of its end

MakeStages = Callable[[Tensor], Stages]  # of the signed dt, as it meets the state


@dataclasses.dataclass(frozen=True)
class Rules:
    """What decides an attempt besides tensors.

    numeric: the tableau's numbers in the state's dtype.
    norm: state → a number a clock.
    max_steps: attempts of a clock; None: the host counts.
    fixed: |dt| is given, no error is estimated.
    fresh_first: the first stage is evaluated anew, since what it saves is wanted with the others'.
    taker: takes the steps, where they are not those of `rk_step`.
    """

    tableau: Tableau
    numeric: Numeric
    norm: Norm
    controller: PID
    clocks: Clocks
    max_steps: int | None = None
    fixed: bool = False
    fresh_first: bool = False
    taker: Taker | None = None


class Clock(NamedTuple):
    """What a march carries from attempt to attempt, of each clock: 0-d, or [b].

    t, dt: time and |dt| to try next, float64.
    e1, e2: error ratios of the last two accepted steps, or UNKNOWN.
    after_rejection: the last attempt was rejected.
    non_finite: … for a stage that is not finite.
    unsolved: … for an implicit step's equations.
    status: of `Status`, int8.
    n_accepted, n_rejected, n_unsolved: attempts, int64; the last are among the rejected.
    """

    t: Tensor
    dt: Tensor
    e1: Tensor
    e2: Tensor
    after_rejection: Tensor
    non_finite: Tensor
    unsolved: Tensor
    status: Tensor
    n_accepted: Tensor
    n_rejected: Tensor
    n_unsolved: Tensor

    @property
    def running(self) -> Tensor:
        """Which clocks go on."""
        return self.status == RUNNING

    def marked(self, which: Tensor, status: int | Tensor) -> Clock:
        """With a status for the clocks in `which`."""
        return self._replace(status=torch.where(which, status, self.status).to(torch.int8))


def clock_at(t: Tensor, dt: Tensor) -> Clock:
    """A clock at its start."""
    ratio, no = torch.full_like(t, UNKNOWN), torch.zeros_like(t, dtype=torch.bool)
    status = torch.full_like(t, RUNNING, dtype=torch.int8)
    count = torch.zeros_like(t, dtype=torch.int64)
    # Each a tensor of its own: a compiled program is made anew where two of its arguments are one.
    counts = (count, count.clone(), count.clone())
    return Clock(t, dt, ratio, ratio.clone(), no, no.clone(), no.clone(), status, *counts)


class Limits(NamedTuple):
    """Of each clock, float64: the time that the next step must end on at the latest, the end of the solve,
    the direction of time (±1), the least step that the span of the solve allows."""

    stop: Tensor
    end: Tensor
    direction: Tensor
    least: Tensor


class Here(NamedTuple):
    """Where a march stands: its clocks, the state y, and k = f(t, y)."""

    clock: Clock
    y: Tensor
    k: Tensor


class Proposal(NamedTuple):
    """What is to be tried: |dt|, the end t1 of the step, and which clocks try it (go), have no step left
    (short), and end on their stop (cut); shortest: the least |dt| that is a step; span: t1 − t."""

    dt: Tensor
    t1: Tensor
    go: Tensor
    short: Tensor
    cut: Tensor
    shortest: Tensor
    span: Tensor


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One attempt, from (t0, y0) to t1.

    first: the first stage, f(t0, y0).
    dt: signed, broadcasts against the state.
    times: of the stages.
    tried, accepted, finite, cut: which clocks; unsolved: whose implicit equations were not solved.
    error_ratio: ≤ 1 is accepted; NaN with fixed steps.
    asked: |dt| before it.
    """

    t0: Tensor
    t1: Tensor
    y0: Tensor
    first: Tensor
    dt: Tensor
    times: list[Tensor]
    result: StepResult
    error_ratio: Tensor
    finite: Tensor
    accepted: Tensor
    tried: Tensor
    cut: Tensor
    asked: Tensor
    unsolved: Tensor


def attempt(
    rules: Rules,
    field: Field,
    limits: Limits,
    tolerance: Tolerance,
    here: Here,
    make_stages: MakeStages,
    times_of: Callable[[Clock, Proposal], list[Tensor]] | None = None,
) -> tuple[Attempt, Here]:
    """One attempt of every clock that is under way, and where the march stands after it.

    field: (t, z) → (dz, saved).
    times_of: when the stages are evaluated, if not at t + c_i dt.
    """
    clock, y, k = here
    clocks, tableau = rules.clocks, rules.tableau
    proposal = proposed(rules, limits, clock)
    t, t1, go = clock.t, proposal.t1, proposal.go
    times = stage_times(rules, t, t1, y) if times_of is None else times_of(clock, proposal)
    dt = settled(clocks.spread(proposal.span).to(y.dtype))
    stages = make_stages(dt)
    first = field(times[0], y) if rules.fresh_first else (k, None)
    if rules.taker is None:
        result = rk_step(field, y, first, times, tableau, stages)
    else:
        result = rules.taker(field, y, first, times, stages)
    ratio, finite = judged(rules, tolerance, y, result, t.dtype)
    unsolved = torch.zeros_like(finite) if result.solved is None else clocks.agreed_any(result.solved.failed)
    after, fine = decided(rules, limits, clock, proposal, Judged(ratio, finite, unsolved))
    last = stages.get(tableau.n_stages - 1)
    then = Here(after, clocks.choose(fine, result.y1, y), clocks.choose(fine, last, k))
    cut = proposal.cut & go
    unsolved = go & unsolved
    return Attempt(t, t1, y, k, dt, times, result, ratio, finite, fine, go, cut, clock.dt, unsolved), then


def proposed(rules: Rules, limits: Limits, clock: Clock) -> Proposal:
    """How far each clock tries to go."""
    t, dt, controller = clock.t, clock.dt, rules.controller
    left = (limits.stop - t).abs()
    reach = 1.0 + (FIXED_SLIVER if rules.fixed else SLIVER)
    under_way = clock.status == RUNNING
    shortest, cut = shortest_step(t, limits.least), left <= reach * dt
    least = shortest.clamp(min=controller.dt_min) if controller.dt_min > 0 else shortest
    short = under_way & ~cut & ~(dt >= least)  # so that a dt of NaN ends here
    if controller.force_dt_min and controller.dt_min > 0:
        raised = short & ~clock.non_finite
        dt, short = torch.where(raised, controller.dt_min, dt), short & ~raised
        cut = left <= reach * dt
    go, length = under_way & ~short, dt
    if not rules.fixed:
        length, cut = controller.to_stop(left, dt, least, clock.e1, clock.after_rejection)
    t1 = torch.where(go, torch.where(cut, limits.stop, t + limits.direction * length), t)
    t1 = settled(t1)
    return Proposal(dt, t1, go, short, cut, shortest, t1 - t)


def stage_times(rules: Rules, t0: Tensor, t1: Tensor, like: Tensor) -> list[Tensor]:
    """When the stages are evaluated, as f wants it: t0 + c_i (t1 − t0), exactly t1 where c_i = 1."""
    return [rules.clocks.time(t, like) for t in times_between(t0, t1, rules.numeric.c)]


def judged(
    rules: Rules, tolerance: Tolerance, y: Tensor, result: StepResult, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Error ratios, and whether all stages and y1 are finite."""
    with torch.no_grad():
        # 0 · x is NaN where x is not finite: a sum of them cannot overflow as the sum of x could.
        finite = rules.clocks.agreed(~rules.clocks.total(result.nought()).isnan())
        if rules.fixed:
            return torch.full_like(finite, torch.nan, dtype=dtype), finite
        ratio = error_ratio(result.errors(), y, result.y1, tolerance, rules.norm, result.apart)
        return ratio.to(dtype).detach(), finite  # no_grad does not stop forward-mode AD


class Judged(NamedTuple):
    """Error ratios; whether all stages and y1 are finite; whether an implicit step's equations were not
    solved."""

    ratio: Tensor
    finite: Tensor
    unsolved: Tensor


def decided(
    rules: Rules, limits: Limits, clock: Clock, proposal: Proposal, found: Judged
) -> tuple[Clock, Tensor]:
    """The clock after an attempt (how long the next is, how the solve ends), and which were accepted."""
    controller, (dt, t1, go, short, _, shortest, span) = rules.controller, proposal
    ratio, finite, unsolved = found
    taken = span.abs()
    fits = ratio <= 1.0
    if rules.fixed:
        fits = torch.ones_like(finite)
    elif controller.force_dt_min:  # t + dt_min is rounded, and the step before a stop may be longer
        fits = fits | (taken <= (1.0 + SLIVER) * controller.dt_min)
    fine = go & finite & fits & ~unsolved
    refused = go & ~fine
    open_, bad = refused & unsolved, refused & ~finite & ~unsolved
    e1, e2, stuck = clock.e1, clock.e2, refused  # a fixed step cannot be shortened
    if not rules.fixed:
        numbers = (taken, dt, ratio, e1, e2)
        dt, e1, e2 = next_steps(rules, numbers, clock.after_rejection, (fine, refused, bad, open_))
        stuck = refused & (taken < shortest)
    n_accepted, n_rejected = clock.n_accepted + fine, clock.n_rejected + refused
    n_unsolved = clock.n_unsolved + open_
    reason = torch.where(bad | (short & clock.non_finite), NON_FINITE, UNDERFLOW)
    reason = torch.where(open_ | (short & clock.unsolved), NEWTON, reason)
    status = torch.where(short | stuck, reason, clock.status)
    done = status
    if rules.max_steps is not None:
        done = torch.where(n_accepted + n_rejected >= rules.max_steps, MAX_STEPS, done)
    done = torch.where(fine & (t1 == limits.end), SUCCESS, done)
    status = torch.where(status == RUNNING, done, status).to(torch.int8)
    t = torch.where(fine, t1, clock.t)
    # A clock that made no attempt has ended, and nothing follows from its last one any more.
    return Clock(t, dt, e1, e2, refused, bad, open_, status, n_accepted, n_rejected, n_unsolved), fine


def next_steps(
    rules: Rules,
    numbers: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    after_rejection: Tensor,
    flags: tuple[Tensor, Tensor, Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """(|dt| to try next, e1, e2) of each clock; those that made no attempt keep theirs.

    numbers: |t1 − t0|, the |dt| that was to be tried, error ratio, e1, e2 (of the accepted steps before).
    flags: accepted, rejected, rejected for what is not finite, for implicit equations.
    """
    (taken, dt, ratio, e1, e2), (accepted, rejected, bad, unsolved) = numbers, flags
    controller, order = rules.controller, rules.tableau.error_order
    grown = taken * controller.factor_accepted(ratio, e1, e2, order, after_rejection)
    cut_short = taken < (1.0 - SLIVER) * dt  # to hit a stop: its error says little
    longer = torch.where(cut_short, torch.maximum(grown, dt), grown).clamp(max=controller.dt_max)
    shrunk = taken * controller.factor_rejected(torch.where(bad, torch.nan, ratio), order)
    if rules.taker is not None:
        shrunk = torch.where(unsolved, UNSOLVED * taken, shrunk)
    learns = accepted & ~cut_short
    after = torch.where(accepted, longer, torch.where(rejected, shrunk, dt))
    return (
        rules.clocks.led(after, accepted, rejected),
        torch.where(learns, ratio, e1),
        torch.where(learns, e1, e2),
    )


def shortest_step(t: Tensor, least: Tensor) -> Tensor:
    """The least |dt| that is still a step at t: ten times the spacing of floats there, to within a factor
    of two, or what the span of the solve allows."""
    return torch.maximum(10.0 * 2.0**-52 * t.abs(), least)


def least_of_span(span: Tensor) -> Tensor:
    """The least step of a solve over a span: a step of 1e-20 of it gets nowhere (of a unit of time, where
    it is longer: steps may grow tenfold each)."""
    return 1e-20 * span.clamp(max=1.0)


def settled(x: Tensor) -> Tensor:
    """x, as a tensor that a compiled graph writes to memory once.

    A compiler of graphs writes the expression of an unwritten tensor out again wherever it is used; over
    the stages of a step these expressions grow without bound. What is seen through strides is written.
    """
    return torch.as_strided(x, x.shape, x.stride())


def settling(field: Field) -> Field:
    """The field with its arguments and its value settled, for programs."""

    def evaluate(t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        k, saved = field(t, settled(z))
        return settled(k), saved

    return evaluate


# Of that text: sizes below SMALL count as none, and then TINY is tried; a hundredth of the scale is the
# change that a first step aims at; FLAT is a slope of none.
SMALL, TINY, AIM, FLAT = 1e-5, 1e-6, 0.01, 1e-15


def first_step(
    rules: Rules,
    field: Field,
    limits: Limits,
    tolerance: Tolerance,
    here: tuple[Tensor, Tensor, Tensor],
    seen_at: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """|dt| of each clock to begin with, from f(t0, y0) and one probe; no host read.

    here: (t0, y0, f(t0, y0)).
    seen_at: times as f wants them, where f jumps at some. f is not evaluated past the end, and the probe runs
        under the caller's grad mode: func may differentiate inside.
    """
    clocks, (t, y, k) = rules.clocks, here
    end, direction = limits.end, limits.direction

    y, k = y.detach(), k.detach()  # the step is a constant, of forward-mode AD too
    with torch.no_grad():
        scale = tolerance.scale(y).double()

        def size(x: Tensor) -> Tensor:
            """In float64: a quotient of 1e20 must not overflow when squared."""
            return settled(rules.norm(x.double() / scale).double())

        span = (end - t).abs()
        d0, d1 = size(y), size(k)
        h0 = torch.where((d0 < SMALL) | (d1 < SMALL), TINY, AIM * d0 / d1)
        h0 = settled(torch.minimum(torch.where(torch.isfinite(h0), h0, TINY), span))
        ahead = t + direction * h0
        probe = settled(torch.where((ahead - end) * direction >= 0, end, ahead))
        z = settled(y + clocks.spread(probe - t).to(y.dtype) * k)
    time = clocks.time(probe, y) if seen_at is None else seen_at(probe)
    k1 = field(time, z)[0].detach()
    with torch.no_grad():
        steepest = torch.maximum(d1, size(k1 - k) / h0)
        shape = (AIM / steepest) ** (1.0 / rules.tableau.error_order)
        h1 = torch.where(steepest <= FLAT, (h0 * 1e-3).clamp(min=TINY), shape)
        h = torch.minimum(100.0 * h0, h1)
        # A probe that left the domain (NaN) says nothing: begin with h0, rejections do the rest.
        h = torch.where(torch.isfinite(h) & (h > 0), h, h0)
        h = torch.where(h > 0, torch.minimum(h, span), TINY * span.clamp(max=1.0))
        return clocks.led(h)
