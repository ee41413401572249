"""Events of each sample, found on each sample's own dense output without a host read of their own."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import DynamicsError
from ..methods.tableau import PARTS, Numeric, Tableau, look_table, looks, theta_weights
from ..step.clocks import Each
from ..step.field import Layout
from .events import GRID, Event, Looks, numbered, signed
from .samples import SampleStep, Written

HALVINGS = 53  # of θ in [0, 1]: to 1/GRID


@dataclasses.dataclass(frozen=True)
class SamplesFired:
    """One event function in one attempt: which samples (index [b], valid [b]), when (t [b])."""

    event: int
    index: Tensor
    valid: Tensor
    t: Tensor


class SampleEvents:
    """Watches the events of one per-sample solve.

    layout: unpacks the state as the event functions want it; each must return [b].
    The rows of states at events follow those of the outputs, the first event's last of all: its place,
    −1, is then known before the number of outputs is.
    """

    def __init__(self, events: Sequence[Event], layout: Layout, clocks: Each):
        self.events, self.layout, self.clocks = events, layout, clocks
        self.terminal = [event.terminal for event in events]
        self.fired: list[SamplesFired] = []
        self.rows: list[Tensor] = []
        self.compacted = False

    def evaluate(self, t: Tensor, z: Tensor) -> Tensor:
        """All event functions, [E, b], without a graph."""
        with torch.no_grad():
            return torch.stack([self._value(event, t, z.detach()) for event in self.events])

    def _value(self, event: Event, t: Tensor, z: Tensor) -> Tensor:
        try:
            return sample_event(event, self.clocks.time(t, z), z, self.layout)
        except (DynamicsError, RuntimeError, IndexError) as error:
            if not self.compacted or isinstance(error, torch.OutOfMemoryError):
                raise
            raise DynamicsError(
                f"an event's fn failed with the {len(t)} samples still under way. compact=True takes "
                "finished samples out of the batch, so fn must hold no data of its own for each sample; "
                f"leave compact out, or put the data into the state. It said: {error}"
            ) from error

    def start(self, t: Tensor, z: Tensor) -> None:
        """The values at the start."""
        self.looks = Looks(self.events, t)
        self.before = self.evaluate(t, z)

    def look(self, step: SampleStep, tableau: Tableau, *, closer: bool = False) -> Tensor:
        """[PARTS, E, b]: what may fire in the steps that were accepted; what does, closer."""
        stages, length = step.result.stages, step.t1 - step.t0
        table = look_table(tableau, step.y0.dtype, step.y0.device, closer)
        with torch.no_grad():
            inside = [
                self.evaluate(step.t0 + theta * length, stages.at(step.y0, row))
                for theta, row in zip(looks(), table.unbind(), strict=True)
            ]
        self.values = torch.stack([self.before, *inside, self.evaluate(step.t1, step.result.y1)])
        self.firing = self.looks.fires(self.values) & step.accepted
        return self.firing

    def ends(self) -> Tensor:
        """[b]: which samples meet a terminal event."""
        met = self.firing.any(0)
        found = torch.zeros_like(met[0])
        for e, terminal in enumerate(self.terminal):
            if terminal:
                found = found | met[e]
        return found

    def locate(
        self, step: SampleStep, counts: Sequence[int], numeric: Numeric
    ) -> tuple[Tensor, list[Written]]:
        """Records what fires; [b], the time at which each sample's step ends (t1 but for terminal ones), and
        the states at the events as outputs inside the step."""
        found: list[tuple[int, Tensor, Tensor]] = []
        last = torch.ones_like(step.t1)
        for e, count in enumerate(counts):
            order = self.firing[:, e].cumsum(0)
            for k in range(min(count, 1) if self.terminal[e] else count):
                here = self.firing[:, e] & (order == k + 1)
                valid, theta = here.any(0), self._zero(e, here.to(torch.int8).argmax(0), step, numeric)
                found.append((e, valid, theta))
                if self.terminal[e]:
                    last = torch.where(valid, torch.minimum(last, theta), last)
        met = [self._record(e, step, valid & (theta <= last), theta, numeric) for e, valid, theta in found]
        until = torch.where(last == 1.0, step.t1, step.t0 + last * (step.t1 - step.t0))
        return until, met

    def _zero(self, e: int, part: Tensor, step: SampleStep, numeric: Numeric) -> Tensor:
        """θ at which one function loses its sign, in the part [b] of each row's step, by bisection."""
        values, length = self.values[:, e], step.t1 - step.t0
        begin = numbered(values).gather(0, part[None])
        sign = torch.sign(values.gather(0, begin)[0])
        low, high = begin[0] * (GRID // PARTS), (part + 1) * (GRID // PARTS)
        with torch.no_grad():
            for _ in range(HALVINGS):
                middle = (low + high) // 2
                theta = middle.double() / GRID
                z = step.combine(step.y0, theta_weights(numeric, theta).to(step.y0.dtype))
                held = torch.sign(self._value(self.events[e], step.t0 + theta * length, z)) == sign
                low, high = torch.where(held, middle, low), torch.where(held, high, middle)
        theta = high.double() / GRID
        size = torch.maximum(step.t0.abs(), step.t1.abs())
        spacing = torch.nextafter(size, torch.full_like(size, math.inf)) - size
        off = (step.t1 - (step.t0 + theta * length)).abs()
        return torch.where(off <= 4.0 * spacing, 1.0, theta)  # as `events.on_step`

    def _record(self, e: int, step: SampleStep, valid: Tensor, theta: Tensor, numeric: Numeric) -> Written:
        weights = theta_weights(numeric, theta).to(step.y0.dtype)
        value = step.combine(step.y0, weights)
        value = torch.where(self.clocks.spread(theta == 1.0), step.result.y1, value)
        value = torch.where(self.clocks.spread(valid), value, float("nan"))
        place = torch.full_like(step.index, -1 - len(self.rows))
        t = torch.where(theta == 1.0, step.t1, step.t0 + theta * (step.t1 - step.t0))
        self.fired.append(SamplesFired(e, step.index, valid, t))
        self.rows.append(value)
        return Written(place[None], valid[None], weights[:, None])

    def advance(self, accepted: Tensor) -> None:
        """The values at the steps' ends are the next steps' beginnings."""
        self.before = torch.where(accepted, self.values[-1], self.before)

    def select(self, keep: Tensor) -> None:
        """Samples leave the batch."""
        self.compacted = True
        self.before = self.before.index_select(1, keep)

    def whole_rows(self, batch: int) -> list[Tensor]:
        """The states at events for the whole batch, NaN where a sample was not there; the first last."""
        found = []
        for fired, row in zip(self.fired, self.rows, strict=True):
            shape = list(row.shape)
            shape[self.clocks.batch] = batch
            empty = row.new_full(shape, float("nan"))
            found.append(empty.index_copy(self.clocks.batch, fired.index, row))
        return found[::-1]


def sample_event(event: Event, t: Tensor, z: Tensor, layout: Layout) -> Tensor:
    """One event function's values on the packed state, [b] in float64."""
    batch = len(t)
    value = event.fn(layout.time(t), layout.unpack(z))
    if not isinstance(value, Tensor) or value.shape != (batch,):
        found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise DynamicsError(
            f"an event's fn returned {found}; with per-sample stepping it must return one number a sample, "
            f"shape ({batch},)."
        )
    return signed(value)
