"""A study as text: the summary, the attempts, and the trace as CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from typing import Any

from ..solvers.attempts import TraceRow
from .listing import text_table
from .precision import Rung
from .reference import Reference
from .study import Study


def number(x: float, digits: int = 3) -> str:
    """A cell: so many digits, a dash for NaN."""
    return "–" if x is None or math.isnan(x) else f"{x:.{digits}g}"


def summary_table(studies: Sequence[Study]) -> str:
    """One line a method."""
    header = ("method", "order", "status", "reached t", "accepted", "rejected", "evaluations", "error")
    rows = []
    for s in studies:
        counts = (str(s.stats.n_accepted), str(s.stats.n_rejected), str(s.stats.nfe))
        rows.append((s.method, str(s.tableau.order), s.status, f"{s.end:.6g}", *counts, number(s.error, 2)))
    return text_table(header, rows)


def attempts_table(rows: Sequence[TraceRow], limit: int) -> str:
    """The attempts; of more than ``limit`` the first and the last."""
    mixed = len({row.method for row in rows}) > 1
    own = ("#", "t", "dt", "error ratio", "", "factor", "nfe", "‖y‖", "‖k‖ least", "most", "dt·|λ|")
    header = (*own, "method") if mixed else own
    numbered = list(enumerate(rows, 1))
    left_out = max(0, len(numbered) - limit)
    head = numbered if not left_out else numbered[: (limit + 1) // 2]
    tail = [] if not left_out else numbered[len(numbered) - limit // 2 :]
    cells = [(*_attempt(i, row), row.method) if mixed else _attempt(i, row) for i, row in (*head, *tail)]
    if left_out:
        cells.insert(len(head), ("…", *[""] * (len(header) - 1)))
    more = f"\n… {left_out} more, see the trace's file …" if left_out else ""
    return text_table(header, cells) + more


def _attempt(i: int, row: TraceRow) -> tuple[str, ...]:
    norms = row.stage_norms or (math.nan,)
    return (
        str(i),
        f"{row.t:.6g}",
        number(row.dt),
        number(row.error_ratio),
        "" if row.accepted else "Newton" if row.newton else "rejected",
        number(row.factor),
        str(row.nfe),
        number(row.y_norm),
        number(min(norms)),
        number(max(norms)),
        number(row.stiffness, 2),
    )


def ladder_table(rungs: Sequence[Rung]) -> str:
    """One line a solve of the work–precision ladder."""
    header = ("method", "rtol = atol", "dt", "error", "error ÷ tol", "evaluations", "accepted", "rejected")
    rows = [
        (
            r.method,
            number(r.tolerance, 2),
            number(r.dt),
            number(r.error, 2),
            number(r.error / r.tolerance, 2),
            *(str(n) for n in (r.nfe, r.n_accepted, r.n_rejected)),
        )
        for r in rungs
    ]
    return text_table(header, rows)


def trace_csv(study: Study) -> str:
    """One line an attempt; stage_norms become k1, k2, …"""
    stages = max((len(row.stage_norms) for row in study.rows), default=0)
    text = io.StringIO()
    write = csv.writer(text, lineterminator="\n")
    own = ("t", "dt", "error_ratio", "accepted", "factor", "nfe", "y_norm")
    write.writerow((*own, *(f"k{i}" for i in range(1, stages + 1)), "stiffness", "method", "newton"))
    for row in study.rows:
        norms = [*row.stage_norms, *[""] * (stages - len(row.stage_norms))]
        values = [getattr(row, key) for key in own]
        values[own.index("accepted")] = int(row.accepted)
        write.writerow((*values, *norms, row.stiffness, row.method, int(row.newton)))
    return text.getvalue()


def plain(value: Any) -> Any:
    """For JSON, which has no NaN: null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: plain(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [plain(x) for x in value]
    return value


def trace_json(study: Study) -> str:
    """The attempts with what they belong to."""
    stats = study.stats
    record = {
        "problem": study.problem.name,
        "arguments": study.arguments,
        "status": study.status,
        "failure": None if study.failure is None else str(study.failure),
        "t_reached": study.end,
        "n_accepted": stats.n_accepted,
        "n_rejected": stats.n_rejected,
        "nfe": stats.nfe,
        "largest_error": study.error,
        "stability_limit": study.stability_limit,
        "rows": [row.as_dict() for row in study.rows],
    }
    return json.dumps(plain(record), allow_nan=False) + "\n"


def summary_json(studies: Sequence[Study], reference: Reference | None, rungs: Sequence[Rung]) -> str:
    """The solves without their attempts, and the ladder."""
    solves = []
    for study in studies:
        record = json.loads(trace_json(study))
        del record["rows"]
        solves.append({"method": study.method, **record, "times": study.times, "errors": study.errors})
    problem = studies[0].problem
    page = {
        "problem": problem.name,
        "equation": problem.equation,
        "source": problem.source,
        "y0": problem.y0,
        "span": problem.span,
        "reference": None if reference is None else {"kind": reference.kind, "floor": reference.floor},
        "solves": solves,
        "work_precision": [vars(rung) for rung in rungs],
    }
    return json.dumps(plain(page), allow_nan=False, indent=1) + "\n"
