"""What `adamode inspect --adjoint` can study: problems y' = f(t, y), and dynamics with blocks."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..adjoint.dynamics.protocol import Dynamics, named_blocks
from ..models.block import augment
from ..models.denominators import DenominatorName, get_denominator
from ..models.dynamics import (
    AdamODE,
    AugmentedNODE,
    GeneralisedHeavyBallODE,
    GeneralisedNesterovODE,
    HeavyBallODE,
    MomentumODE,
    NesterovODE,
    NeuralODE,
    SecondOrderODE,
)
from ..models.fields import MLP
from ..solvers.errors import ArgumentError, ArgumentTypeError, nearest
from .catalogue import find_problem, load_named
from .known import check_problem
from .problem import Problem

BATCH, DIM, WIDTH, EXTRA = 4, 3, 16, 2  # samples, features of h, of the hidden layer, ANODE's channels
SPAN = (0.0, 2.0)  # as the digits' models have it


@dataclasses.dataclass(frozen=True)
class AdjointProblem:
    """A solve whose adjoint is looked at.

    func: a `Dynamics`, a module or a function f(t, z).
    z0: the start, of any shape a solve takes.
    span: (t0, t1).
    equation, source: a line each, for people.
    log_time: as in `Problem`.
    The loss is L = w·z(t1); of a dynamics with named blocks w has entries in the first one only, h, as
    a model's head reads nothing else.

    Raises ArgumentTypeError where z0 is no tensor, ArgumentError for a span without length.
    """

    name: str
    func: Any
    z0: Tensor
    span: tuple[float, float]
    equation: str = ""
    source: str = ""
    log_time: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.z0, Tensor):
            raise ArgumentTypeError(f"{self.name}: z0 is a {type(self.z0).__name__}; it must be a tensor.")
        t0, t1 = self.span
        if t0 == t1 or not all(math.isfinite(t) for t in self.span):
            raise ArgumentError(
                f"{self.name}: span={self.span} must be finite, with an end that is not the start."
            )

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks of z, or ()."""
        return named_blocks(self.func)

    @property
    def loss(self) -> str:
        """The loss in words."""
        return f"L = w·{self.blocks[0] if self.blocks else 'y'}(T), w from N(0, 1)"

    def cotangent(self, seed: int) -> Tensor:
        """∂L/∂z at the two ends, [2, *z0.shape]: zeros, and w drawn from the seed."""
        generator = torch.Generator().manual_seed(seed)
        w = torch.randn(self.z0.shape, generator=generator, dtype=torch.float64).to(self.z0)
        if self.blocks:
            w[1:] = 0
        return torch.stack((torch.zeros_like(w), w))


def _field(seed: int, inputs: int, outputs: int) -> MLP:
    """A tanh network in float64, each weight and bias drawn as N(0, 1)/√(columns)."""
    generator = torch.Generator().manual_seed(seed)
    field = MLP(inputs, (WIDTH,), out_dim=outputs).double()
    with torch.no_grad():
        for p in field.parameters():
            drawn = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            p.copy_(drawn / math.sqrt(p.shape[-1]))
    return field


def _square(seed: int) -> MLP:
    return _field(seed, DIM, DIM)


_Make = Callable[[int, DenominatorName], Any]
# Each from a seed and a denominator, which AdamODE alone has; and its equation.
_MODELS: dict[str, tuple[_Make, str]] = {
    "node": (lambda seed, _: NeuralODE(_square(seed)), "h' = f(t, h)"),
    "anode": (
        lambda seed, _: AugmentedNODE(_field(seed, DIM + EXTRA, DIM + EXTRA)),
        "h' = f(t, h), h with two channels of zeros more",
    ),
    "sonode": (lambda seed, _: SecondOrderODE(_field(seed, 2 * DIM, DIM)), "h' = v,  v' = f(t, [h, v])"),
    "hbnode": (
        lambda seed, _: HeavyBallODE(_square(seed), gamma=0.4),
        "h' = −m,  m' = f(t, h) − γ m,  γ = 0.4",
    ),
    "ghbnode": (
        lambda seed, _: GeneralisedHeavyBallODE(_square(seed), gamma=0.4, xi=0.5),
        "h' = tanh(−m),  m' = f(t, h) − γ m + ξ h,  γ = 0.4,  ξ = 0.5",
    ),
    "adamnode": (
        lambda seed, d: AdamODE(_square(seed), alpha=0.3, beta=0.4, eps=1e-3, denominator=d),
        "h' = −m·D(v),  m' = A(−f(t, h) − m),  v' = B(f(t, h)² − v),  A = 0.7,  B = 0.6,  ε = 1e-3",
    ),
    "nesterovnode": (
        lambda seed, _: NesterovODE(_square(seed), shift=1.0),
        "h' = −m,  m' = f(t, h) − (3/τ) m,  τ = t + 1",
    ),
    "gnesterovnode": (
        lambda seed, _: GeneralisedNesterovODE(_square(seed), xi=0.5, shift=1.0),
        "h' = (κ'/κ) h − κ tanh(m),  m' = tanh(f(t, h)) − m + ξ h,  κ = tanh(τ^(−3/2) e^(τ/2)),  τ = t + 1,  "
        "ξ = 0.5",
    ),
    "momentumnode": (
        lambda seed, _: MomentumODE(_square(seed), gamma=0.4, r=2.0, shift=1.0),
        "h' = −m,  m' = f(t, h) − (γ + r/τ) m,  γ = 0.4,  r = 2,  τ = t + 1",
    ),
}
MODELS = tuple(_MODELS)


