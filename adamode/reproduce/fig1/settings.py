"""What Fig. 1 is made with at each scale: starts, rates, tolerances, and the flows that these give."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from .descent import GRADIENT_FLOW, Flow, Point, Precision, adam, heavy_ball

CIFAR = 1 / (1 + math.exp(-3.0))  # 1−α and 1−β at the start of the released CIFAR-10 training
MNIST_M, MNIST_V = 1 / (1 + math.exp(5.0)), 1 / (1 + math.exp(-5.0))  # the same for MNIST
HBNODE = 1 / (1 + math.exp(3.0))  # γ at the start of the released training

ROSENBROCK_STARTS = ((-1.2, 1.0), (0.0, 0.0), (-1.0, -1.0), (2.0, 2.0), (-2.0, 2.0), (0.0, 2.0), (1.5, -0.5))
# From the last one gradient flow runs along Beale's other valley, to infinity.
BEALE_STARTS = ((1.0, 1.0), (0.0, 0.0), (2.0, 2.0), (-1.0, -1.0), (1.0, -1.5), (4.0, 0.0), (-1.0, 0.5))
NAMES = {"gradient-flow": "gradient flow"}
UNIT = "adamode-unit"  # AdamODE with the rates that a time unit of s gives
READINGS = ("adamode", UNIT)


Varied = tuple[str, dict[str, float], Flow]


def group_of(kind: str, numbers: Mapping[str, float]) -> str:
    """The name of the descents with a flow of a map."""
    return " ".join((kind, *map(repr, numbers.values())))


@dataclasses.dataclass(frozen=True)
class Fig1Settings:
    """What Fig. 1 is made with; everything here is chosen, for the paper states none of it.

    end: T.  outputs: times from 0 to T at which distances are taken.  rate_m, rate_v: A = 1−α, B = 1−β.
    gamma: HBODE's; fair_gamma: that of a well damped one.  gammas, rates (of A and of B), epsilons: the maps.
    unit: s, of t = k·s in Eq. 5, by which Adam's steps k become time; coefficient: α and β there. The rates
    per unit of t are then (1−α)/s and (1−β)/s: a second reading of the figure.
    rosenbrock, beale: starts, the first one drawn.  tol: of the distances; cost_tol: of what is counted in
    evaluations, with dopri5 (the paper's method and one of its tolerances).  reference_starts: how many
    starts scipy solves too.  max_steps, cost_steps: attempts before a solve gives up; unit_steps: the same
    for the second reading by dopri5, where it is stiff.  stiff_tol, stiff_steps: of the map of rates and the
    second reading, by radau5.  enough_starts: for a verdict.  tail_end: until when the decay on a quadratic
    is watched.
    """

    end: float = 20.0
    outputs: int = 1001
    rate_m: float = CIFAR
    rate_v: float = CIFAR
    eps: float = 1e-8
    gamma: float = HBNODE
    fair_gamma: float = 1.0
    gammas: tuple[float, ...] = (0.02, HBNODE, 0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 4.0)
    unit: float = 0.001
    coefficient: float = 0.99
    rates: tuple[float, ...] = (MNIST_M, 0.05, 0.2, 0.5, CIFAR, MNIST_V, 3.0, 10.0, 30.0, 100.0)
    epsilons: tuple[float, ...] = (1e-8, 1e-6, 1e-4, 1e-2, 1.0)
    rosenbrock: tuple[Point, ...] = ROSENBROCK_STARTS
    beale: tuple[Point, ...] = BEALE_STARTS
    tol: float = 1e-7
    cost_tol: float = 1e-5
    reference_starts: int = 2
    reference_tol: float = 1e-10
    max_steps: int = 10_000
    cost_steps: int = 8_000
    unit_steps: int = 100_000
    stiff_tol: float = 1e-5
    stiff_steps: int = 5_000
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

    @property
    def unit_rate(self) -> float:
        """A = B of the second reading."""
        return round((1 - self.coefficient) / self.unit, 9)

    def varied(self) -> list[Varied]:
        """The flows of the maps that are solved as the figure's: a map's name, the numbers that are varied in
        it, the flow with them."""
        return [
            *(("gamma", {"gamma": gamma}, heavy_ball(gamma)) for gamma in self.gammas),
            *(("eps", {"eps": eps}, adam(self.rate_m, self.rate_v, eps)) for eps in self.epsilons),
        ]

    def by_rates(self) -> list[Varied]:
        """Those of the map of A and B, which is stiff where they are large."""
        pairs = [{"rate_m": a, "rate_v": b} for a in self.rates for b in self.rates]
        return [("rates", pair, adam(**pair, eps=self.eps)) for pair in pairs]

    def groups(self) -> dict[str, Flow]:
        """Every flow that starts from every start, by the name of its group."""
        return {**self.flows(), **{group_of(kind, numbers): flow for kind, numbers, flow in self.varied()}}

    def stiff_groups(self) -> dict[str, Flow]:
        """The same of the second reading, and of the map of A and B."""
        unit = adam(self.unit_rate, self.unit_rate, self.eps)
        return {UNIT: unit, **{group_of(kind, numbers): flow for kind, numbers, flow in self.by_rates()}}

    @property
    def how(self) -> Precision:
        """How the distances are solved for."""
        return Precision(self.tol, self.max_steps)

    @property
    def how_counted(self) -> Precision:
        """How what is counted in evaluations is solved for."""
        return Precision(self.cost_tol, self.cost_steps, "dopri5")

    @property
    def how_stiff(self) -> Precision:
        """How the map of rates and the second reading are solved for."""
        return Precision(self.stiff_tol, self.stiff_steps, "radau5")

    @property
    def how_unit(self) -> Precision:
        """How what the second reading costs an explicit method is counted."""
        return Precision(self.cost_tol, self.unit_steps, "dopri5")

    def name(self, model: str, between: str = " ") -> str:
        """A flow for people: "gradient flow", "HBODE γ = 1"."""
        if model in NAMES:
            return NAMES[model]
        if model in READINGS:
            return f"AdamODE{between}A = {self.rate_m if model == 'adamode' else self.unit_rate:.3g}"
        return f"HBODE{between}γ = {self.gamma if model == 'hbode' else self.fair_gamma:.3g}"


SETTINGS = {
    "smoke": Fig1Settings(
        end=1.0,
        outputs=51,
        gammas=(0.1, 1.0),
        rates=(0.5, CIFAR, 10.0),
        epsilons=(1e-4,),
        rosenbrock=ROSENBROCK_STARTS[:2],
        beale=BEALE_STARTS[:2],
        tol=1e-5,
        cost_tol=1e-3,
        reference_starts=1,
        reference_tol=1e-9,
        max_steps=1_000,
        unit_steps=1_000,
        stiff_tol=1e-3,
        stiff_steps=500,
        tail_end=6.0,
    ),
    "sample": Fig1Settings(),
    "full-small": Fig1Settings(),
    "paper": Fig1Settings(
        end=30.0,
        outputs=3001,
        gammas=(0.01, 0.02, HBNODE, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.3, 1.6, 2.0, 2.5, 3.0, 4.0),
        rates=(MNIST_M, 0.02, 0.05, 0.1, 0.2, 0.5, CIFAR, MNIST_V, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0),
        epsilons=(1e-10, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0),
        tol=1e-9,
        reference_starts=7,
        reference_tol=1e-12,
        max_steps=40_000,
        cost_steps=20_000,
        unit_steps=200_000,
        stiff_tol=1e-6,
        stiff_steps=20_000,
    ),
}
