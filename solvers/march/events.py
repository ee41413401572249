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
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import DynamicsError
from ..methods.tableau import theta_weights
from ..step.clocks import ONE, Clocks, Each
from ..step.field import Layout
from .event import Event as Event
from .looks import LOOKS, PARTS, Looks, begins, look_places, look_table, numbered
from .output import NOWHERE, Place, Step, as_time, as_times
from .samples import SampleStep, Written

HALVINGS = 53  # of θ in [0, 1]
GRID = 2**HALVINGS  # points on a step at which an event may lie: θ is a multiple of 1/GRID
TINY = 1e-300  # a value that is a sign and no more


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
    """One event that happened.

    event: which.
    t: a float; a clock a sample: [B], NaN where it did not happen to a sample, and so are the rows of value.
    value: the state there.
    place: where in the steps (one clock).
    valid: [B], to which samples it happened.
    """

    event: int
    t: Any
    value: Tensor
    place: Place = NOWHERE
    valid: Tensor | None = None


class Looked(NamedTuple):
    """The values at the looks at a step, [PARTS + 1, E, …], and which event fires in which part of it."""

    values: Tensor
    firing: Tensor


def event_number(event: Event, t: Tensor, y: Any, shape: tuple[int, ...]) -> Tensor:
    """An event function at (t, y), as it wants them: of the shape of one number a clock, of its own dtype,
    unless that is bool."""
    value = event.fn(t, y)
    if not isinstance(value, Tensor) or (value.shape != shape if shape else value.numel() != 1):
        found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        wanted = "it must return one number, a 0-d tensor"
        if shape:
            wanted = f"with per-sample stepping it must return one number a sample, shape {shape}"
        raise DynamicsError(f"an event's fn returned {found}; {wanted}.")
    if value.dtype == torch.bool:
        value = signed(value)
    return value if value.shape == shape else value.reshape(())


def event_value(event: Event, t: Tensor, y: Any, shape: tuple[int, ...]) -> Tensor:
    """The same in float64."""
    return event_number(event, t, y, shape).double()


class Watch:
    """Watches the events of one solve.

    told: (t, z), t as func wants it for a packed state → (t, y) as the event functions want them.
    """

    def __init__(
        self,
        events: Sequence[Event],
        told: Callable[[Tensor, Tensor], tuple[Tensor, Any]],
        clocks: Clocks,
    ):
        self.events, self.told, self.clocks = events, told, clocks

    def numbers(self, events: Sequence[Event], t: Tensor, z: Tensor) -> list[Tensor]:
        """Each of these event functions at (t, z)."""
        (t, y), shape = self.told(t, z.detach()), self.clocks.shape(z)
        return [event_number(event, t, y, shape) for event in events]

    @torch.no_grad()
    def along(self, step: Step | SampleStep, times: Iterable[Tensor], *, closer: bool) -> list[Tensor]:
        """All event functions at all looks at a step after its start, look by look: at what may fire; closer,
        at what does, on the dense output (whose stages are there).

        times: of the looks inside, then the step's end.
        """
        table = look_table(step.tableau, step.y0.dtype, step.y0.device, closer)
        inside, found = step.result.stages.looks(step.y0, table), []
        for t in times:
            found += self.numbers(self.events, t, next(inside, step.y1))
        return found


