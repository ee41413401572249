"""What the flows of `descent` are measured against: scipy, and how fast they must come in near a minimum."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from .descent import Descent, Flow, Point, Precision, TestFunction, adam, travel

# ½ λ |x|² with λ = 0.4, about Rosenbrock's smallest curvature.
QUADRATIC = TestFunction(
    "quadratic", lambda x: 0.2 * x.square().sum(-1), lambda x: 0.4 * x, (0.0, 0.0), (-1.5, 1.5, -1.5, 1.5)
)
TAIL_EPS = 1e-10


def largest_differences(
    function: TestFunction,
    flows: Mapping[str, Flow],
    starts: Sequence[Point],
    end: float,
    how: Precision,
    tolerance: float,
) -> dict[str, float | None]:
    """By flow, max |x − x_scipy| / max(1, |x_scipy|) over starts and 41 times; None where one did not arrive.

    scipy's DOP853 at the tolerance; equations and gradients are written there a second time.
    """
    times = torch.linspace(0.0, end, 41, dtype=torch.float64)
    descents = [Descent(flow, start) for flow in flows.values() for start in starts]
    ours = travel(function, descents, times, how)
    found: dict[str, float | None] = dict.fromkeys(flows, 0.0)
    for k, one in enumerate(descents):
        name = list(flows)[k // len(starts)]
        theirs = by_scipy(function, one, times.numpy(), tolerance)
        if theirs is None or ours.status[k] != "success":
            found[name] = None
        elif found[name] is not None:
            x = ours.z[:, k, :2].numpy()
            size = np.maximum(1.0, np.linalg.norm(theirs, axis=1))
            worst = float((np.linalg.norm(x - theirs, axis=1) / size).max())
            found[name] = max(found[name] or 0.0, worst)
    return found


def by_scipy(function: TestFunction, one: Descent, times: np.ndarray, tolerance: float) -> np.ndarray | None:
    """x at the times, [T, 2], by scipy's DOP853, the equations written a second time; None if it fails."""
    from scipy.integrate import solve_ivp

    gradient, flow = _plain_gradient(function), one.flow

    def adamode(t: float, z: np.ndarray) -> list[float]:
        x, y, m1, m2, v1, v2 = z.tolist()
        if v1 + flow.eps <= 0 or v2 + flow.eps <= 0:
            return [math.nan] * 6
        g1, g2 = gradient(x, y)
        dx = [-m1 / math.sqrt(v1 + flow.eps), -m2 / math.sqrt(v2 + flow.eps)]
        dm = [flow.d * (g1 - m1), flow.d * (g2 - m2)]
        return [*dx, *dm, flow.rate_v * (g1**2 - v1), flow.rate_v * (g2**2 - v2)]

    def hbode(t: float, z: np.ndarray) -> list[float]:
        x, y, m1, m2 = z.tolist()
        g1, g2 = gradient(x, y)
        return [-m1, -m2, flow.c * g1 - flow.d * m1, flow.c * g2 - flow.d * m2]

    def gradient_flow(t: float, z: np.ndarray) -> list[float]:
        g1, g2 = gradient(*z.tolist())
        return [-g1, -g2]

    f, more = {"adamode": (adamode, 4), "hbode": (hbode, 2), "gradient-flow": (gradient_flow, 0)}[flow.model]
    z0 = [*one.start, *[0.0] * more]
    found = solve_ivp(f, (times[0], times[-1]), z0, "DOP853", times, rtol=tolerance, atol=tolerance)
    return found.y[:2].T if found.success and np.isfinite(found.y).all() else None


def _plain_gradient(function: TestFunction) -> Callable[[float, float], tuple[float, float]]:
    def rosenbrock(x: float, y: float) -> tuple[float, float]:
        return 2 * (x - 1) + 400 * x * (x * x - y), 200 * (y - x * x)

    def beale(x: float, y: float) -> tuple[float, float]:
        terms = [(c - x * (1 - y**i), i) for i, c in enumerate((1.5, 2.25, 2.625), 1)]
        gx = sum(-2 * r * (1 - y**i) for r, i in terms)
        return gx, sum(2 * r * x * i * y ** (i - 1) for r, i in terms)

    return {"rosenbrock": rosenbrock, "beale": beale}[function.name]


def smallest_curvature(function: TestFunction) -> float:
    """The smallest eigenvalue of the Hessian at the minimum: gradient flow's distance decays as e^(−λt)."""
    at = torch.tensor(function.minimum, dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(function.value, at)
    return float(torch.linalg.eigvalsh(hessian)[0])


def foretold_rate(rate_m: float, rate_v: float) -> float:
    """r in distance ∝ e^(−rt) of AdamODE near a minimum, while v is far above ε: A/2 − min(B, 4A/5)/8.

    Near it (h'/D)' + A h'/D + A λ h = 0, which swings faster and faster as v falls: its amplitude goes as
    D^(1/4) e^(−At/2) (WKB). v falls as the mean of f², so D ∝ e^(rt) and r = 2A/5; or, where B < 2r, no
    faster than e^(−Bt), so D ∝ e^(Bt/2). The curvature λ does not enter.
    """
    return rate_m / 2 - min(rate_v, 0.8 * rate_m) / 8


def tail_rates(pairs: Sequence[tuple[float, float]], end: float, how: Precision) -> list[dict[str, float]]:
    """For each (A, B): the rate at which AdamODE's swings on a quadratic die out, measured and foretold.

    Measured as the slope of log |x| over the crests between end/3 and end.
    """
    times = torch.linspace(0.0, end, 1 + math.ceil(200 * end), dtype=torch.float64)
    descents = [Descent(adam(a, b, TAIL_EPS), (1.0, 1.0)) for a, b in pairs]
    found = travel(QUADRATIC, descents, times, how)
    rows = []
    for k, (a, b) in enumerate(pairs):
        d, t = found.distance[:, k], times
        crest = (d[1:-1] > d[:-2]) & (d[1:-1] >= d[2:]) & (t[1:-1] > end / 3)
        if int(crest.sum()) < 3:  # the solve gave up
            continue
        slope = float(np.polyfit(t[1:-1][crest].numpy(), d[1:-1][crest].log().numpy(), 1)[0])
        rows.append({"rate_m": a, "rate_v": b, "measured": -slope, "foretold": foretold_rate(a, b)})
    return rows
