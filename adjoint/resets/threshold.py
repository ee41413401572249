"""Where an event function stands once a reset was applied at its zero, and which resets have no end.

There the value is 0 to within rounding, and its sign says nothing. The sign is therefore that of its slope
along the solution that begins there: an event whose reset brings the state back (a ball that bounces) is on
the side from which it came, however short the way up to its next zero is, and one that goes through (a ball
that enters water) is on the other side. Where the slope is 0 too, a little later decides, so that a ball
which has come to rest on the floor under its weight is seen to fall through it; that is an error.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...solvers.errors import ResetError
from ...solvers.march.event import Event
from ...solvers.march.events import event_value
from ...solvers.status import Status
from ...solvers.step.field import around
from ..engine.event_gradient import slopes_of
from ..engine.problem import Problem
from .jump import Happened, Jumps

NEAR = 8.0  # a value so many roundings from 0 is 0
SPACING = 16.0 * 2.0**-52  # of two resets by one event at one time, relative to the time
BURST, SHORT = 10, 1e-9  # so many resets by one event within such a part of the solve have no end
WAY_OUT = (
    "Let the reset bring the solution away from the event (for a ball: turn its speed, v = -e * v), give the "
    "event a direction, or let it go to a mode in which it rests (a member of the state that stops func)."
)


class Standing:
    """The signs with which the next piece begins, of events that were reset where it begins.

    problem: of the piece before.
    direction: of time, [B].
    """

    def __init__(self, jumps: Jumps, problem: Problem, direction: Tensor):
        self.jumps, self.lanes, self.problem, self.direction = jumps, jumps.lanes, problem, direction

    def signs(self, resets: list[tuple[int, Happened]], n: int, z: Tensor) -> Tensor | None:
        """[n, B] for n watched events, NaN where the value says it; None where it does of all.

        resets: the event's number among them, and what happened.  z: the states after all resets.
        """
        found = torch.full((n, len(z)), torch.nan, dtype=torch.float64, device=z.device)
        any_at = False
        for e, one in resets:
            event = self.jumps.entries[one.entry]
            assert isinstance(event, Event)
            signs = self._of(event, one, z)
            if signs is not None:
                found[e] = torch.where(signs.isnan(), found[e], signs)
                any_at = True
        return found if any_at else None

    def _of(self, event: Event, one: Happened, z: Tensor) -> Tensor | None:
        """[B], NaN where the value says it; None where it does of all."""
        t = one.t.detach()
        value, g_t, g_z = self._slopes(event, t, z)
        if g_t is None and g_z is None:
            return None
        before, _, _ = self._slopes(event, t, one.before.detach())
        size = torch.zeros_like(value)
        if g_t is not None:
            size = size + (g_t * t).abs()
        if g_z is not None:
            size = size + self._total((g_z * z.detach()).abs())
        near = one.which & (value.abs() <= NEAR * (before.abs() + torch.finfo(z.dtype).eps * size))
        if not bool(near.any()):  # host read
            return None
        rate, coming = self._rate(t, z, (g_t, g_z), near), self._coming(event, one, near)
        flat = near & (rate == 0)
        if bool(flat.any()):  # host read
            rate = torch.where(flat, self._later(event, t, z, flat), rate)
        same = (one.before.detach() == one.after.detach()).reshape(len(z), -1).all(1)
        again = near & (rate * coming > 0) & (flat | same | (value * coming < 0))
        if bool(again.any()):  # host read
            self._refuse(one, again)
        return torch.where(near, torch.sign(rate), torch.nan)

    def _refuse(self, one: Happened, again: Tensor) -> None:
        name, whose = self.jumps.name(one.entry), self.jumps.whose(again, one.t)
        at = one.t[again][0].item()  # host read
        raise ResetError(
            *(at, 0.0, Status.STEP_UNDERFLOW, self.problem.stats),
            f"{name} would fire again at once{whose}: its reset leaves it at its threshold, and the solution "
            f"goes on through it. {WAY_OUT}",
        )

    def _coming(self, event: Event, one: Happened, whose: Tensor) -> Tensor:
        """In which direction it fired, [B]: ±1, or a number of that sign."""
        t, z = one.t.detach(), one.before.detach()
        if event.direction:
            return torch.full_like(t, event.direction)
        return self._rate(t, z, self._slopes(event, t, z)[1:], whose)

    def _later(self, event: Event, t: Tensor, z: Tensor, whose: Tensor) -> Tensor:
        """dg/dt a little later, [B]."""
        step = torch.finfo(z.dtype).eps ** 0.5 * t.abs().clamp(min=1.0) * self.direction
        ahead = z.detach() + self.lanes.spread(step.to(z.dtype), z) * self._slope(t, z, whose)
        return self._rate(t + step, ahead, self._slopes(event, t + step, ahead)[1:], whose)

    def _slopes(self, event: Event, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The event function, [B], and its slopes in t and in z, [B, …]; None where it has none."""
        lanes, clocks = self.lanes, self.lanes.clocks

        def value(t: Tensor, z: Tensor) -> Tensor:
            time, y = lanes.told(t, z)
            return event_value(event, time, y, clocks.shape(lanes.back(z))).reshape(len(t))

        if around():  # torch.func.grad begins within every transform
            g_t, g_z = torch.func.grad(lambda t, z: value(t, z).sum(), argnums=(0, 1))(t, z.detach())
            return value(t, z).detach(), g_t.detach(), g_z.detach()
        with torch.inference_mode(False), torch.enable_grad():
            t, z = t.clone().requires_grad_(), z.detach().clone().requires_grad_()
            try:
                found = value(t, z)
                g_t, g_z = slopes_of(found, t, z)
            except RuntimeError:  # fn holds tensors of inference mode, which no graph can keep
                with torch.no_grad():
                    return value(t, z), None, None
            return found.detach(), g_t, g_z

    def _slope(self, t: Tensor, z: Tensor, whose: Tensor) -> Tensor:
        """f(t, z), [B, …]."""
        lanes = self.lanes
        with torch.no_grad():
            state = lanes.back(z.detach())
            time = lanes.clocks.time(lanes.clock(t), state)
            return lanes.front(self.problem.evaluate(time, state, lanes.clock(whose)).detach())

    def _rate(
        self, t: Tensor, z: Tensor, slopes: tuple[Tensor | None, Tensor | None], whose: Tensor
    ) -> Tensor:
        """dg/dt along the solution in the direction in which time runs, [B]."""
        g_t, g_z = slopes
        rate = torch.zeros_like(t)
        if g_t is not None:
            rate = rate + g_t
        if g_z is not None:
            rate = rate + self._total(g_z * self._slope(t, z, whose))
        return rate * self.direction

    def _total(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), -1).sum(1).double()


