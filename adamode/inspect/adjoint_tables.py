"""The adjoint's study as text: the summary, the trajectory and both traces as CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from ..adjoint.proof.study import AdjointTrajectory
from .adjoint import AdjointStudy, steps_of
from .listing import text_table
from .tables import number, plain

# Of the norms of an AdjointTrajectory: "a, h" is the column a_h.
_NAMES = {"a": "a", "state": "state", "rebuilt − state": "off"}
_STEP = ("t", "dt", "error_ratio", "accepted", "factor", "nfe", "y_norm")


def adjoint_summary(studies: Sequence[AdjointStudy]) -> str:
    """One line a gradient. Steps: accepted + rejected; of the walk that holds.

    off: of the rebuilt state, in tolerances (RMS).
    """
    header = (
        "gradient",
        "status",
        "nfe forward",
        "backward",
        "steps forward",
        "backward",
        "rebuilt off",
        "‖dL/dz(t0)‖",
        "off discrete",
        "rtol",
        "atol",
    )
    rows = []
    for s in studies:
        stats, off = s.way.stats, s.way.stats.reconstruction_error
        steps = ("+".join(str(n) for n in steps_of(rows)) for rows in (s.way.forward, s.way.backward))
        rows.append(
            (
                s.gradient,
                s.status,
                str(stats.nfe),
                str(stats.nfe_backward),
                *steps,
                number(off),
                number(s.norm, 6),
                number(s.difference, 2),
                *(f"{s.arguments[key]:.2g}" for key in ("rtol", "atol")),
            )
        )
    return text_table(header, rows)


def norms_by_column(way: AdjointTrajectory) -> dict[str, list[float]]:
    """RMS over the rows of the way back: a_h, …, state_h, …, off_h, … (of the rebuilt state), or a, state,
    off without blocks."""
    found = {}
    for name, values in way.norms().items():
        quantity, _, block = name.partition(", ")
        found["_".join(filter(None, (_NAMES[quantity], block)))] = values.tolist()
    return found


def trajectory_csv(study: AdjointStudy) -> str:
    """t and the norms, one line a row of the way back."""
    columns = {"t": study.way.t.tolist(), **norms_by_column(study.way)}
    text = io.StringIO()
    write = csv.writer(text, lineterminator="\n")
    write.writerow(columns)
    write.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def steps_csv(study: AdjointStudy) -> str:
    """Every attempt; direction is forward, backward, or given up: of a reverse solve that was begun anew."""
    text = io.StringIO()
    write = csv.writer(text, lineterminator="\n")
    write.writerow(("direction", *_STEP))
    way = study.way
    lost = () if way.given_up is None else way.given_up.backward
    for direction, rows in (("forward", way.forward), ("given up", lost), ("backward", way.backward)):
        for row in rows:
            values = {key: getattr(row, key) for key in _STEP}
            write.writerow((direction, *({**values, "accepted": int(row.accepted)}).values()))
    return text.getvalue()


def _walk(way: AdjointTrajectory) -> dict[str, Any]:
    """One walk back."""
    return {
        "t": way.t.tolist(),
        "norms": norms_by_column(way),
        "a": way.a.tolist(),
        "state": way.state.tolist(),
        "rebuilt": None if way.rebuilt is None else way.rebuilt.tolist(),
        "backward": [row.as_dict() for row in way.backward],
    }


def study_json(study: AdjointStudy) -> str:
    """All of it: the numbers of the summary, the norms, the trajectory itself, the traces."""
    way, problem = study.way, study.problem

    record = {
        "problem": problem.name,
        "equation": problem.equation,
        "loss": problem.loss,
        "seed": study.seed,
        "span": problem.span,
        "arguments": study.arguments,
        "gradient": study.gradient,
        "status": study.status,
        "failure": study.failure_text or None,
        "nfe_forward": way.stats.nfe,
        "nfe_backward": way.stats.nfe_backward,
        "reconstruction_error": way.stats.reconstruction_error,
        "start_gradient": None if study.start_gradient is None else study.start_gradient.tolist(),
        "start_gradient_norm": study.norm,
        "relative_difference_to_discrete": study.difference,
        "blocks": way.blocks,
        "forward": [row.as_dict() for row in way.forward],
        **_walk(way),
        "given_up": None if way.given_up is None else _walk(way.given_up),
    }
    return json.dumps(plain(record), allow_nan=False) + "\n"
