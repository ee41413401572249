"""What a chain of pieces gives as one solve: outputs, statistics, and answers for any time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...solvers.errors import ArgumentError
from ...solvers.stats import Stats
from ..engine.dense import DenseQuery
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

    def at(self, t: Tensor, which: Tensor, z: Tensor) -> Tensor:
        """z in the place of the last row, at t [B], of the samples in `which`."""
        again = which & (self.times[-1] == t)
        self.times[-1] = torch.where(again, math.nan, self.times[-1])
        self.times.append(torch.where(which, t, math.nan)[None])
        self.values.append(z[None])
        return again[:0]

    def result(self) -> tuple[Tensor | None, Tensor]:
        """(times [n, B], [n, B, …]), each sample's rows in front, NaN after them."""
        times, values = torch.cat(self.times), torch.cat(self.values)
        missing = times.isnan()
        n = int((~missing).sum(0).amax())  # host read
        order = missing.to(torch.int8).argsort(0, stable=True)[:n]
        times = times.gather(0, order)
        values = values.gather(0, self.lanes.spread(order, values).expand(-1, *values.shape[1:]))
        return times, self.lanes.choose(times.isnan(), torch.full_like(values, math.nan), values)


class ChainStats(Stats[Any, Any]):
    """The statistics of several pieces, added up when they are asked for: a backward pass fills its part then.

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
    closing: what resets at the end of the solve made of the last states, [B] and [B, …].
    """

    def __init__(
        self,
        lanes: Lanes,
        pieces: Sequence[tuple[Piece, Tensor]],
        ends: tuple[Tensor, Tensor],
        closing: tuple[Tensor, Tensor],
        *,
        detached: bool,
    ):
        self.lanes, self.pieces, self.closing = lanes, pieces, closing
        self.start, self.end = ends
        self.queries = [DenseQuery(piece.problem, piece.answer, detached=detached) for piece, _ in pieces]
        self.like = pieces[0][0].plan.z
        self.device = self.like.device

    def value(self, t: Tensor) -> Tensor:
        """y at the times."""
        which, z = self.closing
        return self._over(t, lambda query, t: query.value(t), lambda t: z, which)

    def derivative(self, t: Tensor) -> Tensor:
        """y' at the times."""
        which, z = self.closing

        def after(t: Tensor) -> Tensor:
            state, problem = self.lanes.back(z), self.pieces[-1][0].problem
            with torch.no_grad():
                time = self.lanes.clocks.time(self.lanes.clock(t), state)
                return self.lanes.front(problem.evaluate(time, state, self.lanes.clock(which)))

        return self._over(t, lambda query, t: query.derivative(t), after, which)

    def _over(
        self,
        t: Tensor,
        ask: Callable[[DenseQuery, Tensor], Tensor],
        after: Callable[[Tensor], Tensor],
        closed: Tensor,
    ) -> Tensor:
        """[n, *z] from the pieces in which the times lie."""
        lanes, like = self.lanes, self.like
        asked = t.to(self.device, torch.float64, non_blocking=True)
        asked = asked if lanes.many else asked[:, None]
        times = asked.detach()  # [n, B]
        self._check(times)
        found = torch.full((len(times), *like.shape), math.nan, dtype=like.dtype, device=like.device)
        for (piece, end), query in zip(self.pieces, self.queries, strict=True):
            start = piece.plan.times[:, 0].detach()
            direction = torch.where(end < start, -1.0, 1.0)
            inside = ((times - start) * direction >= 0) & ((times - end) * direction <= 0) & piece.plan.live
            rows = [n for n, some in enumerate(inside.any(1).tolist()) if some]  # host read
            if not rows:
                continue
            index = torch.tensor(rows, dtype=torch.int64, device=times.device)
            inside = inside.index_select(0, index)
            own = torch.where(inside, asked.index_select(0, index), start)
            value = lanes.rows(ask(query, own if lanes.many else own[:, 0]))
            value = lanes.choose(inside, value, found.index_select(0, index))
            found = found.index_copy(0, index, value)
        last = closed & (times == self.end)
        if bool(last.any()):  # host read
            found = lanes.choose(last, after(self.end)[None], found)
        return lanes.states(found)

    def _check(self, t: Tensor) -> None:
        low, high = torch.minimum(self.start, self.end), torch.maximum(self.start, self.end)
        outside = (t < low) | (t > high) | t.isnan()
        if bool(outside.any()):  # host read
            n, b = outside.nonzero()[0].tolist()
            whose = f" of sample {b}" if self.lanes.many else ""
            raise ArgumentError(
                f"t={t[n, b].item()!r}{whose} lies outside the solve, which ran from {self.start[b].item()!r} to "
                f"{self.end[b].item()!r}: a dense output is no extrapolation."
            )
