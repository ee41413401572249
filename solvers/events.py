"""Events: zeros of a function of the solution, found on the dense output.

An event fires where its function changes sign within an accepted step (or is zero at its end), in
the direction asked for. A function that is zero at the start does not fire there. Two zeros within
one step are not seen, as in every solver that looks at step ends only: limit dt_max.

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

from .errors import ArgumentError, ArgumentTypeError, DynamicsError
from .output import Place
from .stepper import Step, clock


@dataclasses.dataclass(frozen=True)
class Event:
    """fn(t, y) → 0-d tensor (per-sample stepping: [B]); the event is where it is zero.

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


def crosses(before: float, after: float, direction: int) -> bool:
    """Whether a step with these event values at its ends holds a zero that fires."""
    if before == 0.0 or math.isnan(before) or math.isnan(after):
        return False  # a zero at the step's start belongs to the step before, or to the start
    up, down = before < 0.0 <= after, before > 0.0 >= after
    return (up and direction >= 0) or (down and direction <= 0)


def _first_zero(g: Callable[[float], float], a: float, b: float) -> float:
    """The zero at b, or where the stretch of zeros that ends there begins: g may be cut off to 0."""
    inside = b - 1e-7 * (b - a)  # float32 states round to 0 on less than that
    if inside == b or g(inside) != 0.0:
        return b
    b = inside
    while abs(b - a) > 2.0 * math.ulp(max(abs(a), abs(b))):
        middle = a + 0.5 * (b - a)
        if g(middle) == 0.0:
            b = middle
        else:
            a = middle
    return b


def find_root(g: Callable[[float], float], a: float, b: float, ga: float, gb: float) -> float:
    """A zero of g in [a, b] (either order) with ga·gb ≤ 0, to the spacing of floats.

    Regula falsi in the Illinois variant, with a bisection wherever it does not halve the bracket.
    Source: M. Dowell, P. Jarratt, BIT 11 (1971) 168–174.
    """
    if gb == 0.0:
        return _first_zero(g, a, b)
    side = 0
    for _ in range(200):
        width = b - a
        if abs(width) <= 2.0 * math.ulp(max(abs(a), abs(b))):
            break
        c = b - gb * width / (gb - ga)
        if not min(a, b) < c < max(a, b):
            c = a + 0.5 * width
        gc = g(c)
        if gc == 0.0:
            return _first_zero(g, a, c)
        if math.isnan(gc):
            return c
        if (gc < 0) == (gb < 0):
            b, gb = c, gc
            ga, side = (0.5 * ga if side == -1 else ga), -1
        else:
            a, ga = c, gc
            gb, side = (0.5 * gb if side == 1 else gb), 1
        if abs(b - a) > 0.5 * abs(width):
            middle = a + 0.5 * (b - a)
            gm = g(middle)
            if gm == 0.0:
                return _first_zero(g, a, middle)
            if (gm < 0) == (gb < 0):
                b, gb, side = middle, gm, 0
            else:
                a, ga, side = middle, gm, 0
    return b


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
        self.before = self.evaluate(t0, z0).tolist()  # host read
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
        return value.reshape(()).double()

    def check(self, step: Step) -> float | None:
        """Records what fires in an accepted step; the time of the first terminal event, or None."""
        after = step.watched if step.watched is not None else self.evaluate(step.t1, step.y1).tolist()
        found: list[tuple[float, int]] = []
        for e, event in enumerate(self.events):
            if crosses(self.before[e], after[e], event.direction):
                found.append((self._locate(e, step, self.before[e], after[e]), e))
        self.before = after
        found.sort(key=lambda pair: abs(pair[0] - step.t0))
        end = next((t for t, e in found if self.events[e].terminal), None)
        for t, e in found:
            if end is None or abs(t - step.t0) <= abs(end - step.t0):
                theta = 1.0 if t == step.t1 else step.theta(t)
                self.fired.append(Fired(e, t, Place(self.n_accepted, theta), step.value(t)))
        self.n_accepted += 1
        return end

    def _locate(self, e: int, step: Step, before: float, after: float) -> float:
        """The zero inside the step, by a bracketing search on its dense output."""

        def g(t: float) -> float:
            with torch.no_grad():
                z = step.value(t)
                return float(self._one(self.events[e], clock(t, z), self.unpack(z)))  # host read

        return find_root(g, step.t0, step.t1, before, after)