class Guard:
    """Which events are reset at one time again, or without end (Zeno).

    span: [B], of the solve.  n: how many events are watched.
    """

    def __init__(self, jumps: Jumps, span: Tensor, n: int):
        self.jumps, self.span = jumps, span
        self.last = torch.full((BURST, n, len(span)), torch.inf, dtype=torch.float64, device=span.device)

    def suspicious(self, t: Tensor) -> Tensor:
        """[2, E, B]: which events that fire at t [E, B] (NaN: not) were reset there before, or too often."""
        apart = (t - self.last[0]).abs()
        size = torch.maximum(t.abs(), self.last[0].abs())
        again = apart <= SPACING * torch.where(size.isinf(), 0.0, size)
        return torch.stack((again, (t - self.last[-1]).abs() <= SHORT * self.span))

    def reset(self, t: Tensor) -> None:
        """Those that were reset now, at t [E, B] (NaN: not)."""
        moved = torch.cat((t[None], self.last[:-1]))
        self.last = torch.where(t.isnan(), self.last, moved)

    def refuse(self, flags: Tensor, t: Tensor, entries: list[int], stats: Any) -> None:
        """Raises the ResetError that suspicious [2, E, B] flags stand for."""
        kind, e, b = flags.nonzero()[0].tolist()  # host read
        which = flags[kind, e]
        whose, name = self.jumps.whose(which, t[e]), self.jumps.name(entries[e])
        if kind == 0:
            said = f"{name} fires again at once{whose}, where it was reset just before. {WAY_OUT}"
        else:
            gap = (self.last[0, e, b] - t[e, b]).abs().item()
            said = (
                f"{name} is reset without end{whose} (Zeno): {BURST + 1} resets within {SHORT:g} of the "
                f"solve, the last two {gap:.2g} apart. End the solve before, let the reset go to a mode in "
                "which the solution rests once it is slow enough (a member of the state that stops func), or "
                "make the event terminal there."
            )
        raise ResetError(t[e, b].item(), 0.0, Status.STEP_UNDERFLOW, stats, said)
