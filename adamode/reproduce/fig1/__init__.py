"""Fig. 1: AdamODE, gradient flow and HBODE on the functions of Rosenbrock and Beale.

The paper states the two functions and the three equations, and no number: no start, rate, γ, ε or time.
Taken here for what it leaves open are the values its released code starts training from, A = B = sigmoid(3)
(CIFAR-10's; MNIST's are on the map), γ = sigmoid(−3), ε = 1e-8, m(0) = v(0) = 0; seven starts a function; and
beside them what else these could have been. Eq. 2's sign is repaired: as printed it climbs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch

from ..machinery.figure import Figure, Outcome
from ..machinery.work import Work
from .checks import largest_differences, smallest_curvature, tail_rates
from .descent import (
    FUNCTIONS,
    GRADIENT_FLOW,
    Descent,
    Flow,
    Point,
    Precision,
    TestFunction,
    Travel,
    adam,
    costs,
    escape_times,
    heavy_ball,
    settled_time,
    travel,
)
from .findings import findings
from .picture import PICTURES
from .table import COLUMNS, RADII, judge, outcome_of, row_of

CIFAR = 1 / (1 + math.exp(-3.0))  # 1−α and 1−β at the start of the released CIFAR-10 training
MNIST_M, MNIST_V = 1 / (1 + math.exp(5.0)), 1 / (1 + math.exp(-5.0))  # the same for MNIST
HBNODE = 1 / (1 + math.exp(3.0))  # γ at the start of the released training

ROSENBROCK_STARTS = ((-1.2, 1.0), (0.0, 0.0), (-1.0, -1.0), (2.0, 2.0), (-2.0, 2.0), (0.0, 2.0), (1.5, -0.5))
# From the last one gradient flow runs along Beale's other valley, to infinity.
BEALE_STARTS = ((1.0, 1.0), (0.0, 0.0), (2.0, 2.0), (-1.0, -1.0), (1.0, -1.5), (4.0, 0.0), (-1.0, 0.5))


@dataclasses.dataclass(frozen=True)
class Fig1Settings:
    """What Fig. 1 is made with; everything here is chosen, for the paper states none of it.

    end: T.  outputs: times from 0 to T at which distances are taken.  rate_m, rate_v: A = 1−α, B = 1−β.
    gamma: HBODE's; fair_gamma: that of a well damped one.  gammas, rates (of A and of B), epsilons: the maps.
    rosenbrock, beale: starts, the first one drawn.  tol: of the distances; cost_tol: of what is counted in
    evaluations, with dopri5 (the paper's method and one of its tolerances).  reference_starts: how many
    starts scipy solves too.  max_steps, cost_steps: attempts before a solve gives up.  enough_starts: for
    a verdict.  tail_end: until when the decay on a quadratic is watched.
    """

    end: float = 20.0
    outputs: int = 1001
    rate_m: float = CIFAR
    rate_v: float = CIFAR
    eps: float = 1e-8
    gamma: float = HBNODE
    fair_gamma: float = 1.0
    gammas: tuple[float, ...] = (0.02, HBNODE, 0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 4.0)
    rates: tuple[float, ...] = (MNIST_M, 0.05, 0.2, 0.5, CIFAR, MNIST_V)
    epsilons: tuple[float, ...] = (1e-8, 1e-6, 1e-4, 1e-2, 1.0)
    rosenbrock: tuple[Point, ...] = ROSENBROCK_STARTS
    beale: tuple[Point, ...] = BEALE_STARTS
    tol: float = 1e-7
    cost_tol: float = 1e-5
    reference_starts: int = 2
    reference_tol: float = 1e-10
    max_steps: int = 10_000
    cost_steps: int = 8_000
    enough_starts: int = 5
    tail_end: float = 21.0

    def starts(self, function: str) -> tuple[Point, ...]:
        """Of a function by name."""
        return self.rosenbrock if function == "rosenbrock" else self.beale

    def flows(self) -> dict[str, Flow]:
        """The three of the figure, and HBODE well damped."""
        return {
            "gradient-flow": GRADIENT_FLOW,
            "hbode": heavy_ball(self.gamma),
            "adamode": adam(self.rate_m, self.rate_v, self.eps),
            "hbode-damped": heavy_ball(self.fair_gamma),
        }


SETTINGS = {
    "smoke": Fig1Settings(
        end=1.0,
        outputs=51,
        gammas=(0.1, 1.0),
        rates=(0.5, CIFAR),
        epsilons=(1e-4,),
        rosenbrock=ROSENBROCK_STARTS[:2],
        beale=BEALE_STARTS[:2],
        tol=1e-5,
        cost_tol=1e-3,
        reference_starts=1,
        reference_tol=1e-9,
        max_steps=1_000,
        tail_end=6.0,
    ),
    "sample": Fig1Settings(),
    "paper": Fig1Settings(
        end=30.0,
        outputs=3001,
        gammas=(0.01, 0.02, HBNODE, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.3, 1.6, 2.0, 2.5, 3.0, 4.0),
        rates=(MNIST_M, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, CIFAR, MNIST_V),
        epsilons=(1e-10, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0),
        tol=1e-9,
        reference_starts=7,
        reference_tol=1e-12,
        max_steps=40_000,
        cost_steps=20_000,
    ),
}


def compute(settings: Fig1Settings, work: Work) -> Outcome:
    """All descents of a function are one batch; then costs, the reference, Eq. 2 as printed, and the tail."""
    found: dict[str, Any] = {}
    for name, function in FUNCTIONS.items():
        descents = _Descents(settings, function)
        found[name] = work.part(name, descents.compute)
        found[f"{name}-cost"] = work.part(f"{name}-cost", descents.costs)
        found[f"{name}-reference"] = work.part(f"{name}-reference", descents.reference)
        found[f"{name}-printed"] = work.part(f"{name}-printed", descents.printed)
    found["tail"] = work.part("tail", lambda: _tail(settings))
    outcome = outcome_of(settings, found)
    return dataclasses.replace(outcome, findings=findings(settings, outcome))


class _Descents:
    """What is computed for one function."""

    def __init__(self, settings: Fig1Settings, function: TestFunction):
        self.settings, self.function = settings, function
        self.starts = settings.starts(function.name)
        self.how = Precision(settings.tol, settings.max_steps)

    def groups(self) -> dict[str, Flow]:
        """Every flow that starts from every start, by the name of its group."""
        s = self.settings
        found = dict(s.flows())
        found |= {f"gamma {gamma!r}": heavy_ball(gamma) for gamma in s.gammas}
        found |= {f"rates {a!r} {b!r}": adam(a, b, s.eps) for a in s.rates for b in s.rates}
        found |= {f"eps {eps!r}": adam(s.rate_m, s.rate_v, eps) for eps in s.epsilons}
        return found

    def compute(self) -> dict[str, Any]:
        """Rows of each group, start by start; curves of the start that is drawn."""
        groups, s = self.groups(), self.settings
        descents = [Descent(flow, start) for flow in groups.values() for start in self.starts]
        times = torch.linspace(0.0, s.end, s.outputs, dtype=torch.float64)
        travelled = travel(self.function, descents, times, self.how)
        rows: dict[str, list[dict[str, Any]]] = {}
        for k, name in enumerate(name for name in groups for _ in self.starts):
            rows.setdefault(name, []).append(row_of(travelled, k))
        n = len(self.starts)
        curves = {name: _curves(travelled, n * i) for i, name in enumerate(s.flows())}
        t = [round(float(one), 9) for one in times]
        curvature = smallest_curvature(self.function)
        return {"rows": rows, "curves": curves, "t": t, "smallest_curvature": curvature}

    def costs(self) -> dict[str, list[dict[str, Any]]]:
        """Of each flow and start the evaluations to each radius; of the first start the whole way."""
        s = self.settings
        how = Precision(s.cost_tol, s.cost_steps, "dopri5")
        descents = [Descent(flow, start) for flow in s.flows().values() for start in self.starts]
        ways = costs(self.function, descents, s.end, how)
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in s.flows()}
        for k, way in enumerate(ways):
            name, first = list(found)[k // len(self.starts)], k % len(self.starts) == 0
            nfe, distance = way["nfe"], way["distance"]
            done = way["t"][-1] == s.end
            one: dict[str, Any] = {"nfe_loose": nfe[-1] if done else None}
            for radius in RADII:
                spent = settled_time(nfe, distance, float(radius)) if done else None
                one[f"nfe_stays_{radius}"] = None if spent is None else math.ceil(spent)
            if first:
                every = max(1, len(nfe) // 800)
                one["way"] = {key: [_short(v) for v in values[::every]] for key, values in way.items()}
            found[name].append(one)
        return found

    def reference(self) -> dict[str, float | None]:
        """The largest difference of x from scipy's, by model."""
        s = self.settings
        return largest_differences(
            self.function, s.flows(), self.starts[: s.reference_starts], s.end, self.how, s.reference_tol
        )

    def printed(self) -> list[float | None]:
        """When |x| = 1000 under Eq. 2 as printed, from each start."""
        s = self.settings
        descents = [Descent(heavy_ball(s.gamma, as_printed=True), start) for start in self.starts]
        return escape_times(self.function, descents, 1000.0, min(s.end, 1.0), self.how)


def _curves(travelled: Travel, k: int) -> dict[str, list[float | None]]:
    columns = {
        "x": travelled.z[:, k, 0],
        "y": travelled.z[:, k, 1],
        "distance": travelled.distance[:, k],
        "path": travelled.path[:, k],
    }
    return {name: [_short(v) for v in column.tolist()] for name, column in columns.items()}


def _short(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _tail(settings: Fig1Settings) -> list[dict[str, float]]:
    """Rates of decay on a quadratic, measured and foretold, for A, B of the figure and others."""
    pairs: Sequence[tuple[float, float]] = (
        (settings.rate_m, settings.rate_v),
        (0.6, 0.9),
        (0.95, 0.3),
    )
    return tail_rates(pairs, settings.tail_end, Precision(settings.tol, settings.max_steps))


FIGURE = Figure(
    name="fig1",
    title="Fig. 1: three flows towards a minimum",
    says=(
        "On the functions of Rosenbrock and Beale, AdamODE reaches the stationary point closer and faster "
        "than ODE (gradient flow) and HBODE."
    ),
    settings=SETTINGS,
    compute=compute,
    judge=judge,
    pictures=PICTURES,
    columns=COLUMNS,
)
