"""One HTML file in which one moves over the attempts of a solve."""

from __future__ import annotations

import dataclasses
import html
import importlib.resources
import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...adjoint.arguments import Request, coupling_of
from ...adjoint.solve import blocks_of
from ...solvers.attempts import Attempts
from ...solvers.errors import ArgumentError, ArgumentTypeError, SolverError
from ...solvers.methods import EVERY
from ...solvers.solution import Solution, status_words
from ...solvers.stats import Stats
from ...solvers.step.clocks import Tolerance
from ...solvers.step.implicit.newton import FRACTION
from ...solvers.write_aside import write_aside
from ..tables import plain
from .back import columns_of, way_back
from .flow import further_stages, spectra
from .methods import method_record
from .replay import decisions
from .seen import Floats, Seen, packed, seen_of

COLUMNS = ("t", "dt", "error_ratio", "accepted", "factor", "nfe", "y_norm", "stiffness", "newton", "sample")
SCRIPTS = ("numbers.js", "axes.js", "timeline.js", "step.js", "judge.js", "back.js", "main.js")


@dataclasses.dataclass(frozen=True)
class Words:
    """What a page says of a solve besides its attempts.

    title: of the page; equation, source: a line each, or "".
    log_time: time is shown on a logarithmic axis first.
    plane: the two components of the phase plane.
    """

    title: str = "A solve"
    equation: str = ""
    source: str = ""
    log_time: bool = False
    plane: tuple[int, int] = (0, 1)


def explore(
    found: Solution | SolverError, path: str | os.PathLike[str], cotangent: Tensor | None = None
) -> Path:
    """Writes the page of a solution, or of a solve that failed; returns its path.

    found: of a solve with ``trace=True``.
    cotangent: [T, *y0.shape], ∂L/∂y at every t: the page shows the way back too.
    Raises ArgumentError or ArgumentTypeError for what cannot be shown.
    """
    if not isinstance(found, Solution | SolverError):
        raise ArgumentTypeError(f"a {type(found).__name__} was given; give a Solution or a SolverError.")
    seen = seen_of(found.trace)
    ways = [] if cotangent is None else [way_back(seen.request, cotangent)]
    failure = None if isinstance(found, Solution) else str(found)
    words = Words(title=_name(seen.request.func))
    data = page_data(found.trace, words, status_words(found.status), failure, found.stats, ways)
    return write_page(path, data)


def write_page(path: str | os.PathLike[str], data: dict[str, Any]) -> Path:
    """The page of such data, written aside and renamed.

    Raises ArgumentError, ArgumentTypeError for what is no file's path, or one in a folder that is missing.
    """
    if not isinstance(path, str | os.PathLike):
        raise ArgumentTypeError(f"path={path!r} is a {type(path).__name__}; give a file's path.")
    path = Path(path)
    if not path.name or path.is_dir():
        raise ArgumentError(f"path={str(path)!r} is a folder; give a file in it, such as solve.html.")
    if not path.parent.is_dir():
        raise ArgumentError(f"path={str(path)!r}: there is no folder {str(path.parent)!r}; make it first.")
    write_aside(path, page_text(data))
    return path


