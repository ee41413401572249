"""Events: zeros of a function of the solution, found on the dense output.

An event fires where its function loses the sign it had: where it changes to the other sign or becomes
0, in the direction asked for. A bool counts as 1 where it is True and as −1 where it is False. Whatever
is 0 (or no number) has no sign, so a function that is zero at the start does not fire there, nor where
it leaves 0.

Each step is looked at where its eighths begin and end, on the dense output if that costs no evaluation,
else on the cubic through the step's ends and slopes, and then, where that shows a change, on the dense
output. In the first eighth that ends with another sign than it began with the time is found to 2⁻⁵³ of
the step. What is not seen: a change and the change back within one eighth.

Source: L. F. Shampine, S. Thompson, Event location for ordinary differential equations, Comput. Math.
Appl. 39 (2000) 43–54.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import ArgumentError, ArgumentTypeError, DynamicsError
from ..methods.tableau import PARTS
from .output import Place, Step, clock

GRID = 2**53  # points on a step at which an event may lie: θ is a multiple of 1/GRID


@dataclasses.dataclass(frozen=True)
class Event:
    """fn(t, y) → 0-d tensor (per-sample stepping: [B]); the event is where it loses its sign.

    terminal: the solve (the sample) ends there.  direction: 1 fires on the way up only, −1 on the way
    down, 0 both ("up" in the direction in which time runs).
    """

    fn: Callable[[Tensor, Any], Tensor]
    terminal: bool = True
    direction: Literal[-1, 0, 1] = 0

    def __post_init__(self) -> None:
        if not callable(self.fn):
            raise ArgumentTypeError(f"Event: fn={self.fn!r} must be callable as fn(t, y).")
        if self.direction not in (-1, 0, 1):
            raise ArgumentError(f"Event: direction={self.direction!r} must be -1, 0 or 1.")


class Looks:
    """Which events fire in which part of a step; the same for one clock and for a clock a sample.

    Values are [PARTS + 1, E, …]: each event function at the ends of the parts, the step's ends included.
    """

    def __init__(self, events: Sequence[Event], like: Tensor):
        def mask(sign: int) -> Tensor:
            wanted = [event.direction * sign >= 0 for event in events]
            made = torch.tensor(wanted, dtype=torch.bool, device="cpu")
            return made.to(like.device, non_blocking=True)

        self.rising, self.falling = mask(1), mask(-1)

    def fires(self, values: Tensor) -> Tensor:
        """[PARTS, E, …]: whether the sign that was last seen is lost within the part."""
        before = values.gather(0, numbered(values))[:-1]
        after = values[1:]
        shape = (-1, *[1] * (values.dim() - 2))
        rising = (before < 0) & (after >= 0) & self.rising.view(shape)
        return rising | ((before > 0) & (after <= 0) & self.falling.view(shape))


def numbered(values: Tensor) -> Tensor:
    """For each look the last one up to it whose value is a number, [PARTS + 1, …]; 0 where there is none."""
    index = torch.arange(len(values), dtype=torch.int64, device=values.device).view(
        -1, *[1] * (values.dim() - 1)
    )
    return torch.where(values.isnan(), 0, index).cummax(0).values


def signed(value: Tensor) -> Tensor:
    """An event function's values in float64; True is 1 and False −1."""
    return torch.where(value, 1.0, -1.0).double() if value.dtype == torch.bool else value.double()


def where_lost(g: Callable[[int], float], low: int, high: int, g_low: float, g_high: float) -> int:
    """q in (low, high] at which g has lost the sign of g_low and at q − 1 has not; at high it has.

    Where the sign is lost once, this is the point that halving the bracket finds; the secant finds it
    sooner. At most two looks more than halving, about ten where g is smooth.
    Source: I. F. D. Oliveira, R. H. C. Takahashi, ACM Trans. Math. Softw. 47 (2020) 5 (ITP).
    """
    whole, room, push, side = high - low, float(1 << (high - low).bit_length()), 1.0, 0
    while high - low > 1:
        width, half = high - low, low + 0.5 * (high - low)
        x = low + width * (g_low / (g_low - g_high)) if math.isfinite(g_high - g_low) else half
        toward = max(0.2 * width * width / whole, push)
        x += math.copysign(min(toward, abs(half - x)), half - x)
        off = max(room - 0.5 * width, 0.0)
        x = min(max(x, half - off), half + off)
        room *= 0.5
        q = min(max(round(x), low + 1), high - 1)
        value = g(q)
        lost = value <= 0.0 if g_low > 0.0 else value >= 0.0
        now = 1 if lost or math.isnan(value) else -1
        if now == 1:
            high, g_high = q, value
        else:
            low, g_low = q, value
        push, side = (4.0 * push if now == side else 1.0), now  # the other end has not moved: go past
    return high


