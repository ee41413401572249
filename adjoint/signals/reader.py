"""A signal at given times: the pieces that the times lie in, their weights, and the transpose.

Every kind is a sum of rows of one table, u(t) = Σ_e Σ_p w_ep(t) table[i + e, p], i the interval of t: p = 0
is the value at a time and p = 1 the slope there, e = 0 the interval's start and 1 its end. So dL/dtable of a
cotangent ū is w_ep ū, added to these rows.
"""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor

from .knots import hermite, hermite_slopes


class Place(NamedTuple):
    """Where k times lie: rows [k] of the table for e = 0, and weights [k, E, P]; E = 1 where e = 0 is all."""

    rows: Tensor
    weights: Tensor


class Here(NamedTuple):
    """Of the samples present: times, lengths of their intervals (1 for one of no length), the number of the
    last one (None: as the times have it), and where each sample's rows begin (None: one signal for all)."""

    times: Tensor
    lengths: Tensor
    last: Tensor | None
    offset: Tensor | None


class Reader:
    """One signal, to be asked often. Outside its times the nearest sample's value holds.

    knots: [P, …, T, U], from `knots`; with axes between P and T the first is of the samples.
    times: [T] or [B, T], float64; shorter ones repeat their last.
    held: constant from a time to the next.
    order: 1 for the derivative.
    dtype: of what it gives.
    """

    def __init__(self, knots: Tensor, times: Tensor, dtype: torch.dtype, *, held: bool, order: int = 0):
        parts, *lead, length, width = knots.shape
        self.own = bool(lead) or times.dim() == 2
        if times.dim() == 2 and not lead:
            knots, lead = knots[:, None].expand(-1, len(times), -1, -1), [len(times)]
        self.samples = lead[0] if self.own else 1
        self.tail = torch.Size([*lead[1:], width])
        table = knots.movedim((0, -2), (2, 1)) if self.own else knots.movedim(-2, 0)
        self.table = table.reshape(self.samples * length, parts, math.prod(self.tail)).to(dtype)
        self.held, self.order = held, order
        steps = times.diff(dim=-1)
        self.line = not held and order == 0 and parts == 1
        last: Tensor | None = None
        if times.dim() == 2:
            last = (times < times[:, -1:]).sum(-1, keepdim=True)  # of the times that count
            last = last if held else (last - 1).clamp(min=0)
        begin = torch.arange(self.samples, dtype=torch.int64, device=times.device)[:, None] * length
        self._all = Here(times, torch.where(steps > 0, steps, 1.0), last, begin if self.own else None)
        self._here, self.present = self._all, cast("Tensor | None", None)
        self._edges: dict[torch.dtype, Tensor] = {}  # between intervals, in func's dtype

    @property
    def wanted(self) -> bool:
        """Whether a gradient may flow to the samples."""
        return self.table.requires_grad

    def tell(self, present: Tensor | None) -> None:
        """Which samples the next times are of, where some have left the batch; None: all."""
        if present is self.present or not self.own:
            return
        times, lengths, last, offset = self._all
        if present is not None and offset is not None:
            offset = offset.index_select(0, present)
            if isinstance(last, Tensor):
                times, lengths, last = (x.index_select(0, present) for x in (times, lengths, last))
        self._here, self.present, self._edges = Here(times, lengths, last, offset), present, {}

    def __call__(self, t: Tensor) -> Tensor:
        """u at a time for all, 0-d → […, U], or at one of each sample's, [b, 1, …] → [b, …, U]."""
        if self.line:
            return self.shaped(self._on_line(self._as_rows(t)), t)
        return self.shaped(self.value(self.place(t)), t)

    def shaped(self, value: Tensor, t: Tensor) -> Tensor:
        """Rows [k, W] as func wants them."""
        if t.dim() == 0 and not self.own:
            return value.view(self.tail)
        return value.view(-1, *self.tail)

    def place(self, t: Tensor) -> Place:
        """Of times as func gets them."""
        return self.places(self._as_rows(t))

    def _as_rows(self, t: Tensor) -> Tensor:
        offset = self._here.offset
        return t.reshape(1, -1) if offset is None else t.reshape(-1, 1).expand(len(offset), 1)

    def places(self, t: Tensor) -> Place:
        """Of times [n, m], with a row for each sample present, or one where there is one signal for all."""
        i = self._interval(t)
        return Place(self._rows(i), self._weights(t, i).to(self.table.dtype))

    def _interval(self, t: Tensor) -> Tensor:
        """Of each time, [n, m]; outside all the first or the last."""
        # A time of func's may be rounded: it is looked up among times that are rounded alike.
        edges = self._edges.get(t.dtype)
        if edges is None:
            times = self._here.times
            inner = times[..., 1:] if self.held else times[..., 1:-1]
            edges = self._edges[t.dtype] = inner.to(t.dtype).contiguous()
        i, last = torch.searchsorted(edges, t.detach().contiguous(), right=True), self._here.last
        return i if last is None else torch.minimum(i, last)

    def _rows(self, i: Tensor) -> Tensor:
        """Of the table, where intervals begin, [n · m]."""
        offset = self._here.offset
        return (i if offset is None else i + offset).view(-1)

    def _share(self, t: Tensor, i: Tensor) -> tuple[Tensor, Tensor]:
        """How far into their intervals times lie, from 0 to 1, and the intervals' lengths."""
        begin, h = _taken(self._here.times, i), _taken(self._here.lengths, i)
        return ((t.to(h.dtype) - begin) / h).clamp(0, 1), h

    def _on_line(self, t: Tensor) -> Tensor:
        """As `value` of `places`, [k, W], of a signal that is linear between its times."""
        i = self._interval(t)
        share, rows, (width,) = self._share(t, i)[0].view(-1, 1), self._rows(i), self.table.shape[2:]
        table, dtype = self.table.view(-1, width), self.table.dtype
        begin, end = table.index_select(0, rows), table.index_select(0, rows + 1)
        return begin * (1.0 - share).to(dtype) + end * share.to(dtype)

    def _weights(self, t: Tensor, i: Tensor) -> Tensor:
        """[k, E, P], of times in these intervals."""
        if self.held:
            one = torch.zeros_like(t) if self.order else torch.ones_like(t)
            return one.reshape(-1, 1, 1)
        share, h = self._share(t, i)
        pieces: tuple[Tensor, ...] = (-1.0 / h, 1.0 / h) if self.order else (1.0 - share, share)
        if self.table.shape[1] == 2:
            pieces = (hermite_slopes if self.order else hermite)(share, h)
        return torch.stack(pieces, -1).reshape(-1, 2, self.table.shape[1])

    def value(self, place: Place, table: Tensor | None = None) -> Tensor:
        """[k, W] by the weights; table: another than its own."""
        table, (rows, weights) = self.table if table is None else table, place
        if self.held and not self.order:
            return table.view(len(table), -1).index_select(0, rows)
        ends = [table.index_select(0, rows + e if e else rows) for e in range(weights.shape[1])]
        if weights.shape[2] == 1:  # a line, in few operators
            terms = [end[:, 0] * weights[:, e] for e, end in enumerate(ends)]
        else:
            terms = [(end * weights[:, e, :, None]).sum(1) for e, end in enumerate(ends)]
        return terms[0] if len(terms) == 1 else terms[0] + terms[1]

    def transposed(self, place: Place, bar: Tensor) -> Tensor:
        """dL/dtable as a sparse tensor of the rows that count, some of them twice. bar: of what func got."""
        rows, weights = place
        ends = [rows + e if e else rows for e in range(weights.shape[1])]
        values = weights.movedim(1, 0)[..., None] * bar.reshape(1, len(rows), 1, -1)
        return torch.sparse_coo_tensor(
            torch.cat(ends)[None],
            values.reshape(-1, *self.table.shape[1:]),
            self.table.shape,
            dtype=values.dtype,
            device=values.device,
            check_invariants=False,
        )


def _taken(times: Tensor, i: Tensor) -> Tensor:
    return times.take(i) if times.dim() == 1 else times.gather(1, i)
