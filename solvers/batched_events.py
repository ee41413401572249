"""Events of each sample, found on each sample's own dense output without a host read of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from .axes import Axes
from .errors import DynamicsError
from .events import Event
from .interpolant import theta_weights
from .samples import SampleStep, Written
from .state import Layout
from .tableau import Numeric

BISECTIONS = 54  # of θ in [0, 1]: to the spacing of float64


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

    def __init__(self, events: Sequence[Event], layout: Layout, axes: Axes):
        self.events, self.layout, self.axes = events, layout, axes
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
            return sample_event(event, self.axes.clock(t, z), z, self.layout)
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
        self.before = self.evaluate(t, z)

    def crossing(self, step: SampleStep) -> Tensor:
        """[E, b]: which functions change sign in the steps that were accepted."""
        self.after = self.evaluate(step.t1, step.result.y1)
        up = (self.before < 0) & (self.after >= 0)
        down = (self.before > 0) & (self.after <= 0)
        rows = [
            (up[e] if event.direction >= 0 else up[e] & False)
            | (down[e] if event.direction <= 0 else down[e] & False)
            for e, event in enumerate(self.events)
        ]
        return torch.stack(rows) & step.accepted

    def ends(self, crossing: Tensor) -> Tensor:
        """[b]: which samples meet a terminal event."""
        found = torch.zeros_like(crossing[0])
        for e, terminal in enumerate(self.terminal):
            if terminal:
                found = found | crossing[e]
        return found

    def locate(self, step: SampleStep, crossing: Tensor, numeric: Numeric) -> Tensor:
        """Records what fires; [b], the time at which each sample's step ends (t1 but for terminal ones)."""
        thetas = [self._zero(e, step, numeric) for e in range(len(self.events))]
        last = torch.ones_like(step.t1)
        for e, terminal in enumerate(self.terminal):
            if terminal:
                last = torch.where(crossing[e], torch.minimum(last, thetas[e]), last)
        for e, theta in enumerate(thetas):
            self._record(e, step, crossing[e] & (theta <= last), theta, numeric)
        return torch.where(last == 1.0, step.t1, step.t0 + last * (step.t1 - step.t0))

    def _zero(self, e: int, step: SampleStep, numeric: Numeric) -> Tensor:
        """θ of the zero of one function in every row's step, by bisection."""
        low, high = torch.zeros_like(step.t1), torch.ones_like(step.t1)
        sign = torch.sign(self.before[e])
        with torch.no_grad():
            for _ in range(BISECTIONS):
                middle = 0.5 * (low + high)
                t = step.t0 + middle * (step.t1 - step.t0)
                z = step.combine(step.y0, theta_weights(numeric, middle).to(step.y0.dtype))
                value = self._value(self.events[e], t, z)
                same = torch.sign(value) == sign
                low, high = torch.where(same, middle, low), torch.where(same, high, middle)
        return torch.where(self.after[e] == 0, 1.0, high)

    def _record(self, e: int, step: SampleStep, valid: Tensor, theta: Tensor, numeric: Numeric) -> None:
        weights = theta_weights(numeric, theta).to(step.y0.dtype)
        value = step.combine(step.y0, weights)
        value = torch.where(self.axes.spread(theta == 1.0), step.result.y1, value)
        value = torch.where(self.axes.spread(valid), value, float("nan"))
        place = torch.full_like(step.index, -1 - len(self.rows))
        step.outputs.append(Written(place[None], valid[None], weights[:, None]))
        t = torch.where(theta == 1.0, step.t1, step.t0 + theta * (step.t1 - step.t0))
        self.fired.append(SamplesFired(e, step.index, valid, t))
        self.rows.append(value)

    def advance(self, accepted: Tensor) -> None:
        """The values at the steps' ends are the next steps' beginnings."""
        self.before = torch.where(accepted, self.after, self.before)

    def select(self, keep: Tensor) -> None:
        """Samples leave the batch."""
        self.compacted = True
        self.before = self.before.index_select(1, keep)

    def whole_rows(self, batch: int) -> list[Tensor]:
        """The states at events for the whole batch, NaN where a sample was not there; the first last."""
        found = []
        for fired, row in zip(self.fired, self.rows, strict=True):
            shape = list(row.shape)
            shape[self.axes.batch] = batch
            empty = row.new_full(shape, float("nan"))
            found.append(empty.index_copy(self.axes.batch, fired.index, row))
        return found[::-1]


def sample_event(event: Event, t: Tensor, z: Tensor, layout: Layout) -> Tensor:
    """One event function's values on the packed state, [b] in float64."""
    batch = len(t)
    value = event.fn(layout.clock(t), layout.unpack(z))
    if not isinstance(value, Tensor) or value.shape != (batch,):
        found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise DynamicsError(
            f"an event's fn returned {found}; with per-sample stepping it must return one number a sample, "
            f"shape ({batch},)."
        )
    return value.double()
