"""Attempts whose decisions stay on the device: time, step size, acceptance and finish are tensors.

`march` looks at the host after every attempt: it must know whether to accept. Here an attempt decides
by itself, with the same arithmetic in float64 tensors, so that several can be queued before the host
looks once; one that follows a finish changes nothing. All of it is a pure function of tensors, which
`programs` can compile.

The clock is one float64 vector, so that one read tells the host everything: see `Clock`.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

import torch
from torch import Tensor

from ..methods.tableau import Numeric, Tableau
from .controller import PID
from .norms import Norm, Tolerance, error_ratio
from .runge_kutta import Field, StageBuffer, StageList, owned, rk_step


class Clock(enum.IntEnum):
    """Entries of the clock. The first seven are the state of the march, the others tell of the last attempt.

    T, DT: time and |dt| to try next.  E1, E2: error ratios of the last two accepted steps.
    AFTER: the last attempt was rejected.  BAD: … for a stage that is not finite.  STATE: a `March`.
    T0, T1: the attempt went from T0 to T1.  RATIO: its error ratio.  TRIED: it was made at all.
    ACCEPTED, FINITE: 0 or 1.  ASKED: DT before it.
    """

    T = 0
    DT = 1
    E1 = 2
    E2 = 3
    AFTER = 4
    BAD = 5
    STATE = 6
    T0 = 7
    T1 = 8
    RATIO = 9
    TRIED = 10
    ACCEPTED = 11
    FINITE = 12
    ASKED = 13


class March(enum.IntEnum):
    """Where a march stands: UNDER_WAY, at its STOP, TOO_SHORT a step to try, STUCK after one that was."""

    UNDER_WAY = 0
    STOP = 1
    TOO_SHORT = 2
    STUCK = 3


# As numbers: torch.compile takes a tensor for unequal to any member of an enumeration.
_UNDER_WAY, _STOP, _TOO_SHORT, _STUCK = (float(state) for state in March)


@dataclasses.dataclass(frozen=True)
class Rules:
    """What decides an attempt besides tensors.

    numeric: the tableau's numbers in the state's dtype.  with_stages: the k_i are wanted too.
    """

    tableau: Tableau
    numeric: Numeric
    norm: Norm
    controller: PID
    with_stages: bool = False


@dataclasses.dataclass(frozen=True)
class Bounds:
    """limits: float64 [stop, direction, span].  rtol, atol: in the state's dtype."""

    limits: Tensor
    rtol: Tensor
    atol: Tensor


@dataclasses.dataclass
class Attempted:
    """After one attempt: the march's clock, y and f(t, y); and the attempt itself: y1, what the field
    saved at the stages after the first, all k_i [n, *S] or None."""

    clock: Tensor
    y: Tensor
    k: Tensor
    y1: Tensor
    states: list[Tensor]
    saved: list[Any]
    stages: Tensor | None


