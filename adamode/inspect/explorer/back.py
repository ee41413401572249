"""The way back for the page: the adjoint at every step's ends, each VJP, the rebuilt state, the steps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...adjoint.arguments import Request, clocks_differ
from ...adjoint.gradients import Backsolve, Direct, Discrete, Interpolating, Reversible
from ...adjoint.proof.study import AdjointTrajectory, adjoint_trajectory
from ...solvers.attempts import TraceRow
from ...solvers.errors import ArgumentError
from ..adjoint import AdjointStudy
from ..adjoint_tables import norms_by_column

MOST_ROWS, MOST_VJPS, MOST_ENTRIES = 1500, 6000, 12
COLUMNS = ("t", "dt", "error_ratio", "accepted", "factor", "nfe", "y_norm")
NAMES = {
    Discrete: "discrete",
    Interpolating: "interpolating",
    Backsolve: "backsolve",
    Reversible: "reversible",
}


def columns_of(rows: Sequence[TraceRow], names: Sequence[str] = COLUMNS) -> dict[str, list[Any]]:
    """The rows' fields by name, a list each."""
    return {name: [getattr(row, name) for row in rows] for name in names}


def way_of(study: AdjointStudy) -> dict[str, Any]:
    """One gradient's."""
    rtol, atol = (study.arguments.get(key) for key in ("rtol", "atol"))
    return {
        **way_record(study.way, study.gradient, rtol, atol),
        "status": study.status,
        "difference": None if math.isnan(study.difference) else study.difference,
        "loss": f"{study.problem.loss}, seed {study.seed}",
    }


def way_record(way: AdjointTrajectory, gradient: str, rtol: Any, atol: Any) -> dict[str, Any]:
    """A walk back, that which was given up beside it."""
    vjps = way.vjps[:MOST_VJPS]
    allowed = None
    if isinstance(rtol, (int, float)) and isinstance(atol, (int, float)):
        sizes = [values for name, values in norms_by_column(way).items() if name.startswith("state")]
        allowed = [atol + rtol * max(at) for at in zip(*sizes, strict=True)]
    return {
        "gradient": gradient,
        "status": "ok" if way.failure is None else type(way.failure).__name__,
        "failure": None if way.failure is None else str(way.failure),
        "difference": None,
        "loss": "the cotangent that was given",
        "blocks": list(way.blocks) or [""],
        **_walk(way),
        "allowed": allowed,
        "vjps": {
            "t": [v.t for v in vjps],
            "cotangent": [list(v.cotangent) for v in vjps],
            "product": [list(v.product) for v in vjps],
            "left_out": len(way.vjps) - len(vjps),
        },
        "given_up": None if way.given_up is None else _walk(way.given_up),
    }


def _walk(way: AdjointTrajectory) -> dict[str, Any]:
    n = min(len(way.t), MOST_ROWS)
    blocks = len(way.blocks) or 1
    flat = way.a[:n].double().reshape(n, blocks, -1)
    own = max(1, MOST_ENTRIES // blocks)
    a = flat[:, :, :own].cpu()
    names = way.blocks or ("",)
    labels = [[f"a{'_' + name if name else ''}[{i}]" for i in range(a.shape[2])] for name in names]
    return {
        "t": way.t[:n].tolist(),
        "norms": {name: values[:n] for name, values in norms_by_column(way).items()},
        "a": a.tolist(),
        "labels": labels,
        "entries": flat.shape[2],
        "steps": columns_of(way.backward[:MOST_ROWS]),
        "left_out": len(way.t) - n,
    }


def way_back(request: Request, cotangent: Tensor) -> dict[str, Any]:
    """The way back of a solve, from the cotangents of y at every t, by its own gradient choice.

    Raises ArgumentError for what has no adjoint to show.
    """
    options = request.options
    if clocks_differ(options.stepping):
        raise ArgumentError(
            "cotangent with steps per sample: the page shows the way back of shared steps. Leave it out, or "
            "solve with stepping='shared'."
        )
    if options.signal is not None or options.events or options.penalties:
        raise ArgumentError(
            "cotangent with a signal, events or penalties: the page shows the way back of a plain solve. "
            "Leave it out."
        )
    gradient = options.gradient
    if gradient is None or isinstance(gradient, Direct):
        raise ArgumentError(
            f"cotangent with gradient={gradient!r}: there is no adjoint to show. Leave it out, or solve with "
            "Discrete(), Interpolating(), Backsolve() or Reversible()."
        )
    if request.layout.paired:
        raise ArgumentError(
            "cotangent with a complex state: the page shows the way back of real ones. Leave it out, or "
            "solve for torch.view_as_real(y)."
        )
    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    for name in ("gradient", "trace", "dense"):
        del given[name]
    y0 = request.layout.unpack(request.z0.detach())
    if not isinstance(y0, Tensor):
        raise ArgumentError("cotangent with a state of several tensors: the page shows the way back of one.")
    way = adjoint_trajectory(
        request.func, y0, request.t.detach(), cotangent, gradient=gradient, partial=True, **given
    )
    rtol, atol = (x if isinstance(x, (int, float)) else None for x in (options.rtol, options.atol))
    return way_record(way, NAMES[type(gradient)], rtol, atol)