def on_step(t0: float, t1: float, q: int) -> tuple[float, float]:
    """θ and time of a point on the grid; the step's end where rounding cannot tell them apart."""
    t = t0 + q / GRID * (t1 - t0)
    if abs(t1 - t) <= 4.0 * math.ulp(max(abs(t0), abs(t1))):
        return 1.0, t1
    return q / GRID, t


@dataclasses.dataclass(frozen=True)
class Fired:
    """One event that happened: which, when, and where in the steps."""

    event: int
    t: float
    place: Place
    value: Tensor


class EventWatch:
    """Watches the events of one shared-step solve.

    unpack: the packed state as the event functions want it.
    """

    def __init__(self, events: Sequence[Event], unpack: Callable[[Tensor], Any], t0: float, z0: Tensor):
        self.events, self.unpack = events, unpack
        self.looks = Looks(events, z0)
        self.before = self.evaluate(t0, z0)
        self.values: Tensor | None = None  # of the last attempt
        self.fired: list[Fired] = []
        self.n_accepted = 0

    def evaluate(self, t: float, z: Tensor) -> Tensor:
        """All event functions at (t, z), [E], without a graph."""
        with torch.no_grad():
            y = self.unpack(z.detach())
            return torch.stack([self._one(event, clock(t, z), y) for event in self.events])

    @staticmethod
    def _one(event: Event, t: Tensor, y: Any) -> Tensor:
        value = event.fn(t, y)
        if not isinstance(value, Tensor) or value.numel() != 1:
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise DynamicsError(f"an event's fn returned {found}; it must return one number, a 0-d tensor.")
        return signed(value.reshape(()))

    def look(self, step: Step, *, closer: bool = False) -> Tensor:
        """What may fire in an attempt, [PARTS · E] of zeros and ones; what does, closer."""
        with torch.no_grad():
            inside = [self.evaluate(t, y) for t, y in step.looks(closer=closer)]
            self.values = torch.stack([self.before, *inside, self.evaluate(step.t1, step.y1)])
            return self.looks.fires(self.values).double().reshape(-1)

    def check(self, step: Step) -> float | None:
        """Records what fires in an accepted step; the time of the first terminal event, or None."""
        flags = step.watched if step.watched is not None else self.look(step).tolist()  # host read
        if any(flags) and step.tableau.c_dense:
            flags = self.look(step, closer=True).tolist()  # host read
        assert self.values is not None
        self.before = self.values[-1]
        end = self._record(step, flags, self.values) if any(flags) else None
        self.n_accepted += 1
        return end

    def _record(self, step: Step, flags: list[float], values: Tensor) -> float | None:
        """All that fires up to the first terminal event; its time."""
        n, rows, begins = len(self.events), values.tolist(), numbered(values).tolist()  # host read
        found: list[tuple[float, float, int]] = []
        for part in range(PARTS):
            for e in range(n):
                if flags[part * n + e]:
                    begin = begins[part][e]
                    found.append((*self._locate(e, step, (begin, part + 1), rows), e))
            if any(self.events[e].terminal for *_, e in found):
                break
        found.sort()
        last, end = next(((theta, t) for theta, t, e in found if self.events[e].terminal), (1.0, None))
        for theta, t, e in found:
            if theta <= last:
                value = step.y1 if theta == 1.0 else step.at(theta)
                self.fired.append(Fired(e, t, Place(self.n_accepted, theta), value))
        return end

    def _locate(
        self, e: int, step: Step, looks: tuple[int, int], rows: list[list[float]]
    ) -> tuple[float, float]:
        """θ and time at which a sign is lost between two looks, on the step's dense output."""

        def g(q: int) -> float:
            with torch.no_grad():
                z = step.at(q / GRID)
                t = clock(step.t0 + q / GRID * step.dt, z)
                return float(self._one(self.events[e], t, self.unpack(z)))  # host read

        low, high = looks
        q = where_lost(g, low * GRID // PARTS, high * GRID // PARTS, rows[low][e], rows[high][e])
        return on_step(step.t0, step.t1, q)
