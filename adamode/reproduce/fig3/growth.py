"""Fig. 3 untrained: many random linear fields at once, solved side by side, and the norms of their states."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn

from ...adjoint.solve import solve
from ...models.block import augment
from ...models.denominators import DenominatorName
from ...models.dynamics import AdamODE, GeneralisedHeavyBallODE, HeavyBallODE, NeuralODE, SecondOrderODE
from ...models.fields.driven import Driven, Signal
from ...models.fields.field import Field, Gradients
from ...models.presets import SIGMOID_3, SIGMOID_5, settings_of
from ...solvers.errors import ArgumentError
from ...solvers.status import Status

MODELS = ("node", "anode", "sonode", "hbnode", "ghbnode", "adamnode")  # the order of the figure and of draws
INPUTS = ("code", "repaired")
# A = 1−α and B = 1−β at the start, as released for Silverbox (and MNIST) and for CIFAR-10.
RATES = {"silverbox": (1 - SIGMOID_5, SIGMOID_5), "cifar10": (SIGMOID_3, SIGMOID_3)}
# Of the field's linear layer (into, out) and of the start's (numbers drawn), one state variable h each.
_LAYERS = {"node": (2, 1, 0), "anode": (3, 2, 0), "sonode": (3, 1, 1)}
_LAYERS |= dict.fromkeys(("hbnode", "ghbnode", "adamnode"), (2, 1, 1))


@dataclasses.dataclass(frozen=True)
class Case:
    """A model in one setting.

    input: "code", as the released script indexes it, or "repaired".  denominator, rates: AdamNODE's, a key
    of `RATES`.  change: of GHBNODE, "unbounded" (h' = −m) or "no-force" (ξ = 0).
    """

    model: str
    input: str = "code"
    denominator: DenominatorName = "softplus"
    rates: str = "silverbox"
    change: str = ""

    @property
    def name(self) -> str:
        """A file's name; the authors' setting is the model's alone."""
        usual = (self.denominator, self.rates) == ("softplus", "silverbox")
        of_adam = [] if usual else [self.denominator, self.rates]
        words = (self.model, self.change, *of_adam, "" if self.input == "code" else self.input)
        return "-".join(word for word in words if word)


@dataclasses.dataclass(frozen=True)
class Draws:
    """Random fields and starts, float64: weight [N, out, in], bias [N, out], w [N, 1] or None."""

    weight: Tensor
    bias: Tensor
    w: Tensor | None

    def times(self, scale: float) -> Draws:
        """All of it times ``scale``."""
        scaled: list[Any] = [None if part is None else scale * part for part in vars(self).values()]
        return Draws(*scaled)


class EachLinear(Field):
    """f_i(t, x_i) = W_i x_i + b_i: sample i has a layer of its own.

    weight: [N, out, in].  bias: [N, out]; learnt where they are parameters.  x: [N, in].
    """

    def __init__(self, weight: Tensor, bias: Tensor):
        super().__init__()
        self.weight, self.bias = weight, bias
        self.channels_out, self.channels_in = weight.shape[1:]

    def reference(self, t: Tensor, h: Tensor) -> Tensor:
        """f, [N, out]."""
        # A batched product of such small ones is slower.
        return (self.weight * h[:, None, :]).sum(2) + self.bias

    def forward(self, t: Tensor, h: Tensor) -> tuple[Tensor, Any]:
        """f, and x for the VJP."""
        return self.reference(t, h), h

    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """x̄_i = W_iᵀ c_i; deltas: c."""
        return (self.weight * cotangent[:, :, None]).sum(1), cotangent

    def parameter_gradients(self, saved: list[Any], deltas: list[Any], weights: Tensor | None) -> Gradients:
        """W̄_i = Σ c_i x_iᵀ and b̄_i = Σ c_i over the stages."""
        if not self.theta():
            return ()
        x, c = torch.stack(saved), torch.stack(deltas)
        if weights is not None:
            c = c * weights.reshape(len(c), -1, 1)
        return (c[..., None] * x[..., None, :]).sum(0), c.sum(0)


def draw(seed: int, count: int) -> dict[str, Draws]:
    """``count`` random inits of each model, torch's own, in the order in which the released script draws.

    One generator goes through the models, and in each through the inits: weight and bias of the field, then
    the start. It draws in float32; the values are given in float64.
    """
    found = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for model in MODELS:
            into, out, start = _LAYERS[model]
            drawn = []
            for _ in range(count):
                layer = nn.Linear(into, out, dtype=torch.float32)
                w = nn.Linear(1, start, bias=False, dtype=torch.float32).weight[0] if start else None
                drawn.append((layer.weight, layer.bias, w))
            found[model] = Draws(*map(_stacked, zip(*drawn, strict=True)))
    return found


def _stacked(parts: tuple[Any, ...]) -> Any:
    return None if parts[0] is None else torch.stack(parts).detach().double()


def joined(*parts: Draws) -> Draws:
    """One after the other."""
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    whole: list[Any] = [None if column[0] is None else torch.cat(column) for column in columns]
    return Draws(*whole)


def input_signal(u: Tensor, kind: str) -> Signal:
    """The input v1(t) for 0 ≤ t < len(u), u: [T] its samples, T ≥ 3.

    "repaired": linear between samples. "code": the script takes the sample's index for ⌊t⌋ clamped to 0 and
    1 (the number of its parts, training and test, in the place of that of samples), so that past t = 1 the
    line through samples 1 and 2 goes on.
    """
    if kind not in INPUTS:
        raise ArgumentError(f"input={kind!r} must be one of {', '.join(INPUTS)}.")
    if kind == "repaired":
        return Signal(torch.arange(len(u), dtype=torch.float64), u[:, None])
    last = len(u) - 1
    values = torch.stack((u[0], u[1], u[1] + (last - 1) * (u[2] - u[1])))
    return Signal(torch.tensor([0.0, 1.0, last], dtype=torch.float64), values[:, None])


def system(case: Case, draws: Draws, u: Tensor, y0: Tensor) -> tuple[Any, Tensor]:
    """The dynamics of all inits side by side and their starts [K, N, C], float64. u: [T].  y0: 0-d."""
    weight = draws.weight
    if case.change:
        # f + ξh is f with another weight of h. So ξ is added where σ and with it ξ is to go from the
        # dynamics, and taken away where it is to stay there without effect.
        xi = torch.zeros_like(weight)
        xi[:, 0, 0] = settings_of("ghbnode", "silverbox")["xi"]
        weight = weight + xi if case.change == "unbounded" else weight - xi
    field = Driven(EachLinear(weight, draws.bias)).with_signal(input_signal(u, case.input))
    return dynamics_of(case, field).double(), starts(case.model, draws.w, y0, len(weight))


def dynamics_of(case: Case, field: Driven) -> Any:
    """The project's dynamics, set up for the Silverbox as the released code does, but for ``case``."""
    model, set_up = case.model, settings_of(case.model, "silverbox")
    if model in ("node", "anode", "sonode"):
        return SecondOrderODE(field) if model == "sonode" else NeuralODE(field)
    if model == "hbnode" or case.change == "unbounded":
        return HeavyBallODE(field, gamma=set_up["gamma"])
    if model == "ghbnode":
        gamma, xi = set_up["gamma"], set_up["xi"]
        return GeneralisedHeavyBallODE(field, gamma=gamma, xi=xi, activation=set_up["sigma"])
    a, b = RATES[case.rates]
    return AdamODE(field, alpha=1 - a, beta=1 - b, eps=set_up["eps"], denominator=case.denominator)


def starts(model: str, w: Tensor | None, y0: Tensor, count: int) -> Tensor:
    """[K, N, C]: h(0) is the first output (ANODE: and a zero), m or v is w, AdamNODE's v(0) = w²."""
    h0 = y0.expand(count, 1)
    blocks = [augment(h0, 1) if model == "anode" else h0]
    if w is not None:
        blocks += [w, w.square()] if model == "adamnode" else [w]
    return torch.stack(blocks)


@dataclasses.dataclass(frozen=True)
class Growth:
    """log10 of the norms of N states at t = 0, 1, …, [N, T]; NaN from where a solve failed.

    whole: of all blocks.  h: of h alone.  status: of each solve, by name.  attempts: of steps, of each.
    """

    whole: Tensor
    h: Tensor
    status: tuple[str, ...]
    attempts: Tensor


def grow(case: Case, draws: Draws, u: Tensor, y0: Tensor, *, tol: float, max_steps: int) -> Growth:
    """Solves each init from t = 0 to len(u) − 1. draws: [N] inits.  u: [T], the input.  y0: first output."""
    dynamics, z0 = system(case, draws, u, y0)
    return norms(dynamics, z0, input_signal(u, case.input), tol=tol, max_steps=max_steps)


def norms(dynamics: Any, z0: Tensor, signal: Signal, *, tol: float, max_steps: int) -> Growth:
    """Solves each sample of z0, [K, N, C], by itself, rtol = atol = tol; steps end at the input's kinks."""
    solution = solve(
        dynamics,
        z0,
        torch.arange(int(signal.times[-1]) + 1, dtype=torch.float64),
        rtol=tol,
        atol=tol,
        stepping="per_sample",
        step_at=signal.times[1:-1],
        max_steps=max_steps,
        gradient=None,
    )
    states = solution.y.permute(2, 0, 1, 3)  # [N, T, K, C]
    return Growth(
        log10_norm(states.flatten(2)),
        log10_norm(states[:, :, 0]),
        tuple(Status(value).name for value in solution.status.tolist()),
        torch.as_tensor(solution.stats.n_steps),
    )


def log10_norm(states: Tensor) -> Tensor:
    """log10 ‖x‖₂ over the last dimension; no square overflows. −∞ for zeros, NaN for NaN."""
    largest = states.abs().amax(-1, keepdim=True)
    scale = torch.where(largest > 0, largest, 1.0)
    return (scale.squeeze(-1)).log10() + (states / scale).norm(dim=-1).log10()


def log10_mean(logs: Tensor, dim: int = 0) -> Tensor:
    """log10 of the mean of 10^logs along ``dim``; no power overflows."""
    e = math.log(10.0)
    return (torch.logsumexp(logs * e, dim) - math.log(logs.shape[dim])) / e