def page_text(data: dict[str, Any]) -> str:
    """The file's text: style, data and program stand in it."""
    parts = importlib.resources.files(__package__) / "page"

    def part(name: str) -> str:
        return (parts / name).read_text(encoding="utf-8")

    numbers = json.dumps(plain(data), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    texts = {
        "title": html.escape(f"{data['words']['title']}: {data['method']}, attempt by attempt"),
        "style": part("style.css"),
        "data": numbers.replace("<", "\\u003c"),
        "script": "\n".join(part(name) for name in SCRIPTS),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: texts[found[1]], part("page.html"))


def page_data(
    attempts: Any, words: Words, status: str, failure: str | None, stats: Any, ways: Sequence[Any] = ()
) -> dict[str, Any]:
    """All that a page holds.

    attempts: of the solve; stats: its Stats, or None.
    ways: `back.way_of` or `back.way_back`, of each gradient shown.
    """
    seen = seen_of(attempts)
    assert isinstance(attempts, Attempts)
    request, rows = seen.request, seen.rows
    options = request.options
    names = list(dict.fromkeys(row.method for row in rows))
    which, lists, said = spectra(seen)
    further = further_stages(seen)
    stages = seen.stages if further is None else np.concatenate((seen.stages, further), 1)
    first = _first_lengths(stats)
    if blocks_of(request) > 1:  # the first block over the second
        words = dataclasses.replace(words, plane=(0, len(seen.labels) // blocks_of(request)))
    return {
        "words": dataclasses.asdict(words),
        "method": options.method,
        "status": status,
        "failure": failure,
        "counts": None if stats is None else _counts(stats, attempts),
        "rtol": _told(options.rtol),
        "atol": _told(options.atol),
        "norm": _norm_words(request),
        "stepping": options.stepping if isinstance(options.stepping, str) else "groups",
        "dtype": str(request.z0.dtype).removeprefix("torch."),
        "all": len(attempts),
        "entries": _entries_of(seen),
        "labels": seen.labels,
        "methods": {name: method_record(EVERY[name], coupling_of(options)) for name in names},
        "controller": plain(dataclasses.asdict(options.controller)),
        "columns": {**columns_of(rows, COLUMNS), "number": seen.number},
        "row_methods": [names.index(row.method) for row in rows],
        "decisions": [dataclasses.asdict(d) for d in decisions(rows, request, first)],
        "vectors": {
            "stages": stages.shape[1],
            "errors": seen.errors.shape[1],
            "y0": packed(seen.y0),
            "y1": packed(seen.y1),
            "error": packed(seen.errors),
            "scale": packed(_scales(seen)),
            "k": packed(stages),
        },
        "spectra": {"of": which, "values": lists, "said": said},
        "newton": _newton(seen),
        "ways": list(ways),
    }


def _scales(seen: Seen) -> Floats:
    """atol + rtol max(|y0|, |y1|) of each attempt's entries, [n, c]."""
    tolerance, z0 = seen.request.tolerance, seen.request.z0
    batch = seen.batch if seen.many else None

    def own(value: Any) -> Any:
        """Of each row, or one for all."""
        if not isinstance(value, Tensor):
            return value
        whole = value.detach().double().cpu().expand(z0.shape)
        kept = torch.tensor(seen.positions, dtype=torch.int64)
        if batch is None:
            return whole.reshape(-1)[kept]
        samples = [row.sample or 0 for row in seen.rows]
        return whole.movedim(batch, 0).reshape(z0.shape[batch], -1)[samples][:, kept]

    y0, y1 = torch.from_numpy(seen.y0), torch.from_numpy(seen.y1)
    scale = Tolerance(own(tolerance.rtol), own(tolerance.atol), tolerance.paired and y0.shape[-1] % 2 == 0)
    found: Floats = scale.scale(y0, y1).numpy()
    return found


def _entries_of(seen: Seen) -> int:
    """Entries of a clock's state, in the page or not."""
    z0 = seen.request.z0
    return z0.numel() // z0.shape[seen.batch] if seen.many else z0.numel()


def _newton(seen: Seen) -> dict[str, Any] | None:
    """Sizes of Newton's corrections of each attempt and system; None of explicit methods."""
    if all(look.renewed is None for look, _ in seen.looks):
        return None
    least = seen.request.tolerance.rtol
    rtol = float(least.min()) if isinstance(least, Tensor) else float(least)
    eps = torch.finfo(seen.request.z0.dtype).eps

    def at(x: Tensor, b: int) -> Any:
        return (x.reshape(-1)[b] if x.dim() else x).item()

    systems, renewed = [], []
    for look, b in seen.looks:
        own = []
        for pairs in look.corrections:
            own.append([float(f"{at(size, b):.5g}") for size, going in pairs if at(going, b)])
        systems.append(own)
        renewed.append(None if look.renewed is None else bool(at(look.renewed, b)))
    return {"kappa": max(10.0 * eps / rtol, min(FRACTION, rtol**0.5)), "systems": systems, "renewed": renewed}


def _first_lengths(stats: Any) -> dict[int | None, float]:
    if not isinstance(stats, Stats):
        return {}
    first = stats.dt_first
    if isinstance(first, Tensor):
        return dict(enumerate(first.tolist()))
    return {} if math.isnan(first) else {None: first}


def _counts(stats: Any, attempts: Attempts) -> str:
    accepted = sum(row.accepted for row in attempts)
    nfe = stats.nfe if not isinstance(stats.nfe, Tensor) else int(stats.nfe.sum())
    return f"{accepted} accepted, {len(attempts) - accepted} rejected, {nfe} evaluations of f"


def _norm_words(request: Request) -> str:
    """The word rms where the ratio is the RMS over the entries, else words for people."""
    options, layout = request.options, request.layout
    if not isinstance(options.norm, str):
        return "a norm of the user's own"
    named = {"rms": "rms", "max": "the largest entry", "blocks": "the largest RMS of the blocks"}
    words = named[options.norm]
    if options.norm == "rms" and not layout.single:
        words = "the largest RMS of the state's tensors"
    elif options.norm == "rms" and layout.paired:
        words = "RMS of the moduli"
    if isinstance(options.stepping, Tensor):
        return f"{words}, over all samples of the group".replace("rms", "RMS")
    if coupling_of(options) is not None:
        return f"{words} of the errors, or of how far the pair has come apart".replace("rms", "RMS")
    return words


def _told(value: Any) -> str:
    if isinstance(value, Tensor) and value.numel() > 4:
        return f"{float(value.min()):g} … {float(value.max()):g}"
    if isinstance(value, Tensor):
        return ", ".join(f"{x:g}" for x in value.flatten().tolist())
    if isinstance(value, tuple | list):
        return ", ".join(_told(x) for x in value)
    return f"{value:g}"


def _name(func: Any) -> str:
    """Of func, for a title."""
    name = getattr(func, "__name__", None) or type(func).__name__
    return "y' = f(t, y)" if name in ("<lambda>", "f", "func") else str(name)
