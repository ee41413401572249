"""What is met at the end of a piece: which events fired, which impulses are due, who goes on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ...solvers.checks import check_readable
from ...solvers.errors import ArgumentError
from ...solvers.march.event import Event, Impulse
from ...solvers.status import Status
from .lanes import Lanes, Piece, Seen
from .threshold import Guard


@dataclasses.dataclass(frozen=True)
class Read:
    """Of `Met` what the host wants to know.

    enders, watched, due: which samples, a row each.  left: attempts that are left to whom most are.
    """

    enders: list[list[bool]]
    watched: list[list[bool]]
    due: list[list[bool]]
    going: bool
    suspicious: bool
    left: int


@dataclasses.dataclass(frozen=True)
class Met:
    """What is met at the end of a piece; [B] each, without gradients.

    enders: of each event that ends a piece what fired of it, all samples together; watched: of the others.
    due: which samples, of each impulse.
    ended: when the piece ended (of a failed sample: when it should have).
    reached: who came there; stopped: who met a terminal event; over: who took more attempts than allowed.
    going: who goes on; used: attempts so far.
    resets: [E, B], when each event was reset (NaN: was not); suspicious: as `Guard.suspicious`.
    left: attempts that are left.
    """

    enders: list[Seen]
    watched: list[Seen]
    due: dict[int, Tensor]
    ended: Tensor
    reached: Tensor
    stopped: Tensor
    over: Tensor
    going: Tensor
    used: Tensor
    left: Tensor
    resets: Tensor
    suspicious: Tensor

    def read(self) -> Read:
        """One host read."""
        flags = [seen.valid for seen in (*self.enders, *self.watched)]
        flags += [*self.due.values(), self.going, self.suspicious.any(0).any(0)]
        numbers = torch.stack([*(flag.long() for flag in flags), torch.where(self.going, self.left, 0)])
        *rows, left = numbers.tolist()  # host read
        told = [[bool(x) for x in row] for row in rows]
        n, m = len(self.enders), len(self.enders) + len(self.watched)
        *due, going, suspicious = told[m:]
        return Read(told[:n], told[n:m], due, any(going), any(suspicious), max(left))


def together(seen: list[Seen], event: int, lanes: Lanes) -> Seen | None:
    """All that fired of one event in a piece that ends with it: once for each sample."""
    own = [one for one in seen if one.event == event]
    if not own:
        return None
    found = own[0]
    for one in own[1:]:
        z = lanes.back(lanes.choose(one.valid, lanes.front(one.z), lanes.front(found.z)))
        found = Seen(event, torch.where(one.valid, one.t, found.t), found.valid | one.valid, z)
    return found


@dataclasses.dataclass(frozen=True)
class Meeting:
    """Looks at the ends of a solve's pieces.

    events: those watched in a piece, of which the terminal ones end it; reset: whether such a one is reset.
    impulses: [B, n] times, each by its number among the entries.
    end: [B], of the solve.
    most: max_steps.
    """

    lanes: Lanes
    events: Sequence[Event]
    reset: Sequence[bool]
    impulses: dict[int, Tensor]
    end: Tensor
    most: int
    guard: Guard

    def at(self, piece: Piece, used: Tensor) -> Met:
        """What is met at the end of a piece. used: attempts before it, [B]."""
        lanes, live, stats = self.lanes, piece.plan.live, piece.problem.stats
        numbers = [e for e, event in enumerate(self.events) if event.terminal]
        enders = [one for e in numbers if (one := together(piece.seen, e, lanes)) is not None]
        watched = [one for one in piece.seen if not self.events[one.event].terminal]
        ended, stopped = piece.plan.stop.detach(), torch.zeros_like(live)
        resets = torch.full((len(self.events), len(live)), math.nan, dtype=torch.float64, device=live.device)
        for one in reversed(enders):
            ended = torch.where(one.valid, one.t, ended)
            if self.reset[one.event]:
                resets[one.event] = torch.where(one.valid, one.t, math.nan)
            else:
                stopped = stopped | one.valid
        used = used + torch.where(live, stats.n_steps, 0)  # with one clock a number
        over = live & (used > self.most)
        came = (piece.status == int(Status.SUCCESS)) | (piece.status == int(Status.EVENT))
        reached = live & came & ~over
        due = {i: reached & (times.detach() == ended[:, None]).any(1) for i, times in self.impulses.items()}
        going = reached & ~stopped & (ended != self.end) & (used < self.most)
        suspicious = self.guard.suspicious(resets)
        left = self.most - used
        return Met(enders, watched, due, ended, reached, stopped, over, going, used, left, resets, suspicious)


def impulse_times(impulse: Impulse, lanes: Lanes, like: Tensor, batch: int) -> Tensor:
    """[B, n], float64 with the resolution of the solve's times; refuses NaN and other shapes."""
    times = impulse.times
    if isinstance(times, Tensor):
        check_readable(times, "Impulse: times")
    else:
        times = torch.as_tensor(times, dtype=torch.float64, device="cpu")
    if times.dim() not in (1, 2) or (times.dim() == 2 and (not lanes.many or len(times) != batch)):
        wanted = (
            f"[n], or [B, n] with B={batch}" if lanes.many else "[n] (with stepping='per_sample' also [B, n])"
        )
        raise ArgumentError(f"Impulse: times has shape {tuple(times.shape)}; it must be {wanted}.")
    if bool(times.isnan().any()):  # host read
        raise ArgumentError("Impulse: times holds NaN; give math.inf for a time that never comes.")
    times = times.to(like.dtype).to(lanes.request.z0.device, torch.float64, non_blocking=True)
    return times if times.dim() == 2 else times.expand(batch, -1)
