"""The times that steps must end on: a signal's kinks, and times that samples have of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...solvers.errors import ArgumentError
from .signal import Signal


def kinks(signal: Signal) -> Tensor:
    """[T − 1] or [B, T − 1]: before its first time a signal is what it is there, so that is none."""
    return signal.sample_times[..., 1:]


def check_covers(signal: Signal, ends: Tensor, dtype: torch.dtype) -> None:
    """Raises ArgumentError where a solve runs where a signal has no samples. A host read.

    ends: [2], or [B, 2] of each sample, float64.  dtype: that the times were given in.
    """
    times, ends = signal.sample_times, ends.to(signal.sample_times.device, non_blocking=True)
    if ends.dim() == 2 and times.dim() == 2 and len(ends) != len(times):
        return  # said by `check_batch`
    known, runs = torch.stack((times[..., 0], times[..., -1]), -1), ends.sort(-1).values
    rounding = torch.finfo(signal.times.dtype).eps + torch.finfo(dtype).eps
    slack = 2.0 * rounding * torch.maximum(known.abs().amax(-1), runs.abs().amax(-1))
    early = runs[..., 0] < known[..., 0] - slack
    wrong = early | (runs[..., 1] > known[..., 1] + slack)
    if not bool(wrong.any()):  # host read
        return
    b = int(wrong.reshape(-1).to(torch.int8).argmax())
    knows, asked, before = (
        x.expand((*wrong.shape, *x.shape[wrong.dim() :])).reshape(wrong.numel(), -1)[b].tolist()
        for x in (known, runs, early)
    )
    whose = f" of sample {b}" if wrong.dim() else ""
    end = f"t={asked[0]:.6g}, its first" if before[0] else f"t={asked[1]:.6g}, its last"
    raise ArgumentError(
        f"signal{whose} is known from t={knows[0]:.6g} to t={knows[1]:.6g}, and the solve runs from "
        f"t={asked[0]:.6g} to t={asked[1]:.6g}: solve within its times, or add a sample at {end} value, "
        "which holds that value."
    )


def check_batch(signal: Signal, batch: int) -> None:
    """Raises ArgumentError where a signal's samples are not those of a solve with a clock a sample."""
    own = signal.times.dim() == 2 or signal.values.dim() > 2
    n = len(signal.times) if signal.times.dim() == 2 else len(signal.values)
    if own and n != batch:
        raise ArgumentError(
            f"signal has {n} samples (times {tuple(signal.times.shape)}, values "
            f"{tuple(signal.values.shape)}), and y0 has {batch}: give each its own, or times [T] and values "
            "[T, U] for all."
        )


def rows_of(given: Any, batch: int, argument: str) -> Tensor | None:
    """step_at or jump_at of each sample, [B, n]; None where they are the same for all."""
    if not isinstance(given, Tensor) or given.dim() != 2:
        return None
    if len(given) != batch:
        raise ArgumentError(
            f"{argument} has shape {tuple(given.shape)}; per sample give [n] for all, or [{batch}, n] each "
            "its own (a sample with fewer repeats its last)."
        )
    return given.detach().double()


def merged(
    steps: Sequence[Tensor], jumps: Sequence[Tensor], batch: int, groups: tuple[Tensor, int] | None
) -> tuple[Tensor, Tensor]:
    """All times of each sample, [B, M] sorted, and at which of them f jumps.

    steps, jumps: [n] or [B, n] each, on one device.
    groups: each sample's, and how many; samples that share steps share their times to hit. A host read, then.
    """
    rows = [x.expand(batch, -1) for x in (*steps, *jumps)]
    flags = [torch.full_like(x, i >= len(steps), dtype=torch.bool) for i, x in enumerate(rows)]
    stops, jump = torch.cat(rows, 1), torch.cat(flags, 1)
    if groups is not None:
        stops, jump = _united(stops, jump, *groups)
    stops, order = stops.sort(1)
    # One flag for all entries at a time: whether one of them is a jump.
    total = torch.nn.functional.pad(jump.gather(1, order).to(torch.int64).cumsum(1), (1, 0))
    begin, end = (torch.searchsorted(stops, stops, right=right) for right in (False, True))
    return stops, total.gather(1, end) > total.gather(1, begin)


def _united(stops: Tensor, jump: Tensor, ids: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """With those of all samples of a group, ∞ where another group has more."""
    found: list[dict[float, bool]] = [{} for _ in range(n)]
    rows, flags, whose = stops.tolist(), jump.tolist(), ids.tolist()  # host read
    for own, times, jumps in zip(whose, rows, flags, strict=True):
        for t, is_jump in zip(times, jumps, strict=True):
            found[own][t] = found[own].get(t, False) or is_jump
    most = max(map(len, found))
    pad = [list(one.items()) + [(float("inf"), False)] * (most - len(one)) for one in found]
    table, kinds = ([[pair[k] for pair in row] for row in pad] for k in (0, 1))
    times = torch.tensor(table, dtype=torch.float64, device="cpu")
    marks = torch.tensor(kinds, dtype=torch.bool, device="cpu")
    every, jumps_of = (x.to(stops.device)[ids] for x in (times, marks))
    return every, jumps_of
