"""One attempt of every sample as a pure function of tensors, where only the end of the solve is wanted.

The same decisions as `batched.SampleSolve`'s, without what outputs inside steps, adjoints, events and
discontinuities need: half the operations, and nothing that a program of `torch.compile` could not hold.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..methods.tableau import Numeric, Tableau
from ..status import Status
from ..step.attempt import settled, spacing
from ..step.clocks import Each
from ..step.controller import PID
from ..step.norms import Tolerance, error_ratio
from ..step.runge_kutta import Field, StageBuffer, StageList, rk_step

# As numbers: torch.compile takes a tensor for unequal to any member of an enumeration.
_RUNNING, _SUCCESS, _MAX_STEPS, _UNDERFLOW, _NON_FINITE = (
    int(s)
    for s in (
        Status.RUNNING,
        Status.SUCCESS,
        Status.MAX_STEPS,
        Status.STEP_UNDERFLOW,
        Status.NON_FINITE,
    )
)


@dataclasses.dataclass(frozen=True)
class SampleRules:
    """What decides an attempt besides tensors. norm: the name of one of `Each`'."""

    tableau: Tableau
    numeric: Numeric
    controller: PID
    clocks: Each
    norm: str
    max_steps: int


class SampleClock(NamedTuple):
    """Of each sample, [b]: time, |dt| to try next, error ratios of the last two accepted steps, whether the
    last attempt was rejected and whether for a stage that is not finite, status, counts."""

    t: Tensor
    dt: Tensor
    e1: Tensor
    e2: Tensor
    after_rejection: Tensor
    non_finite: Tensor
    status: Tensor
    n_accepted: Tensor
    n_rejected: Tensor


STATUS = SampleClock._fields.index("status")


class SampleEnds(NamedTuple):
    """Of each sample, [b], float64: end, direction (±1), the least step that its span allows."""

    end: Tensor
    direction: Tensor
    least: Tensor


def attempt_samples(
    rules: SampleRules,
    field: Field,
    ends: SampleEnds,
    tolerance: Tolerance,
    clock: SampleClock,
    y: Tensor,
    k: Tensor,
    make_stages: Callable[[Tensor], StageBuffer | StageList],
) -> tuple[SampleClock, Tensor, Tensor]:
    """The clock, y and f(t, y) after one attempt of every sample that is under way, from (t, y), f(t, y) = k.

    make_stages: of a step with the signed dt, which broadcasts against the state.
    """
    t, dt, e1, e2, after, non_finite, status, n_accepted, n_rejected = clock
    clocks, controller = rules.clocks, rules.controller
    shortest = torch.maximum(spacing(t), ends.least)
    cut = (ends.end - t).abs() <= 1.001 * dt  # a thousandth longer, rather than leave a sliver
    under_way = status == _RUNNING
    short = under_way & ~cut & ~(dt >= shortest.clamp(min=controller.dt_min))
    go = under_way & ~short
    t1 = settled(torch.where(go, torch.where(cut, ends.end, t + ends.direction * dt), t))
    span = t1 - t
    stages = make_stages(settled(clocks.spread(span).to(y.dtype)))
    times = _times(rules, t, t1, span, y)
    y1 = rk_step(field, y, (k, None), times, rules.tableau, stages).y1
    ratio, finite = _judge(rules, stages, y, y1, tolerance, t.dtype)
    fine = go & finite & (ratio <= 1.0)
    refused = go & ~fine
    bad = refused & ~finite
    taken = span.abs()
    dt, e1, e2 = next_sizes(
        controller, rules.tableau.error_order, (taken, dt, ratio, e1, e2), after, (fine, refused, bad)
    )
    n_accepted, n_rejected = n_accepted + fine, n_rejected + refused
    reason = torch.where(bad | (short & non_finite), _NON_FINITE, _UNDERFLOW)
    status = torch.where(short | (refused & (taken < shortest)), reason, status)
    done = torch.where(n_accepted + n_rejected >= rules.max_steps, _MAX_STEPS, status)
    done = torch.where(fine & (t1 == ends.end), _SUCCESS, done)
    status = torch.where(status == _RUNNING, done, status).to(torch.int8)
    move = clocks.spread(fine)
    last = stages.get(rules.tableau.n_stages - 1)
    after_it = SampleClock(torch.where(fine, t1, t), dt, e1, e2, refused, bad, status, n_accepted, n_rejected)
    return after_it, torch.where(move, y1, y), torch.where(move, last, k)


