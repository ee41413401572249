"""A solve under a signal, or with times to hit that are each sample's own: func, jac and the times."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..solvers.errors import ArgumentError
from ..solvers.march.samples import SampleSettings, Together, ends_of
from ..solvers.step.clocks import sent
from ..solvers.step.field import HALF
from .arguments import Request
from .dynamics.driven import Driven
from .dynamics.jacobian import UserJacobian
from .dynamics.protocol import PerSolve
from .signals.signal import Signal
from .signals.stops import check_batch, check_covers, kinks, merged, rows_of


def under_signal(request: Request, signal: Signal, settings: Any) -> tuple[Driven, UserJacobian | None, Any]:
    """func, jac and the settings of a solve, under its signal."""
    z0, layout, jac = request.z0, request.layout, request.options.jac
    if isinstance(request.func, PerSolve):
        raise ArgumentError(
            f"signal with a {type(request.func).__name__}: its field takes (t, x) alone. Let the field read "
            "the input itself: lambda t, x: field(t, x, signal(t))."
        )
    if signal.values.device != z0.device:
        raise ArgumentError(
            f"signal's values are on {signal.values.device}, and y0 is on {z0.device}: "
            "Signal(times.to(device), values.to(device), …)."
        )
    reader = signal.reader(layout.kind if layout.kind in HALF else z0.dtype)
    driven = Driven(request.func, reader)
    if isinstance(settings, SampleSettings):
        settings = dataclasses.replace(settings, present=reader.tell)
    return driven, None if jac is None else driven.jacobian(jac), settings


def with_kinks(
    request: Request, signal: Signal, times: Sequence[float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """step_at and jump_at of a solve with one clock, with the kinks of its signal, of all samples."""
    ends = torch.tensor([times[0], times[-1]], dtype=torch.float64, device="cpu")
    check_covers(signal, ends, request.t.dtype)
    own = tuple(sorted(set(kinks(signal).reshape(-1).tolist())))  # host read
    if signal.jumps_for(request.tableau):
        return request.stops, (*request.jumps, *own)
    return (*request.stops, *own), request.jumps


def own_stops(request: Request, times: Tensor, together: Together | None) -> tuple[Tensor, Tensor]:
    """Times to hit, [B, M], and at which of them f jumps."""
    options, device, signal = request.options, times.device, request.options.signal

    given = {"step_at": request.stops, "jump_at": request.jumps}
    own = [rows_of(getattr(options, name), len(times), name) for name in given]
    pairs = zip(own, given.values(), strict=True)
    steps, jumps = ([sent(x, device) if rows is None else rows.to(device)] for rows, x in pairs)
    if signal is not None:
        check_batch(signal, len(times))
        check_covers(signal, ends_of(times), request.t.dtype)
        (jumps if signal.jumps_for(request.tableau) else steps).append(kinks(signal).to(device))
    return merged(steps, jumps, len(times), None if together is None else (together.ids, together.n))
