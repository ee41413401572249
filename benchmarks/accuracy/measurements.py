"""All solves of the study, kept in a file so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import adamode

from .lines import Line
from .problems import PROBLEMS, TEN, TIMES, error
from .solvers import OURS, Counter, Point, measure

EXPONENTS = tuple(range(3, 11))  # of the tolerances in the tables: 1e-3 … 1e-10
MORE = (2, *EXPONENTS, 11)  # others' lines are longer, so that our errors lie inside them
SCATTERED = tuple(i / 9 for i in range(-4, 5))  # in decades about each tolerance


def scatter(code: str) -> tuple[float, ...]:
    """Nine tolerances a decade; three for the slow ones (torchode: 1 s a solve), which adds noise."""
    return SCATTERED if code.split()[0] in ("scipy", "adamode") else (-1 / 3, 0.0, 1 / 3)


def exponents(code: str) -> tuple[int, ...]:
    return EXPONENTS if code.startswith("adamode") else MORE


def tolerances(code: str) -> list[list[float]]:
    return [[10.0 ** -(k + s) for s in scatter(code)] for k in exponents(code)]


def shared(name: str, code: str, **options: Any) -> list[list[Point]]:
    """One solve after another: one row for each tolerance of the tables."""
    return [[measure(name, code, tol, **options) for tol in row] for row in tolerances(code)]


@torch.no_grad()
def per_sample(name: str, method: str, rows: Sequence[Sequence[float]], **options: Any) -> list[list[Point]]:
    """All tolerances in one batch, one sample each. nfe is each sample's own."""
    tol = torch.tensor([t for row in rows for t in row], dtype=torch.float64)
    y0 = PROBLEMS[name].state(torch.float64).expand(len(tol), -1).contiguous()
    sol = adamode.solve(
        Counter(PROBLEMS[name]),
        y0,
        torch.from_numpy(TIMES),
        method=method,
        rtol=tol[:, None],
        atol=tol[:, None],
        stepping="per_sample",
        gradient=None,
        **options,
    )
    nfe, values = sol.stats.nfe.tolist(), sol.y.numpy()
    points = iter(Point(float(t), error(name, values[:, i]), nfe[i]) for i, t in enumerate(tol))
    return [[next(points) for _ in row] for row in rows]


class Measurements:
    """file: where the rows are kept; None keeps them in memory only."""

    def __init__(self, file: Path | None = None):
        self.file = file
        self.rows: dict[str, list[list[list[float]]]] = {}
        if file is not None and file.exists():
            self.rows = json.loads(file.read_text(encoding="utf-8"))

    def line(self, name: str, code: str, mode: str = "shared", **options: Any) -> Line:
        """A work–precision line, measured unless it is known. options: of `adamode.solve`."""
        key = "|".join((code, mode, name, *(f"{k}={v}" for k, v in sorted(options.items()))))
        if key not in self.rows:
            if mode == "shared":
                points = shared(name, code, **options)
            else:
                points = per_sample(name, code.split()[1], tolerances(code), **options)
            self.rows[key] = [[[p.tolerance, p.error, p.nfe] for p in row] for row in points]
            self._keep()
        return Line.of([[Point(t, max(e, 1e-300), int(n)) for t, e, n in row] for row in self.rows[key]])

    def lines(self, code: str, mode: str = "shared", **options: Any) -> dict[str, Line]:
        """Those of the ten problems."""
        return {name: self.line(name, code, mode, **options) for name in TEN}

    def all_ours(self, mode: str) -> dict[str, dict[str, Line]]:
        return {method: self.lines(f"adamode {method}", mode) for method in OURS}

    def _keep(self) -> None:
        if self.file is None:
            return
        scratch = self.file.with_name(f"{self.file.name}.{os.getpid()}.tmp")
        with scratch.open("w", encoding="utf-8") as stream:
            json.dump(self.rows, stream)
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(self.file)


def geometric_mean(values: Any) -> float:
    """Of all that are finite."""
    finite = [math.log(v) for v in torch.as_tensor(values).flatten().tolist() if math.isfinite(v)]
    return math.exp(sum(finite) / len(finite)) if finite else math.nan