def attempt(
    rules: Rules, field: Field, bounds: Bounds, clock: Tensor, y: Tensor, k: Tensor, *, buffered: bool
) -> Attempted:
    """One attempt from (t, y), f(t, y) = k. buffered: stages in one buffer, else one by one (to compile)."""
    t, dt, bad, state = (clock[i] for i in (Clock.T, Clock.DT, Clock.BAD, Clock.STATE))
    stop, direction, _ = bounds.limits.unbind()
    dt, short = _raised(rules, bounds, t, dt, bad)
    cut = (stop - t).abs() <= 1.001 * dt
    go = (state == _UNDER_WAY) & ~short
    t1 = settled(torch.where(go, torch.where(cut, stop, t + direction * dt), t))
    span = t1 - t
    tableau, length = rules.tableau, settled(span.to(y.dtype))
    times = times_between(tableau, t, t1, y.dtype)
    numeric = rules.numeric
    stages = StageBuffer(numeric, y, length) if buffered else StageList(numeric, length)
    states: list[Tensor] = []

    def watched(time: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        z = z if buffered else settled(z)
        states.append(z)
        k, saved = field(time, z)
        return k if buffered else settled(k), saved

    result = rk_step(watched, y, (k, None), times, tableau, stages)
    tolerance = Tolerance(bounds.rtol, bounds.atol)
    ratio = error_ratio(stages.errors(), y, result.y1, tolerance, rules.norm).double()
    finite = (stages.nought() + result.y1 * 0.0).sum() == 0  # 0 · ∞ is NaN, and zeros cannot overflow
    fine = go & finite & ((ratio <= 1.0) | _forced(rules, span.abs()))
    after_it = _clock_after(rules, bounds, clock, (t, t1, dt), ratio, (go, fine, finite, short))
    last = stages.get(tableau.n_stages - 1)
    every = None
    if rules.with_stages:
        every = stages.k if isinstance(stages, StageBuffer) else _buffer(rules, stages)
    return Attempted(
        after_it,
        torch.where(fine, result.y1, y),
        torch.where(fine, last, k),
        result.y1,
        states,
        result.saved[1:],
        every,
    )


def times_between(tableau: Tableau, t0: Tensor, t1: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """When the stages are evaluated: t0 + c_i (t1 − t0), exactly t1 where c_i = 1. As `stage_times`."""
    span = t1 - t0
    nodes = [float(c) for c in tableau.nodes()[: tableau.n_stages]]
    return [(t1 if c == 1 else t0 + c * span).to(dtype) for c in nodes]


def _buffer(rules: Rules, stages: StageList) -> Tensor:
    """The stages in one tensor, with room for those that only a dense output needs."""
    n, more = rules.tableau.n_stages, len(rules.tableau.c_dense)
    return torch.stack([stages.get(i) for i in range(n)] + [torch.zeros_like(stages.get(0))] * more)


def settled(x: Tensor) -> Tensor:
    """x, as a tensor that a compiled graph writes to memory once.

    A compiler of graphs writes the expression of an unwritten tensor out again wherever it is used; over
    the stages of a step these expressions grow without bound. What is seen through strides is written.
    """
    return torch.as_strided(x, x.shape, x.stride())


def spacing(t: Tensor) -> Tensor:
    """Ten times the spacing of floats at t, to within a factor of two."""
    return 10.0 * 2.0**-52 * t.abs()


def _raised(rules: Rules, bounds: Bounds, t: Tensor, dt: Tensor, bad: Tensor) -> tuple[Tensor, Tensor]:
    """(dt, whether it is too short to be a step): as `Pace.too_short`."""
    stop, _, span = bounds.limits.unbind()
    controller = rules.controller
    least = torch.maximum(spacing(t), 1e-20 * span.clamp(max=1.0)).clamp(min=controller.dt_min)
    short = ~((stop - t).abs() <= 1.001 * dt) & ~(dt >= least)  # so that a dt of NaN ends here
    if controller.force_dt_min and controller.dt_min > 0:
        forced = short & (bad == 0)
        return torch.where(forced, controller.dt_min, dt), short & ~forced
    return dt, short


def _forced(rules: Rules, taken: Tensor) -> Tensor:
    """A step as short as dt_min is accepted as it is, where the controller says so."""
    controller = rules.controller
    return taken <= (1.001 * controller.dt_min if controller.force_dt_min else -1.0)


def _clock_after(
    rules: Rules,
    bounds: Bounds,
    clock: Tensor,
    lengths: tuple[Tensor, Tensor, Tensor],
    ratio: Tensor,
    flags: tuple[Tensor, Tensor, Tensor, Tensor],
) -> Tensor:
    """The clock after an attempt: as `Pace.accepted` and `Pace.rejected`."""
    (t, t1, dt), (go, fine, finite, short) = lengths, flags
    _, _, e1, e2, after, bad, state = clock[: Clock.T0].unbind()
    stop, _, span = bounds.limits.unbind()
    controller, order, taken = rules.controller, rules.tableau.error_order, (t1 - t).abs()
    grown = taken * controller.factors_accepted(ratio, e1, e2, order, after > 0)
    cut_short = taken < 0.999 * dt
    longer = torch.where(cut_short, torch.maximum(grown, dt), grown).clamp(max=controller.dt_max)
    judged = torch.where(finite, ratio, torch.nan)
    shorter = taken * controller.factors_rejected(judged, order)
    refused = go & ~fine
    stuck = refused & (taken < torch.maximum(spacing(t), 1e-20 * span.clamp(max=1.0)))
    state = torch.where(fine & (t1 == stop), _STOP, state)
    state = torch.where(stuck, _STUCK, torch.where(short, _TOO_SHORT, state))
    moved = fine & ~cut_short
    return torch.stack(
        (
            torch.where(fine, t1, t),
            torch.where(fine, longer, torch.where(refused, shorter, dt)),
            torch.where(moved, ratio, e1),
            torch.where(moved, e1, e2),
            torch.where(go, refused.double(), after),
            torch.where(go, (refused & ~finite).double(), bad),
            state,
            t,
            t1,
            ratio,
            go.double(),
            fine.double(),
            finite.double(),
            clock[Clock.DT],
        )
    )


def begin(
    rules: Rules, field: Field, ends: Tensor, y: Tensor, rtol: Tensor, atol: Tensor
) -> tuple[Tensor, Tensor]:
    """f(t0, y0) and the clock to begin with, its step by Hairer's estimate: as `initial_step`.

    ends: float64 [t0, end].
    """
    t0, end = ends.unbind()
    direction, span = torch.sign(end - t0), (end - t0).abs()
    k = settled(owned(field)(t0.to(y.dtype), y)[0])
    scale = Tolerance(rtol, atol).scale(y)

    def size(x: Tensor) -> Tensor:
        return rules.norm(x.double() / scale.double()).double()

    d0, d1 = settled(size(y)), settled(size(k))
    h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1)
    h0 = settled(torch.minimum(h0, span))
    step = (direction * h0).to(y.dtype)
    time = t0.to(y.dtype) + step
    last = end.to(y.dtype)
    time = torch.where(direction > 0, torch.minimum(time, last), torch.maximum(time, last))
    k1 = field(settled(time), settled(y + step * k))[0]
    steepest = torch.maximum(d1, size(k1 - k) / h0)
    h1 = torch.where(
        steepest <= 1e-15, (h0 * 1e-3).clamp(min=1e-6), (0.01 / steepest) ** (1.0 / rules.tableau.error_order)
    )
    h = torch.minimum(100.0 * h0, h1)
    h = torch.where(torch.isfinite(h) & (h > 0), h, h0)
    h = torch.where(h > 0, torch.minimum(h, span), 1e-6 * span.clamp(max=1.0))
    zero, one = torch.zeros_like(t0), torch.ones_like(t0)
    rest = [zero] * (len(Clock) - 4)
    return k, torch.stack((t0, h.clamp(max=rules.controller.dt_max), one, one, *rest))
