"""What a case's program has to return, from the exact flow, with its exact gradients by autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from .alphabet import Case
from .numbers import Numbers
from .perform import Leaves
from .zeros import moving_time


def exact_values(case: Case, numbers: Numbers, leaves: Leaves, times: Tensor) -> dict[str, Tensor]:
    """The values that `perform` gives, under the same names; NaN where there is none.

    times: of y where every step is saved, [n] or [n, B].
    """
    start = leaves.t[:, 0] if leaves.t.dim() == 2 else leaves.t[0].expand(case.batch)
    y0 = leaves.y0

    def along(s: Tensor) -> Tensor:
        """[n] or [n, B] → [n, B, D]."""
        wide = s if s.dim() == 2 else s[:, None].expand(-1, case.batch)
        there = ~wide.isnan()
        if case.quirk == "nan":
            there = there & (torch.arange(case.batch) < case.batch - 1)
        at = torch.where(there, wide, start.detach())
        y = numbers.flow.exact(at[..., None], start[:, None], y0, leaves.theta)
        return torch.where(there[..., None], y, torch.nan)

    if case.save == "steps":
        s = times
    else:
        s = leaves.t.t() if leaves.t.dim() == 2 else leaves.t
        s = s[-1:] if case.save == "end" else s
        s = s[:1] if case.face == "odeint_event" else s
    values = {"y": _until_the_event(case, numbers, s.detach(), along(s))}
    if case.dense:
        values["asked"] = along(leaves.asked)
        values["slopes"] = _slopes(case, numbers, leaves)
    if case.events:
        values |= _events(case, numbers, leaves, start)
    return values


def _until_the_event(case: Case, numbers: Numbers, s: Tensor, y: Tensor) -> Tensor:
    """NaN where a terminal event came before."""
    if not (case.events and case.terminal) or case.save == "steps":
        return y
    wide = s if s.dim() == 2 else s[:, None].expand(-1, case.batch)
    sign = -1.0 if case.backwards else 1.0
    for b in range(case.batch):
        times = numbers.fired[b if case.per_sample else 0]
        if times:
            past = (wide[:, b] - times[0]) * sign > 0
            mine = torch.arange(case.batch) == b
            y = torch.where((past[:, None] & mine)[..., None], torch.nan, y)
    return y


def _slopes(case: Case, numbers: Numbers, leaves: Leaves) -> Tensor:
    """y' at the times asked for, without a gradient."""
    at = leaves.asked.detach()
    wide = at if at.dim() == 2 else at[:, None].expand(-1, case.batch)
    start = leaves.t[:, 0] if leaves.t.dim() == 2 else leaves.t[0].expand(case.batch)
    theta = tuple(p.detach() for p in leaves.theta)
    rows = []
    for row in wide:
        y = numbers.flow.exact(row[None, :, None], start.detach()[:, None], leaves.y0.detach(), theta)[0]
        rows.append(numbers.flow.rhs(row[:, None], y, theta))
    found = torch.stack(rows)
    if case.quirk == "nan":
        found[:, -1] = torch.nan
    return found


def _events(case: Case, numbers: Numbers, leaves: Leaves, start: Tensor) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {}
    assert numbers.zero is not None
    together = (start, leaves.y0, leaves.level, *leaves.theta)
    for b, times in enumerate(numbers.fired):
        rows = [moving_time(numbers.zero, numbers.flow, t, b, together) for t in times]
        width = leaves.y0.shape[1]
        shape = (0, width) if case.per_sample else (0, case.batch, width)
        values[f"te{b}"] = torch.stack([t for t, _ in rows]) if rows else torch.zeros(0).double()
        states = [y[b] if case.per_sample else y for _, y in rows]
        values[f"ye{b}"] = torch.stack(states) if rows else torch.zeros(shape).double()
    return values
