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
    aligned: samples that step together stop at the same times.
    """

    times: Any
    values: Rows
    g: Rows
    aligned: bool = True


Kept = tuple[Any, Tensor]  # a time (per sample [B]) and the state there


def in_order(seen: Seen, g: Rows, kept: Iterable[Kept] = ()) -> Observations:
    """Those of a solve with one clock, without what lies after a terminal event, never reached.

    kept: further states, of which those count that lie strictly inside and at no other row's time.
    """
    start = seen.times[0]
    reached = [i for i, place in enumerate(seen.places) if place.step != -2]
    rows: list[tuple[Any, Tensor, Tensor]] = [(seen.times[i], seen.values[i], g[i]) for i in reached]
    rows.sort(key=lambda row: abs(row[0] - start))
    known, length = {row[0] for row in rows}, abs(rows[-1][0] - start)
    inside = [(t, z) for t, z in kept if t not in known and abs(t - start) < length]
    rows += [(t, z, torch.zeros_like(z)) for t, z in inside]
    rows.sort(key=lambda row: abs(row[0] - start))
    times, values, cotangents = zip(*rows, strict=True)
    return Observations(times, values, cotangents)


def in_each_order(times: Tensor, values: Tensor, g: Tensor, clocks: Each) -> Observations:
    """Those of a solve with a clock a sample.

    times: [n, B], NaN where not reached; the first row is the start.  values, g: [n, *z].
    Where a sample has fewer rows than others its last one repeats with g = 0.
    """
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
