"""What a chain of pieces gives as one solve: outputs, statistics, and answers for any time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ...solvers.attempts import Attempts, TraceRow
from ...solvers.checks import moves
from ...solvers.march.dense import check_within
from ...solvers.stats import Stats
from ...solvers.step.clocks import sent
from ...solvers.step.field import follows
from ..engine.dense import DenseQuery
from .jump import Happened
from .lanes import Lanes, Piece


class AtTimes:
    """The states at the times that were asked for; what is never reached stays NaN.

    wanted: [B, T].  direction: of time, [B].
    """

    def __init__(self, lanes: Lanes, wanted: Tensor, direction: Tensor, z0: Tensor):
        self.lanes, self.wanted = lanes, wanted.detach().t()
        self.direction = direction
        self.values = torch.full_like(z0, math.nan)[None].repeat(len(self.wanted), *[1] * z0.dim())
        self.at(wanted[:, 0].detach(), torch.ones_like(direction, dtype=torch.bool), z0)

    def piece(self, piece: Piece, live: Tensor, end: Tensor) -> None:
        """The outputs after its start, up to when it ended [B], of the samples in `live`."""
        times, start = self.wanted, piece.plan.times[:, 0].detach()
        after = (times - start) * self.direction > 0
        here = live & after & ((times - end) * self.direction <= 0)
        row = 1 + torch.cumsum(after, 0) - 1  # the first output after the start is the piece's row 1
        row = torch.where(here, row, 0)
        rows = piece.rows
        picked = rows.gather(0, self.lanes.spread(row, rows).expand(-1, *rows.shape[1:]))
        self.values = self.lanes.choose(here, picked, self.values)

    def at(self, t: Tensor, which: Tensor, z: Tensor) -> Tensor:
        """z at the outputs that are t, [B], of the samples in `which`; which outputs these are, [T, B]."""
        here = which & (self.wanted == t)
        self.put(here, z)
        return here

    def put(self, here: Tensor, z: Tensor) -> None:
        """States [B, …] in the rows and of the samples in `here`, [T, B]."""
        self.values = self.lanes.choose(here, z[None], self.values)

    def result(self) -> tuple[Tensor | None, Tensor]:
        """(the times that the solver chose: none; [T, B, …])."""
        return None, self.values


class AtSteps:
    """The states at the end of each accepted step."""

    def __init__(self, lanes: Lanes, wanted: Tensor, direction: Tensor, z0: Tensor):
        self.lanes = lanes
        start = wanted[:1, 0] if not lanes.many else wanted[:, 0]
        self.times, self.values = [start.detach()[None]], [z0[None]]

    def piece(self, piece: Piece, live: Tensor, end: Tensor) -> None:
        """All rows but the start."""
        self.times.append(torch.where(live, piece.times[1:], math.nan))
        self.values.append(piece.rows[1:])

    def at(self, t: Tensor, which: Tensor, z: Tensor) -> None:
        """z in the place of the last row, at t [B], of the samples in `which`."""
        again = which & (self.times[-1] == t)
        self.times[-1] = torch.where(again, math.nan, self.times[-1])
        self.times.append(torch.where(which, t, math.nan)[None])
        self.values.append(z[None])

    def result(self) -> tuple[Tensor | None, Tensor]:
        """(times [n, B], [n, B, …]), each sample's rows in front, NaN after them."""
        times, values = torch.cat(self.times), torch.cat(self.values)
        missing = times.isnan()
        n = int((~missing).sum(0).amax())  # host read
        order = missing.to(torch.int8).argsort(stable=True, dim=0)[:n]
        times = times.gather(0, order)
        values = values.gather(0, self.lanes.spread(order, values).expand(-1, *values.shape[1:]))
        return times, self.lanes.choose(times.isnan(), torch.full_like(values, math.nan), values)


class ChainStats(Stats[Any, Any]):
    """The statistics of several pieces, added up when asked for: a backward pass fills its part then.

    live: [B] for each piece, whose of its counts count; None with one clock.
    """

    def __init__(self, pieces: Sequence[Stats[Any, Any]], live: Sequence[Tensor | None]):
        self.pieces, self.live = list(pieces), list(live)

    def of(self, name: str) -> Any:
        """One of the numbers."""
        found = [getattr(piece, name) for piece in self.pieces]
        if name == "reconstruction_error":
            known = [x for x in found if not math.isnan(x)]
            return max(known, default=math.nan)
        if name == "dt_first":
            return found[0]
        if name == "dt_last":
            return self._latest(found)
        return sum(
            torch.where(live, x, 0) if isinstance(x, Tensor) and live is not None else x
            for x, live in zip(found, self.live, strict=True)
        )

    def _latest(self, found: list[Any]) -> Any:
        last = found[0]
        for x, live in zip(found[1:], self.live[1:], strict=True):
            last = torch.where(live, x, last) if live is not None and isinstance(x, Tensor) else x
        return last


def _number(name: str) -> property:
    return property(lambda stats: stats.of(name))


for _field in dataclasses.fields(Stats):
    setattr(ChainStats, _field.name, _number(_field.name))