def _times(rules: SampleRules, t: Tensor, t1: Tensor, span: Tensor, y: Tensor) -> list[Tensor]:
    """When the stages are evaluated, as f wants it; exactly t1 where c_i = 1."""
    return [rules.clocks.time(t1 if c == 1.0 else t + c * span, y) for c in rules.numeric.c]


def _judge(
    rules: SampleRules,
    stages: StageBuffer | StageList,
    y: Tensor,
    y1: Tensor,
    tolerance: Tolerance,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """[b] error ratios, and whether all stages and y1 are finite."""
    clocks = rules.clocks
    ratio = error_ratio(stages.errors(), y, y1, tolerance, getattr(clocks, rules.norm))
    return ratio.to(dtype), finite_samples(clocks, stages, y1)


def finite_samples(clocks: Each, stages: StageBuffer | StageList, y1: Tensor) -> Tensor:
    """[b]: whether all stages and y1 are finite."""
    # 0 · x is NaN where x is not finite: a sum of them cannot overflow as the sum of x could.
    return ~clocks.per_sample(stages.nought() + y1 * 0.0).sum(1).isnan()


def next_sizes(
    controller: PID,
    order: int,
    numbers: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    after_rejection: Tensor,
    flags: tuple[Tensor, Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """(|dt| to try next, e1, e2) of each sample after an attempt; those that made none keep theirs.

    numbers: |t1 − t0|, the |dt| that was to be tried, error ratio, e1, e2 (of the accepted steps before).
    flags: accepted, rejected, rejected for what is not finite.
    """
    (taken, dt, ratio, e1, e2), (accepted, rejected, bad) = numbers, flags
    grown = taken * controller.factors_accepted(ratio, e1, e2, order, after_rejection)
    cut_short = taken < 0.999 * dt  # to hit a stop: its error says little
    longer = torch.where(cut_short, torch.maximum(grown, dt), grown).clamp(max=controller.dt_max)
    shrunk = taken * controller.factors_rejected(torch.where(bad, torch.nan, ratio), order)
    learns = accepted & ~cut_short
    after = torch.where(accepted, longer, torch.where(rejected, shrunk, dt))
    return after, torch.where(learns, ratio, e1), torch.where(learns, e1, e2)


def sample_program(rules: SampleRules, calls: Any, n: int | None) -> Callable[..., Any]:
    """What is compiled: (owner, most, ends, rtol, atol, clock, y, k) → attempts made, clock, y, k.

    n: attempts, one written out after another; None: up to `most` of them as a loop in the graph, which ends
    when no sample is under way.
    """
    from torch._higher_order_ops.while_loop import while_loop

    def attempt_many(
        owner: Any,
        most: Tensor,
        ends: tuple[Tensor, ...],
        rtol: Tensor,
        atol: Tensor,
        clock: tuple[Tensor, ...],
        y: Tensor,
        k: Tensor,
    ) -> Any:
        def field(t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
            dz, _ = calls.evaluate(owner, t, settled(z))
            return settled(dz), None

        def once(i: Tensor, *state: Tensor) -> Any:
            *numbers, y, k = state
            given, tolerance, now = SampleEnds(*ends), Tolerance(rtol, atol), SampleClock(*numbers)
            make = functools.partial(StageList, rules.numeric)
            found, y, k = attempt_samples(rules, field, given, tolerance, now, y, k, make)
            return (i + 1, *(x.clone() for x in (*found, y, k)))

        def goes_on(i: Tensor, *state: Tensor) -> Tensor:
            return (i < most).all() & (state[STATUS] == _RUNNING).any()

        state = (torch.zeros((), dtype=torch.int64, device=y.device), *clock, y, k)
        if n is None:
            state = while_loop(goes_on, once, tuple(x.clone() for x in state))
        else:
            for _ in range(n):
                state = once(*state)
        return state

    return attempt_many
