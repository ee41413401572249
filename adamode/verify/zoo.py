"""The models that ``adamode verify`` checks, small and with random weights, and the problems made of them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn

from ..adjoint.proof.solves import GradientProblem
from ..models.block import augment
from ..models.denominators import DENOMINATORS, DenominatorName
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
from ..models.dynamics.ghbnode import Bounded
from ..models.dynamics.momentumnode import DAMPINGS, DampingName
from ..models.fields import MLP, AutogradField, Conv, Scaled
from ..models.known import MODELS as MODELS
from ..models.saturations import SATURATIONS, SaturationName
from ..solvers.errors import ArgumentError, check_choice

ACTIVATIONS = SATURATIONS  # of GHBNODE, which has no identity, and of GNesterovNODE
FIELDS = ("mlp", "conv", "autograd", "scaled", "affine")
BLOCKS = {"node": 1, "anode": 1, "adamnode": 3}  # of the others 2
# Of the models that are defined for t > 0, later than the others by so much: where 3/t changes fast.
LATER = {"nesterovnode": 0.6, "gnesterovnode": 0.6, "momentumnode": 0.6}
BATCH, AUGMENTED = 2, 2  # the least in which a mistake in samples or channels shows
_D = torch.float64


@dataclasses.dataclass(frozen=True)
class Variant:
    """A model with the choice it has: AdamNODE's denominator, an activation σ, MomentumNODE's damping."""

    model: str
    denominator: DenominatorName | None = None
    activation: SaturationName | None = None
    damping: DampingName | None = None

    def __str__(self) -> str:
        return ", ".join(x for x in (self.model, self.denominator, self.activation, self.damping) if x)


VARIANTS = (
    *(Variant(model) for model in MODELS[:4]),
    *(Variant("ghbnode", activation=activation) for activation in ACTIVATIONS[1:]),
    *(Variant("adamnode", denominator) for denominator in DENOMINATORS),
    Variant("nesterovnode"),
    *(Variant("gnesterovnode", activation=activation) for activation in ACTIVATIONS),
    *(Variant("momentumnode", damping=damping) for damping in DAMPINGS),
)


@dataclasses.dataclass(frozen=True)
class Instance:
    """A variant over a field, and a start: what a seed decides.

    field: "mlp" (tanh), "conv", "autograd" (the MLP through `AutogradField`), "scaled" (the MLP between two
        scales) or "affine" (f = W[h, t] + b,
        for which there are closed solutions).
    least: of AdamODE's v0; solved backwards v falls, and the exact denominator ends where v + ε < 0.
    """

    variant: Variant
    seed: int = 0
    field: str = "mlp"
    device: str = "cpu"
    least: float = 0.1

    def build(self) -> tuple[Any, Tensor]:
        """(the dynamics, z0), in float64; AdamODE starts from v0 > 0."""
        generator = torch.Generator().manual_seed(self.seed)
        field = _random(self._field(), generator)
        dynamics = self._dynamics(AutogradField(field) if self.field == "autograd" else field)
        blocks, shape = BLOCKS.get(self.variant.model, 2), self._shape()
        h0 = torch.randn(BATCH, *shape, generator=generator, dtype=_D)
        rest = torch.randn(blocks - 1, BATCH, *shape, generator=generator, dtype=_D)
        if self.variant.model == "anode":
            h0 = augment(h0, AUGMENTED)
            rest = rest.new_zeros((0, *h0.shape))
        z0 = torch.cat((h0[None], rest))
        if self.variant.model == "adamnode":
            z0[2] = z0[2].square() + self.least
        if self.variant.activation == "hardtanh":
            z0[1] *= 0.3  # where σ(−m) = −m …
            if self.field != "affine":
                # … and where it is clipped: f and γm (m of GNesterovNODE) cannot bring m down to 5 in time
                z0[1, :, 0] = 40.0 if self.variant.model == "gnesterovnode" else 15.0
        return dynamics.to(self.device), z0.to(self.device)

    def _shape(self) -> tuple[int, ...]:
        channels = 4 if self.variant.model == "anode" else 6
        return (2, 3, 3) if self.field == "conv" else (channels,)

    def _field(self) -> nn.Module:
        dim = self._shape()[0] + (AUGMENTED if self.variant.model == "anode" else 0)
        inputs = 2 * dim if self.variant.model == "sonode" else dim
        if self.field == "conv":
            return Conv(inputs, 3, out_channels=dim, activation="tanh")
        field = MLP(inputs, () if self.field == "affine" else (12,), out_dim=dim)
        return Scaled(field, scale=1.5, gain=0.6) if self.field == "scaled" else field

    def _dynamics(self, field: nn.Module) -> nn.Module:
        variant = self.variant
        if variant.model == "adamnode":
            made: Any = AdamODE(
                field, alpha=0.3, beta=0.4, eps=1e-3, denominator=variant.denominator or "exact"
            )
        elif variant.model == "ghbnode":
            # Rates of hardtanh's case are small: see the start above.
            gamma, xi = (0.1, 0.4) if variant.activation == "hardtanh" else (0.3, 1.7)
            bounded: Bounded = "hardtanh" if variant.activation == "hardtanh" else "tanh"
            made = GeneralisedHeavyBallODE(field, gamma=gamma, xi=xi, activation=bounded)
        elif variant.model == "gnesterovnode":
            force = None if variant.activation == "identity" else 0.4
            made = GeneralisedNesterovODE(field, xi=force, activation=variant.activation or "tanh")
        elif variant.model == "momentumnode":
            made = MomentumODE(field, damping=variant.damping or "learned", gamma=0.3, r=1.7)
        elif variant.model == "hbnode":
            made = HeavyBallODE(field, gamma=0.3)
        else:
            plain = {"node": NeuralODE, "anode": AugmentedNODE, "sonode": SecondOrderODE}
            made = {**plain, "nesterovnode": NesterovODE}[variant.model](field)
        return made.double()

    def problem(self, **arguments: Any) -> tuple[Any, GradientProblem]:
        """The dynamics, and its solve from 0 to 1 with an output between; arguments: `solve`'s.

        The times are those of models that are defined everywhere; see `LATER`.
        """
        dynamics, z0 = self.build()
        later = LATER.get(self.variant.model, 0.0)
        times = [x + later for x in arguments.pop("t", (0.0, 0.37, 1.0))]
        t = torch.tensor(times, dtype=_D, device=self.device)
        return dynamics, GradientProblem(dynamics, z0, t, arguments, seed=self.seed)


def _random(field: nn.Module, generator: torch.Generator) -> nn.Module:
    """Weights N(0, 1/inputs), biases N(0, 1/4)."""
    field = field.double()
    with torch.no_grad():
        for p in field.parameters():
            drawn = torch.randn(p.shape, generator=generator, dtype=_D)
            p.copy_(drawn / math.sqrt(p[0].numel()) if p.ndim > 1 else drawn / 2)
    return field


def chosen_variants(
    models: tuple[str, ...] | None, denominators: tuple[str, ...] | None, activations: tuple[str, ...] | None
) -> tuple[Variant, ...]:
    """The variants asked for; a denominator or an activation alone means the model that has one.

    Raises ArgumentError for an unknown name, with the nearest, and where nothing is left.
    """
    for argument, values, known in (
        ("model", models, MODELS),
        ("denominator", denominators, DENOMINATORS),
        ("activation", activations, ACTIVATIONS),
    ):
        for value in values or ():
            check_choice(argument, value, known)
    found = tuple(
        v
        for v in VARIANTS
        if (models is None or v.model in models)
        and (denominators is None or v.denominator in denominators)
        and (activations is None or v.activation in activations)
    )
    if not found:
        raise ArgumentError(
            f"model={models}, denominator={denominators}, activation={activations} leave nothing to check: "
            "adamnode has the denominators, ghbnode and gnesterovnode the activations."
        )
    return found
