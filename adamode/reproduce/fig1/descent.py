"""Flows towards a minimum: gradient flow, heavy ball and Adam in continuous time, on two test functions.

All three are one family, so that any number of them is one batch with a step size for each:

    x' = −s ∇F − m/√(v+ε),   m' = c ∇F − d m,   v' = B ((∇F)² − v),   m(0) = v(0) = 0

gradient flow: s = 1, c = d = B = 0.  HBODE: c = 1, d = γ, s = B = 0, ε = 1 (then v = 0 and the root is 1).
AdamODE with f = −∇F (Eq. 7): c = d = A, A = 1−α, B = 1−β.  Eq. 2 as printed: HBODE with c = −1.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...adjoint.solve import solve
from ...solvers.march.events import Event
from ...solvers.solution import Solution
from ...solvers.status import Status

Point = tuple[float, float]


def rosenbrock_value(x: Tensor) -> Tensor:
    """(1 − x)² + 100 (y − x²)² of points [..., 2]. H. H. Rosenbrock, Computer Journal 3 (1960) 175–184."""
    return (1 - x[..., 0]) ** 2 + 100 * (x[..., 1] - x[..., 0] ** 2) ** 2


def rosenbrock_gradient(x: Tensor) -> Tensor:
    """∇F of points [..., 2]."""
    a, b = x[..., 0], x[..., 1]
    gap = b - a * a
    return torch.stack((2 * (a - 1) - 400 * a * gap, 200 * gap), -1)


def beale_value(x: Tensor) -> Tensor:
    """(1.5 − x + xy)² + (2.25 − x + xy²)² + (2.625 − x + xy³)² of points [..., 2].

    E. M. L. Beale, Princeton technical report 25 (1958); Moré, Garbow, Hillstrom, ACM TOMS 7 (1981), 5.
    """
    a, b = x[..., 0], x[..., 1]
    return (1.5 - a + a * b) ** 2 + (2.25 - a + a * b**2) ** 2 + (2.625 - a + a * b**3) ** 2


def beale_gradient(x: Tensor) -> Tensor:
    """∇F of points [..., 2]."""
    a, b = x[..., 0], x[..., 1]
    b2 = b * b
    p, q, r = b - 1, b2 - 1, b2 * b - 1
    e, f, g = 1.5 + a * p, 2.25 + a * q, 2.625 + a * r
    return torch.stack((2 * (e * p + f * q + g * r), 2 * a * (e + 2 * b * f + 3 * b2 * g)), -1)


@dataclasses.dataclass(frozen=True)
class TestFunction:
    """A function of the plane with one minimum, F = 0.

    value, gradient: of points [..., 2].  window: (x from, to, y from, to) that a picture shows.
    """

    __test__ = False  # its name would make it a test

    name: str
    value: Callable[[Tensor], Tensor]
    gradient: Callable[[Tensor], Tensor]
    minimum: Point
    window: tuple[float, float, float, float]

    def distance(self, x: Tensor) -> Tensor:
        """Of points [..., 2] from the minimum."""
        return (x - torch.tensor(self.minimum, dtype=x.dtype)).norm(dim=-1)


_ROSENBROCK = rosenbrock_value, rosenbrock_gradient, (1.0, 1.0), (-1.9, 1.8, -0.7, 2.5)
_BEALE = beale_value, beale_gradient, (3.0, 0.5), (0.2, 4.2, -1.3, 1.3)
FUNCTIONS = {name: TestFunction(name, *of) for name, of in (("rosenbrock", _ROSENBROCK), ("beale", _BEALE))}


@dataclasses.dataclass(frozen=True)
class Flow:
    """A member of the family above; model: "gradient-flow", "hbode" or "adamode"."""

    model: str
    s: float = 0.0
    c: float = 0.0
    d: float = 0.0
    rate_v: float = 0.0
    eps: float = 1.0


GRADIENT_FLOW = Flow("gradient-flow", s=1.0)


def heavy_ball(gamma: float, *, as_printed: bool = False) -> Flow:
    """x' = −m, m' = −γm + ∇F: Eq. 2 with its sign repaired; as_printed: −∇F."""
    return Flow("hbode", c=-1.0 if as_printed else 1.0, d=gamma)


def adam(rate_m: float, rate_v: float, eps: float) -> Flow:
    """Eq. 7 with f = −∇F and the exact denominator; rate_m: A = 1−α, rate_v: B = 1−β."""
    return Flow("adamode", c=rate_m, d=rate_m, rate_v=rate_v, eps=eps)


@dataclasses.dataclass(frozen=True)
class Descent:
    """A flow from a start."""

    flow: Flow
    start: Point


@dataclasses.dataclass(frozen=True)
class Precision:
    """How the engine solves: rtol = tol, atol = tol/100; max_steps: attempts before a sample gives up."""

    tol: float
    max_steps: int
    method: str = "dop853"


def right_side(gradient: Callable[[Tensor], Tensor], flows: Sequence[Flow]) -> Callable[..., Tensor]:
    """f(t, z) for z [n, 7] = (x, m, v, path length), one flow a row, float64."""
    rows = [(one.s, one.c, one.d, one.rate_v, one.eps) for one in flows]
    s, c, d, rate_v, eps = torch.tensor(rows, dtype=torch.float64).t().unsqueeze(-1)

    def f(t: Tensor, z: Tensor) -> Tensor:
        x, m, v = z[:, 0:2], z[:, 2:4], z[:, 4:6]
        g = gradient(x)
        # A stage with v + ε < 0 has left the domain: NaN, and the solver takes a shorter step.
        dx = -s * g - m * torch.rsqrt(v + eps)
        return torch.cat((dx, c * g - d * m, rate_v * (g * g - v), dx.norm(dim=1, keepdim=True)), 1)

    return f


def start_state(descents: Sequence[Descent]) -> Tensor:
    """z(0), [n, 7]: at the start, m, v and path length 0."""
    z0 = torch.zeros(len(descents), 7, dtype=torch.float64)
    z0[:, :2] = torch.tensor([one.start for one in descents], dtype=torch.float64)
    return z0


def _without_path(z: Tensor) -> Tensor:
    """[n]: RMS of a scaled error without the path's: its length is measured, and decides no step."""
    return z[:, :6].square().mean(1).sqrt()