class ChainQuery:
    """y(t) and y'(t) over all pieces; at the time of a reset after it.

    pieces: each with when it ended, [B].
    ends: [B] each, of the whole solve.
    closing: whom resets met at the end of the solve [B], when [B], and the states after them [B, …].
    """

    def __init__(
        self,
        lanes: Lanes,
        pieces: Sequence[tuple[Piece, Tensor]],
        ends: tuple[Tensor, Tensor],
        closing: tuple[Tensor, Tensor, Tensor],
        *,
        detached: bool,
    ):
        self.lanes, self.closing, self.detached = lanes, closing, detached
        self.start, self.end = ends
        self.last = pieces[-1][0].problem
        self.spans = [(piece.plan.times[:, 0].detach(), end, piece.plan.live) for piece, end in pieces]
        self.queries = [DenseQuery(piece.problem, piece.answer, detached=detached) for piece, _ in pieces]
        self.like = pieces[0][0].plan.z
        self.device = self.like.device
        self.slope: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Numbers alone, as `DenseQuery` has them."""
        own = pytree.tree_map_only(Tensor, Tensor.detach, dict(vars(self)))
        return {**own, "last": None, "detached": True, "slope": self._closing_slope(self.end, counted=False)}

    def value(self, t: Tensor) -> Tensor:
        """y at the times."""
        return self._over(t, lambda query, t: query.value(t), self._closing_value)

    def derivative(self, t: Tensor) -> Tensor:
        """y' at the times."""
        return self._over(t, lambda query, t: query.derivative(t), self._closing_slope)

    def _closing_value(self, t: Tensor) -> Tensor:
        """States [n, B, …] at times t [n, B] that are the end."""
        _, end, z = self.closing
        if self.detached or not (follows() and (moves(t) or moves(end))):
            return z[None]
        problem = self.last
        return torch.stack(
            [self.lanes.moved(problem, z, end, end.detach() + (own - own.detach())) for own in t]
        )

    def _closing_slope(self, t: Tensor, *, counted: bool = True) -> Tensor:
        """Slopes there, [1, B, …]. counted: among the solve's evaluations."""
        if self.slope is not None:
            return self.slope
        which, end, z = self.closing
        lanes, state, problem = self.lanes, self.lanes.back(z), self.last
        with torch.no_grad():
            time = lanes.clocks.time(lanes.clock(end), state)
            if counted:
                return lanes.front(problem.evaluate(time, state, lanes.clock(which)))[None].detach()
            return lanes.front(problem.plain(time, state))[None].detach()

    def _over(
        self,
        t: Tensor,
        ask: Callable[[DenseQuery, Tensor], Tensor],
        after: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """[n, *z] from the pieces in which the times lie."""
        lanes, like = self.lanes, self.like
        asked = t.to(self.device, torch.float64, non_blocking=True)
        asked = asked if lanes.many else asked[:, None]
        times = asked.detach()  # [n, B]
        check_within(times, self.start, self.end, many=lanes.many)
        found = torch.full((len(times), *like.shape), math.nan, dtype=like.dtype, device=like.device)
        for (start, end, live), query in zip(self.spans, self.queries, strict=True):
            direction = torch.where(end < start, -1.0, 1.0)
            inside = ((times - start) * direction >= 0) & ((times - end) * direction <= 0) & live
            rows = [n for n, some in enumerate(inside.any(1).tolist()) if some]  # host read
            if not rows:
                continue
            index = sent(rows, times.device, torch.int64)
            inside = inside.index_select(0, index)
            own = torch.where(inside, asked.index_select(0, index), start)
            value = lanes.rows(ask(query, own if lanes.many else own[:, 0]))
            value = lanes.choose(inside, value, found.index_select(0, index))
            found = found.index_copy(0, index, value)
        last = self.closing[0] & (times == self.end)
        if bool(last.any()):  # host read
            found = lanes.choose(last, after(asked), found)
        return lanes.states(found)


def trace_of(pieces: Sequence[Piece], *, many: bool) -> Attempts:
    """All attempts; evaluations are counted on from piece to piece."""
    rows, seen, own = list[TraceRow](), list[Any](), Attempts()
    before: Any = 0
    for piece in pieces:
        trace, counts = piece.problem.wish.trace, before
        if isinstance(before, Tensor):
            counts = before.tolist()  # host read
        own = Attempts() if trace is None else trace.rows()
        seen += own.seen
        for row in own:
            more = counts if row.sample is None or not isinstance(counts, list) else counts[row.sample]
            rows.append(dataclasses.replace(row, nfe=row.nfe + more))
        spent = piece.problem.stats.nfe
        before = before + (torch.where(piece.plan.live, spent, 0) if many else spent)
    return Attempts(rows, seen, own.request, own.kept)


def events_of(
    happened: Sequence[Happened], n: int, lanes: Lanes, t: Tensor, z: Tensor
) -> tuple[list[Any], list[Any], list[Any]]:
    """For each of n entries of `events` when it happened, and the states before and after; a list over
    samples with a clock each.

    t, z: like which the times are, and the states [B, …].
    """
    layout = lanes.layout

    batch = len(z)

    def of_entry(entry: int) -> list[list[Any]]:
        own = [one for one in happened if one.entry == entry]
        index = [k * batch + b for b in range(batch) for k, one in enumerate(own) if one.mask[b]]
        counts = [sum(one.mask[b] for one in own) for b in range(batch)]
        where = sent(index, z.device, torch.int64)

        def split(rows: list[Tensor], like: Tensor) -> list[Tensor]:
            flat = torch.cat(rows) if rows else like
            return list(torch.split(flat.index_select(0, where), counts))

        times = [x.to(t) for x in split([one.t for one in own], z.new_empty(batch, dtype=torch.float64))]
        states = [split([getattr(one, name) for one in own], z) for name in ("before", "after")]
        return [times, *([layout.unpack(x) for x in each] for each in states)]

    found = [of_entry(entry) for entry in range(n)]
    times, before, after = ([x[k] if lanes.many else x[k][0] for x in found] for k in range(3))
    return times, before, after