def model_problem(name: str, seed: int = 0, denominator: str = "exact") -> AdjointProblem:
    """A model's dynamics over a small random tanh network, float64: z0 [K, 4, 3] (anode: [1, 4, 5]).

    h0 ~ N(0, 1), m0 ~ N(0, 1); adamnode's v0 = N(0, 1)² + 0.1 > 0, inside the exact denominator's domain.
    Raises ArgumentError for an unknown name or denominator, with the nearest.
    """
    if name not in _MODELS:
        raise ArgumentError(f"model {name!r} is not known: {nearest(name, _MODELS)}")
    make, equation = _MODELS[name]
    dynamics = make(seed, get_denominator(denominator).name).double()
    generator = torch.Generator().manual_seed(seed + 1)
    z0 = torch.randn(len(dynamics.blocks), BATCH, DIM, generator=generator, dtype=torch.float64)
    if name == "anode":
        z0 = augment(z0[0], EXTRA)[None]
    if name == "adamnode":
        z0[2] = z0[2].square() + 0.1
        equation += f", D {denominator}"
    network = f"f: a random tanh network of width {WIDTH}, seed {seed}"
    return AdjointProblem(name, dynamics, z0, SPAN, equation, network)


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What a user may say of a problem besides its name; None: the problem's own."""

    y0: Sequence[float] | None = None
    t_start: float = 0.0
    t_end: float | None = None
    seed: int = 0
    denominator: str | None = None
    dtype: torch.dtype = torch.float64
    device: str = "cpu"


def find_adjoint_problem(name: str, wanted: Wanted) -> AdjointProblem:
    """A model's dynamics, a problem of the catalogue, or the user's own ``module:name``.

    The latter is what `find_problem` takes, or a `Dynamics` (y0: its numbers by block, K·B·S of them, as
    one sample), an AdjointProblem, or a function without arguments that returns one of these.
    Raises ArgumentError for an unknown name, with the nearest, and for what does not fit.
    """
    if wanted.denominator is not None:
        get_denominator(wanted.denominator)
        if name != "adamnode":
            raise ArgumentError(f"denominator={wanted.denominator!r}: {name} has none; only adamnode has.")
    if name in _MODELS:
        found = model_problem(name, wanted.seed, wanted.denominator or "exact")
    elif ":" in name:
        found = _own(name, wanted)
    else:
        check_problem(name, models=True)
        found = _of_problem(find_problem(name, wanted.y0, wanted.t_end, wanted.t_start))
    return _fitted(found, wanted)


def _of_problem(problem: Problem) -> AdjointProblem:
    z0 = problem.state(torch.float64)
    return AdjointProblem(
        problem.name, problem.f, z0, problem.span, problem.equation, problem.source, problem.log_time
    )


def _own(name: str, wanted: Wanted) -> AdjointProblem:
    thing = load_named(name)
    if not isinstance(thing, AdjointProblem | Dynamics | Problem) and wanted.y0 is None and callable(thing):
        try:
            made = thing()
        except TypeError:  # f(t, y): find_problem says what it lacks
            made = None
        if isinstance(made, AdjointProblem | Dynamics | Problem):
            thing = made
    if isinstance(thing, AdjointProblem):
        return thing
    if not isinstance(thing, Dynamics):
        return _of_problem(find_problem(name, wanted.y0, wanted.t_end, wanted.t_start, loaded=thing))
    if wanted.y0 is None or wanted.t_end is None:
        raise ArgumentError(f"{name} is a Dynamics: give its start and end, --y0 1,0 --t-end 10.")
    blocks = max(1, len(named_blocks(thing)))
    if len(wanted.y0) % blocks:
        raise ArgumentError(
            f"y0 has {len(wanted.y0)} numbers; {name} has {blocks} blocks, which must have equally many."
        )
    z0 = torch.tensor(wanted.y0, dtype=torch.float64).reshape(blocks, 1, -1)
    equation = " ".join((type(thing).__doc__ or "").split("\n\n")[0].split())
    return AdjointProblem(name.rpartition(":")[2], thing, z0, (wanted.t_start, wanted.t_end), equation, name)


def _fitted(found: AdjointProblem, wanted: Wanted) -> AdjointProblem:
    """With the start, end, dtype and device that are wanted; a module is copied, not changed."""
    z0, func = found.z0, found.func
    if wanted.y0 is not None:
        if len(wanted.y0) != z0.numel():
            raise ArgumentError(f"y0 has {len(wanted.y0)} numbers; {found.name} has {z0.numel()}.")
        z0 = torch.tensor(wanted.y0, dtype=torch.float64).reshape(z0.shape)
    if isinstance(func, nn.Module):
        func = copy.deepcopy(func).to(wanted.device, wanted.dtype)
    end = found.span[1] if wanted.t_end is None else wanted.t_end
    return dataclasses.replace(
        found, func=func, z0=z0.to(wanted.device, wanted.dtype), span=(found.span[0], end)
    )
