"""torchdiffeq: its adjoint, with its default norm and the seminorm, and backpropagation through its steps."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from ..cases import Case
from ..job import Counts, TorchJob
from ..subject import Forward, Subject, channels_last, job, stacked
from ..way import PEER, Way


def direct(case: Case, tol: float, **more: Any) -> Forward:
    """Backpropagation through the steps; also the plain forward solve."""
    import torchdiffeq

    return lambda f, y0: torchdiffeq.odeint(f, y0, case.t, rtol=tol, atol=tol, **more)[1:]


def _fixed(case: Case, tol: float) -> Forward:
    """Steps of one length."""
    assert case.step is not None
    return direct(case, tol, method=case.step[0], options={"step_size": case.step[1]})


def adjoint(case: Case, tol: float, **more: Any) -> Forward:
    """The continuous adjoint, solved backwards with the state."""
    import torchdiffeq

    return lambda f, y0: torchdiffeq.odeint_adjoint(f, y0, case.t, rtol=tol, atol=tol, **more)[1:]


def _seminorm(case: Case, tol: float) -> Forward:
    return adjoint(case, tol, adjoint_options={"norm": "seminorm"})


def _compiled_field(case: Case, tol: float) -> Forward:
    """Direct with f under torch.compile; the solver itself breaks into dozens of graphs."""
    inner = direct(case, tol)
    compile_once = functools.lru_cache(maxsize=1)(torch.compile)
    return lambda f, y0: inner(compile_once(f), y0)


def ways() -> list[Way]:
    """All; on a convolutional case in the user's NCHW and on channels-last memory."""

    def way(
        name: str, make: Callable[[Case, float], Forward], kind: str, layout: Any, eager: Any = None
    ) -> Way:
        def prepare(case: Case, _: Counts | None) -> TorchJob:
            subject: Subject = layout(case)
            plain = None if eager is None else eager(case, case.tol)
            return job(case, subject, make(case, case.tol), eager=plain)

        def fits(case: Case) -> bool:
            return case.kind == kind and (case.convolutional or layout is not channels_last)

        return Way(f"torchdiffeq/{name}", PEER, prepare, fits, "torchdiffeq", slow=eager is not None)

    return [
        way("adjoint", adjoint, "gradient", stacked),
        way("adjoint-seminorm", _seminorm, "gradient", stacked),
        way("direct", direct, "gradient", stacked),
        way("direct-compiled-f", _compiled_field, "gradient", stacked, eager=direct),
        way("adjoint/channels-last", adjoint, "gradient", channels_last),
        way("direct/channels-last", direct, "gradient", channels_last),
        way("forward", direct, "forward", stacked),
        way("forward/channels-last", direct, "forward", channels_last),
        way("fixed", _fixed, "fixed", stacked),
    ]
