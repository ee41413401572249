"""What a reverse solve stops at: outputs, events and kept states in order of time, with their cotangents."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ...solvers.step.clocks import Each
from ..recording import Rows, Seen


@dataclasses.dataclass(frozen=True)
class Observations:
    """The rows of a reverse solve, the start first.

    times: floats in order of time; per sample [n, B], each column in its own order.
    values, g: the states and their cotangents, a row for each time.
    """

    times: Any
    values: Rows
    g: Rows


Kept = tuple[Any, Tensor]  # a time (per sample [B]) and the state there


def in_order(seen: Seen, g: Rows, kept: Iterable[Kept] = ()) -> Observations:
    """Those of a solve with one clock, without what lies after a terminal event, never reached.

    kept: further states, of which those count that lie strictly inside and at no other row's time.
    """
    start = seen.times[0]
    all_rows = zip(seen.times, seen.values, g, seen.places, strict=True)
    rows: list[tuple[Any, Tensor, Tensor]] = [(t, z, own) for t, z, own, at in all_rows if at.step != -2]
    known, length = {t for t, *_ in rows}, max(abs(t - start) for t, *_ in rows)
    inside = [(t, z) for t, z in kept if t not in known and abs(t - start) < length]
    rows += [(t, z, torch.zeros_like(z)) for t, z in inside]
    rows.sort(key=lambda row: abs(row[0] - start))
    return Observations(*zip(*rows, strict=True))


def in_each_order(seen: Seen, g: Rows, kept: Iterable[Kept], clocks: Each) -> Observations:
    """Those of a solve with a clock a sample, of each sample in its own order.

    Where a sample has fewer rows than others its last one repeats with g = 0.
    """
    times, values = seen.times, seen.values
    assert isinstance(times, Tensor)
    assert isinstance(values, Tensor)
    assert isinstance(g, Tensor)
    for time, z in kept:
        times, values = torch.cat((times, time[None])), torch.cat((values, z[None]))
        g = torch.cat((g, torch.zeros_like(z)[None]))
    missing = times.isnan() | clocks.rows_per_sample(values.isnan()).any(2)
    missing = missing & (times != times[0])  # an output at the start is the start, whatever that holds
    key = torch.where(missing, torch.inf, (times - times[0]).abs())
    order = key.argsort(dim=0, stable=True)
    reached = (~missing).sum(0)
    rank = torch.arange(len(times), dtype=torch.int64, device=times.device)[:, None].expand_as(order)
    pick = order.gather(0, torch.minimum(rank, reached - 1))
    by_sample, cotangents = values.movedim(clocks.batch + 1, 1), g.movedim(clocks.batch + 1, 1)
    samples = torch.arange(times.shape[1], dtype=torch.int64, device=times.device)
    own = cotangents[pick, samples]
    # A sample that never began holds NaN: it stands still where a healthy one starts.
    begins = clocks.all(torch.isfinite(values[0]))
    twin = torch.where(begins, samples, begins.to(torch.int8).argmax())
    pick = torch.where(begins, pick, 0)
    z = by_sample[pick, twin].movedim(1, clocks.batch + 1)
    own = torch.where((rank < reached).view(*rank.shape, *[1] * (own.dim() - 2)), own, 0.0)
    return Observations(times[pick, twin], z, own.movedim(1, clocks.batch + 1))
