"""The numbers of a case: starts, parameters, times, levels, all from its seed."""

from __future__ import annotations

import dataclasses
import itertools

import torch
from torch import Tensor

from .alphabet import Case
from .flows import FLOWS, JUMP, Flow, Theta, between
from .forms import STATES
from .zeros import Zero, zeros_of

TRIES = 40


@dataclasses.dataclass(frozen=True)
class Numbers:
    """y0 [B, D], theta, t [T] or [B, T], asked [Q] or [Q, B] (dense), level 0-d; in float64, but such as
    the case's dtype holds.  zero, fired: the event and, for each sample (shared: one), when it fires."""

    flow: Flow
    y0: Tensor
    theta: Theta
    t: Tensor
    asked: Tensor
    level: Tensor
    zero: Zero | None
    fired: list[list[float]]
    stops: tuple[float, ...]
    weights: torch.Generator

    @property
    def spans(self) -> tuple[Tensor, Tensor]:
        """Starts and ends, [B]."""
        wide = self.t if self.t.dim() == 2 else self.t.expand(len(self.y0), -1)
        return wide[:, 0], wide[:, -1]

    @property
    def span(self) -> float:
        """The longest one."""
        start, end = self.spans
        return max(float((end - start).abs().max()), 0.5)


def numbers_of(case: Case) -> Numbers:
    """The numbers; an event whose zeros are too hard to find is drawn again."""
    make = torch.Generator().manual_seed(hash_of(case.seed, case.number))
    found = None
    for _ in range(TRIES if case.events else 1):
        found = _drawn(case, make)
        if found is not None:
            break
    if found is None:
        raise NoNumbersError(str(case))
    return found


class NoNumbersError(Exception):
    """No event of this kind was found on this flow; the case is drawn without one."""


def hash_of(seed: int, number: int) -> int:
    """A seed for torch from the two."""
    return (seed * 1_000_003 + number) % 2**31


def _drawn(case: Case, make: torch.Generator) -> Numbers | None:
    flow = FLOWS[case.flow]
    y0, theta = flow.draw(make, case.batch, STATES[case.state])
    y0, theta = _rounded(case, y0), tuple(_rounded(case, x) for x in theta)
    t = _rounded(case, _times(case, make))
    wide = t if t.dim() == 2 else t.expand(case.batch, -1)
    start, end = wide[:, 0], wide[:, -1]
    level, zero, fired = torch.zeros((), dtype=torch.float64), None, [[] for _ in range(case.batch)]
    if case.events:
        level, zero = _event(case, make, flow, (start, end, y0, theta))
        rows = zeros_of(zero, flow, start, end, y0, theta, level)
        chosen = None if rows is None else _firing(case, zero, rows, wide)
        if chosen is None:
            return None
        fired = chosen
    last = end.clone()
    if case.events and case.terminal:
        for b, times in enumerate(fired):
            if times:
                stop = torch.tensor(times[0], dtype=torch.float64)
                last = (
                    torch.where(torch.arange(case.batch) == b, stop, last)
                    if case.per_sample
                    else stop.expand_as(last)
                )
    own = (case.per_sample and case.times != "shared") or (case.per_sample and case.terminal)
    part = between(make, 0.0, 0.98, 3, case.batch if own else 1)
    asked = start + part * (last - start) if own else (start + part * (last - start))[:, 0]
    stops = (JUMP,) if case.flow == "jump" else ()
    return Numbers(flow, y0, theta, t, _rounded(case, asked), level, zero, fired, stops, make)


def _rounded(case: Case, x: Tensor) -> Tensor:
    """Such that the case's dtype holds it."""
    return x.float().double() if case.single else x


def _times(case: Case, make: torch.Generator) -> Tensor:
    """[T] or [B, T]: the jump lies inside every span, events and outputs do not meet."""
    rows = case.batch if case.times != "shared" else 1
    start = between(make, -0.3, 0.2, rows, 1)
    end = between(make, 1.0, 1.5, rows, 1)
    if case.backwards:
        start, end = end, start
    inner = between(make, 0.0, 1.0, rows, case.n_times - 2)
    n = case.n_times - 2  # one in each of n equal parts, none near its ends
    parts = (torch.arange(n) + 0.15 + 0.7 * inner) / max(n, 1)
    part = torch.cat((torch.zeros(rows, 1), parts, torch.ones(rows, 1)), 1).double()
    t = start + part * (end - start)
    t[:, -1:] = end
    if case.times == "padded":
        for b in range(1, rows):
            t[b, -1 - b :] = t[b, -1 - b]
    if case.times in ("stay_one", "stay_all"):
        which = slice(0, 1 if case.times == "stay_one" else rows)
        t[which] = t[which, :1]
    return t if case.times != "shared" else t[0]


def _event(
    case: Case, make: torch.Generator, flow: Flow, problem: tuple[Tensor, Tensor, Tensor, Theta]
) -> tuple[Tensor, Zero]:
    """(level, event function), such that sample 0 meets it."""
    start, end, y0, theta = problem
    at = start + between(make, 0.1, 0.9, 1) * (end - start)
    y = flow.exact(at[None, :, None], start[:, None], y0, theta)[0]
    plain = Zero(case.event, case.terminal, case.direction, 1.0, 0.0, not case.backwards)
    level = plain.base(at[:1], y[:1], torch.zeros(())).reshape(())
    side = 1.0 if float(plain.base(start[:1], y0[:1], level)) > 0 else -1.0
    late = float(start[0] + 0.93 * (end[0] - start[0]))
    level = _rounded(case, level)
    return level, dataclasses.replace(plain, side=side, late=late)


def _firing(
    case: Case, zero: Zero, rows: list[list[tuple[float, bool]]], wide: Tensor
) -> list[list[float]] | None:
    """When the event fires, for each sample; None where a solver may miss one, or an output is too near.

    Zeros nearer to each other than a quarter of the longest step are not promised to be seen.
    """
    chosen = []
    for b, row in enumerate(rows if case.per_sample else rows[:1]):
        span = float((wide[b, -1] - wide[b, 0]).abs())
        longest = span * (case.dt or case.dt_max or 1.0)
        times = [t for t, _ in row]
        near = [abs(b - a) < 0.25 * longest for a, b in itertools.pairwise(times)]
        outputs = [abs(t - float(s)) < 0.01 for t in times for s in wide[b]]
        stops = [abs(t - JUMP) < 0.01 for t in times] if case.flow == "jump" else []
        if any(near) or any(outputs) or any(stops):
            return None
        fires = [t for t, falls in row if zero.fires(falls)]
        if zero.kind == "late_zero":
            early = [t for t in fires if (t < zero.late) == zero.forwards]
            if early != fires or not fires:
                return None
        chosen.append(fires[:1] if case.terminal else fires)
    if case.face == "odeint_event" and not chosen[0]:
        return None
    return chosen
