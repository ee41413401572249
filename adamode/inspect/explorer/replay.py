"""What the controller did with each attempt: its own code again, on the trace's numbers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from ...adjoint.arguments import Request
from ...solvers.attempts import TraceRow
from ...solvers.methods import EVERY
from ...solvers.methods.tableau import Tableau
from ...solvers.step.controller import SLIVER, UNSOLVED, Pace

CLOSE = 1e-9  # relative: times are differences


@dataclasses.dataclass
class _Attempt:
    """What `Pace` looks at."""

    error_ratio: float
    finite: bool
    unsolved: bool
    tableau: Tableau


@dataclasses.dataclass(frozen=True)
class Decision:
    """Of one attempt.

    kind: accepted, rejected, non_finite, newton or fixed.
    e1, e2: the ratios that the controller remembered, or None.
    remembers: whether the formula had them in it.
    after_rejection: the attempt before was rejected.
    order: of the error estimate, the exponents' denominator.
    raw: dt_new/dt before its limits; low, high: the limits.
    wanted: |dt| that the controller had proposed, or None.
    cut: the step was shorter than wanted, so its error says little.
    proposed: the |dt| that follows from the formula.
    agrees: it is the trace's.
    """

    kind: str
    e1: float | None = None
    e2: float | None = None
    remembers: bool = False
    after_rejection: bool = False
    order: int | None = None
    raw: float | None = None
    low: float | None = None
    high: float | None = None
    wanted: float | None = None
    cut: bool = False
    proposed: float | None = None
    agrees: bool = True


def decisions(rows: Sequence[TraceRow], request: Request, first: dict[int | None, float]) -> list[Decision]:
    """One for each row, in their order. first: |dt| tried first, of each sample."""
    if request.options.dt is not None or (math.isnan(rows[0].error_ratio) and rows[0].accepted):
        return [Decision("fixed") for _ in rows]
    paces: dict[int | None, Pace] = {}
    methods: dict[int | None, str] = {}
    found = []
    for row in rows:
        pace = paces.get(row.sample)
        if pace is None:
            pace = paces[row.sample] = Pace(request.options.controller, first.get(row.sample, abs(row.dt)))
        if methods.setdefault(row.sample, row.method) != row.method:
            pace.forget()
            methods[row.sample] = row.method
        found.append(_decision(row, pace))
        if row.accepted and row.t + row.dt in request.jumps:
            pace.forget()
    return found


def _decision(row: TraceRow, pace: Pace) -> Decision:
    taken, controller = abs(row.dt), pace.controller
    tableau = EVERY[row.method]
    order = tableau.error_order
    kind = "accepted" if row.accepted else "newton" if row.newton else "rejected"
    if kind == "rejected" and not 1.0 < row.error_ratio < math.inf:
        kind = "non_finite"
    told: dict[str, Any] = {"e1": _or_none(pace.e1), "e2": _or_none(pace.e2), "order": order}
    told["after_rejection"], wanted = pace.after_rejection, pace.dt
    attempt = _Attempt(row.error_ratio, kind != "non_finite", kind == "newton", tableau)
    if kind == "accepted":
        told["remembers"] = told["e2"] is not None or not (controller.pcoeff or controller.dcoeff)
        told["low"] = controller.accept_factor_min
        told["high"] = 1.0 if pace.after_rejection and not controller.regrow else controller.factor_max
        told["cut"] = taken < (1.0 - SLIVER) * pace.dt
        free = dataclasses.replace(controller, accept_factor_min=5e-324, factor_max=math.inf, regrow=True)
        told["raw"] = free.factor_accepted(row.error_ratio, pace.e1, pace.e2, order, False)
        pace.accepted(taken, attempt)
    else:
        told["low"], told["high"] = controller.factor_min, controller.safety
        if kind == "rejected":
            told["raw"] = controller.safety * row.error_ratio ** (-1.0 / order)
        elif kind == "newton":
            told["raw"] = UNSOLVED
        pace.rejected(taken, attempt)
    proposed, real = pace.dt, row.factor * taken
    agrees = math.isclose(proposed, real, rel_tol=CLOSE)
    pace.dt = real
    return Decision(kind, **told, wanted=wanted, proposed=proposed, agrees=agrees)


def _or_none(x: float) -> float | None:
    return None if math.isnan(x) else x