class EventWatch(Watch):
    """Watches the events of one solve with one clock.

    unpack: the packed state as the event functions want it.
    signs: [E], which sign each event function has at the start whatever its value there: ±1, or 0 for none
        (NaN: that of its value).
    """

    def __init__(
        self,
        events: Sequence[Event],
        unpack: Callable[[Tensor], Any],
        t0: float,
        z0: Tensor,
        signs: Tensor | None = None,
    ):
        super().__init__(events, lambda t, z: (t, unpack(z)), ONE)
        self.before = self.evaluate([t0], z0)
        if signs is not None:
            given: list[float] = signs.tolist()  # host read
            pairs = zip(self.before, given, strict=True)
            self.before = [value if math.isnan(sign) else sign * TINY for value, sign in pairs]
        self.values: list[list[float]] = []  # of each event, [PARTS + 1], in the last accepted step
        self.fired: list[Fired] = []
        self.n_accepted = 0

    def evaluate(self, times: Sequence[float], z: Tensor) -> list[float]:
        """All event functions at some times with one state, time by time."""
        with torch.no_grad():
            asked = [self.numbers(self.events, t, z) for t in as_times(times, z)]
            found: list[float] = torch.stack(list(itertools.chain(*asked))).tolist()  # host read
        return found

    def look(self, step: Step, *, closer: bool = False) -> Tensor:
        """The values at the looks at an attempt, [PARTS · E] in float64; closer, on the dense output."""
        step.complete(closer=closer)
        times = as_times([*(step.t0 + theta * step.dt for theta in LOOKS), step.t1], step.y0)
        return torch.stack(self.along(step, times, closer=closer)).double()

    def check(self, step: Step) -> float | None:
        """Records what fires in an accepted step; the time of the first terminal event, or None."""
        watched = step.watched if step.watched is not None else self.look(step).tolist()  # host read
        firing = self._firing(watched)
        if any(firing) and step.tableau.c_dense:
            firing = self._firing(self.look(step, closer=True).tolist())  # host read
        self.before = [values[-1] for values in self.values]
        end = self._record(step, firing) if any(firing) else None
        self.n_accepted += 1
        return end

    def _firing(self, watched: list[float]) -> list[dict[int, int]]:
        """As `looks.begins`, of each event, from the values at the looks."""
        n = len(self.events)
        self.values = [[start, *watched[e::n]] for e, start in enumerate(self.before)]
        pairs = zip(self.values, self.events, strict=True)
        return [begins(values, event.direction) for values, event in pairs]

    def _record(self, step: Step, firing: list[dict[int, int]]) -> float | None:
        """All that fires up to the first terminal event; its time."""
        found: list[tuple[float, float, int]] = []
        for part in range(PARTS):
            for e, parts in enumerate(firing):
                if part in parts:
                    found.append((*self._locate(e, step, (parts[part], part + 1)), e))
            if any(self.events[e].terminal for *_, e in found):
                break
        found.sort()
        last, end = next(((theta, t) for theta, t, e in found if self.events[e].terminal), (1.0, None))
        for theta, t, e in found:
            if theta <= last:
                value = step.y1 if theta == 1.0 else step.at(theta)
                self.fired.append(Fired(e, t, value, Place(self.n_accepted, theta)))
        return end

    def _locate(self, e: int, step: Step, looks: tuple[int, int]) -> tuple[float, float]:
        """θ and time at which a sign is lost between two looks, on the step's dense output."""

        def g(q: int) -> float:
            with torch.no_grad():
                z = step.at(q / GRID)
                return float(self.numbers([self.events[e]], as_time(step.t0 + q / GRID * step.dt, z), z)[0])

        (low, high), values = looks, self.values[e]
        q = where_lost(g, low * GRID // PARTS, high * GRID // PARTS, values[low], values[high])
        return on_step(step.t0, step.t1, q)


class SampleEvents(Watch):
    """Watches the events of one solve with a clock a sample, without a host read of its own.

    layout: unpacks the state as the event functions want it; each must return [b].
    The rows of states at events follow those of the outputs, the first event's last of all: its place,
    −1, is then known before the number of outputs is.
    """

    clocks: Each

    def __init__(
        self,
        events: Sequence[Event],
        layout: Layout,
        clocks: Each,
        t0: Tensor,
        z0: Tensor,
        signs: Tensor | None = None,
    ):
        super().__init__(events, lambda t, z: (layout.time(t), layout.unpack(z)), clocks)
        self.whole = z0.detach()
        self.looks = Looks(events, z0)
        self.met: list[tuple[Tensor, Fired]] = []  # of which samples
        with torch.no_grad():
            self.before = torch.stack(self.numbers(events, clocks.time(t0, z0), z0)).double()
        if signs is not None:
            self.before = torch.where(signs.isnan(), self.before, signs * TINY)
        self.values = self.before[None]  # at the looks at the last steps

    def numbers(self, events: Sequence[Event], t: Tensor, z: Tensor) -> list[Tensor]:
        """Each of these event functions there; says so where fn knows only the whole batch."""
        try:
            return super().numbers(events, t, z)
        except (DynamicsError, RuntimeError, IndexError) as error:
            if z.shape == self.whole.shape or isinstance(error, torch.OutOfMemoryError):
                raise
            raise DynamicsError(
                f"an event's fn failed with the {self.clocks.batch_size(z)} samples still under way. "
                "compact=True takes finished samples out of the batch, so fn must hold no data of its own "
                "for each sample; leave compact out, or put the data into the state. It said: "
                f"{error}"
            ) from error

    @torch.no_grad()
    def values_at(self, step: SampleStep, *, closer: bool) -> Tensor:
        """The values at the looks at the steps, [PARTS + 1, E, b]; closer, on the dense output."""
        within = step.t0 + look_places(step.t0.device) * step.length
        times = [*within.to(step.y0.dtype).unbind(), step.t1]
        asked = (self.clocks.time(t, step.y0) for t in times)
        found = torch.stack([*self.before, *self.along(step, asked, closer=closer)])
        return found.double().unflatten(0, (PARTS + 1, len(self.events)))

    def look(self, step: SampleStep) -> Tensor:
        """In how many of the steps that were accepted something may fire, 0-d."""
        self.values = self.values_at(step, closer=False)
        return (step.accepted & ~self.looks.calm(self.values)).sum()

    def suspected(self, step: SampleStep) -> Looked | None:
        """What fires in those steps; None where a dense output that costs evaluations is not worth them."""
        looked = self.firing(step)
        costly = bool(step.tableau.c_dense)
        return None if costly and not bool(looked.firing.any()) else looked  # host read

    def firing(self, step: SampleStep, *, closer: bool = False) -> Looked:
        """What fires in the steps that were accepted; closer, on the dense output, whose stages are there."""
        values = self.values_at(step, closer=True) if closer else self.values
        return Looked(values, self.looks.fires(values) & step.accepted)

    def ends(self, looked: Looked) -> Tensor:
        """[b]: which samples meet a terminal event."""
        met = looked.firing.any(0)
        rows = [met[e] for e, event in enumerate(self.events) if event.terminal]
        return torch.stack(rows).any(0) if rows else torch.zeros_like(met[0])

    def locate(self, step: SampleStep, looked: Looked, counts: Sequence[int]) -> tuple[Tensor, list[Written]]:
        """Records what fires; [b], the time at which each sample's step ends (t1 but for terminal ones), and
        the states at the events as outputs inside the step."""
        found: list[tuple[int, Tensor, Tensor]] = []
        last = torch.ones_like(step.t1)
        for e, (event, count) in enumerate(zip(self.events, counts, strict=True)):
            firing = looked.firing[:, e]
            order = firing.cumsum(0)
            for k in range(min(count, 1) if event.terminal else count):
                here = firing & (order == k + 1)
                valid, theta = here.any(0), self._zero(e, here.to(torch.int8).argmax(0), step, looked.values)
                found.append((e, valid, theta))
                if event.terminal:
                    last = torch.where(valid, torch.minimum(last, theta), last)
        met = [self._record(e, step, valid & (theta <= last), theta) for e, valid, theta in found]
        return torch.where(last == 1.0, step.t1, step.t0 + last * step.length), met

    @torch.no_grad()
    def _zero(self, e: int, part: Tensor, step: SampleStep, looks: Tensor) -> Tensor:
        """θ at which one function loses its sign, in the part [b] of each row's step, by bisection."""
        values, numeric, event = looks[:, e], step.result.stages.numeric, [self.events[e]]
        t0, length = step.t0, step.length
        begin = numbered(values).gather(0, part[None])
        sign = torch.sign(values.gather(0, begin)[0])
        low, high = begin[0] * (GRID // PARTS), (part + 1) * (GRID // PARTS)
        for _ in range(HALVINGS):
            middle = (low + high) // 2
            theta = middle.double() / GRID
            z = step.combine(step.y0, theta_weights(numeric, theta).to(step.y0.dtype))
            t = self.clocks.time(t0 + theta * length, z)
            held = torch.sign(self.numbers(event, t, z)[0]) == sign
            low, high = torch.where(held, middle, low), torch.where(held, high, middle)
        theta = high.double() / GRID
        size = torch.maximum(step.t0.abs(), step.t1.abs())
        spacing = torch.nextafter(size, torch.full_like(size, math.inf)) - size
        off = (step.t1 - (t0 + theta * length)).abs()
        return torch.where(off <= 4.0 * spacing, 1.0, theta)  # as `on_step`

    def _record(self, e: int, step: SampleStep, valid: Tensor, theta: Tensor) -> Written:
        value, weights = step.at(theta)
        value = torch.where(self.clocks.spread(valid), value, math.nan)
        place = torch.full_like(step.index, -1 - len(self.met))
        t = torch.where(theta == 1.0, step.t1, step.t0 + theta * step.length)
        self.met.append((step.index, Fired(e, torch.where(valid, t, math.nan), value, valid=valid)))
        return Written(place[None], valid[None], weights[:, None])

    def advance(self, accepted: Tensor) -> None:
        """The values at the steps' ends are the next steps' beginnings."""
        self.before = torch.where(accepted, self.values[-1], self.before)

    def select(self, keep: Tensor) -> None:
        """Samples leave the batch."""
        self.before = self.before.index_select(1, keep)

    def fired(self) -> list[Fired]:
        """All that fired, for the whole batch, in the order of the rows."""
        clocks, z = self.clocks, torch.full_like(self.whole, math.nan)
        found = []
        for index, one in reversed(self.met):
            assert one.valid is not None
            valid = torch.zeros(clocks.shape(z), dtype=torch.bool, device=z.device)
            t = valid.double().fill_(math.nan).index_copy(0, index, one.t)
            valid, value = valid.index_copy(0, index, one.valid), clocks.put(z, index, one.value)
            found.append(Fired(one.event, t, value, valid=valid))
        return found