@dataclasses.dataclass(frozen=True)
class Travel:
    """What a batch of descents did.

    t: [T].  z: [T, n, 7], NaN after a sample failed.  distance: [T, n] from the minimum.
    status: how each ended, in words.  nfe, steps: [n], evaluations of ∇F and accepted steps.
    """

    t: Tensor
    z: Tensor
    distance: Tensor
    status: list[str]
    nfe: list[int]
    steps: list[int]

    @property
    def path(self) -> Tensor:
        """[T, n]: length of the way so far."""
        return self.z[..., 6]


def _solve(
    function: TestFunction, descents: Sequence[Descent], times: Tensor, how: Precision, **more: Any
) -> Solution:
    return solve(
        right_side(function.gradient, [one.flow for one in descents]),
        start_state(descents),
        times,
        method=how.method,
        rtol=how.tol,
        atol=how.tol / 100,
        norm=_without_path,
        stepping="per_sample",
        gradient=None,
        max_steps=how.max_steps,
        **more,
    )


def travel(function: TestFunction, descents: Sequence[Descent], times: Tensor, how: Precision) -> Travel:
    """Solves all descents at once, each with steps of its own, and gives their states at the times [T]."""
    sol = _solve(function, descents, times, how)
    distance, nfe, steps = function.distance(sol.y[..., :2]), sol.stats.nfe, sol.stats.n_accepted
    return Travel(times, sol.y, distance, words(sol.status), nfe.tolist(), steps.tolist())


def words(status: Tensor) -> list[str]:
    """Statuses of samples, lower case."""
    return [Status(int(one)).name.lower().replace("_", " ") for one in status]


def costs(
    function: TestFunction, descents: Sequence[Descent], end: float, how: Precision
) -> list[dict[str, list[float]]]:
    """Of each descent its accepted steps' "t", "nfe" (evaluations so far), "distance" and "path"."""
    span = torch.tensor([0.0, end], dtype=torch.float64)
    sol = _solve(function, descents, span, how, save="steps", trace=True)
    counts: list[list[float]] = [[0] for _ in descents]
    for row in sol.trace or []:
        if row.accepted:
            counts[row.sample or 0].append(row.nfe)
    columns = {"t": sol.t, "distance": function.distance(sol.y[..., :2]), "path": sol.y[..., 6]}
    return [
        {"nfe": nfe, **{name: column[: len(nfe), k].tolist() for name, column in columns.items()}}
        for k, nfe in enumerate(counts)
    ]


def escape_times(
    function: TestFunction, descents: Sequence[Descent], radius: float, end: float, how: Precision
) -> list[float | None]:
    """When each descent first has |x| = radius, found as a terminal event; None if not before the end."""
    away = Event(lambda t, z: z[:, :2].norm(dim=1) - radius, terminal=True, direction=1)
    span = torch.tensor([0.0, end], dtype=torch.float64)
    sol = _solve(function, descents, span, how, events=away)
    return [float(one[0]) if len(one) else None for one in sol.t_events[0]]


def first_time(t: Sequence[float], distance: Sequence[float], radius: float) -> float | None:
    """When the distance first is below radius, between outputs as if its logarithm were straight.

    None if never. A visit shorter than the outputs' spacing is not seen.
    """
    near = (k for k, d in enumerate(distance) if d <= radius)
    return _crossing(t, distance, next(near, len(distance)), radius)


def settled_time(t: Sequence[float], distance: Sequence[float], radius: float) -> float | None:
    """From when on the distance stays below radius up to the last time; None if it does not."""
    far = (k for k in reversed(range(len(distance))) if not distance[k] <= radius)  # NaN, of a failure, too
    return _crossing(t, distance, next(far, -1) + 1, radius)


def _crossing(t: Sequence[float], distance: Sequence[float], k: int, radius: float) -> float | None:
    """When it comes to the radius just before the k-th output; None where there is no such output."""
    if k == len(distance):
        return None
    before, after = max(distance[max(k - 1, 0)], 1e-300), max(distance[k], 1e-300)
    if not before > after:  # the first, equal, or NaN
        return float(t[k])
    share = math.log(before / radius) / math.log(before / after)
    return float(t[k - 1] + (t[k] - t[k - 1]) * share)
