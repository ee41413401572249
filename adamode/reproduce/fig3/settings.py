"""What Fig. 3 is made with at each scale, and the cases that these settings ask for."""

from __future__ import annotations

import dataclasses

from ...models.denominators import DenominatorName
from .growth import INPUTS, MODELS, Case


@dataclasses.dataclass(frozen=True)
class Fig3Settings:
    """What the figure is made with. Paper: its text. Code: what its authors released. Ours: neither says."""

    # Paper: Silverbox. Code: mean removed, ×100, its first samples. "silverbox-simulated" needs no file.
    dataset: str = "silverbox-paper"
    # Paper: "t = 64". Code: t = 0 … 63. The text speaks of ‖h(t)‖₂, the code takes the whole state: both.
    rows: int = 64
    # Paper: nothing. Code: seed 18, ten inits; the models one after the other, in each init the field's
    # weight and bias, then the start. Weights are torch's default and are not trained.
    seed: int = 18
    inits: int = 10
    # Ours: so many further inits (seed + 1), to tell how far the ten stand for others.
    draws: int = 2000
    # Paper: nothing. Code: dopri5 of torchdiffeq in float32. Here float64: the squares of norms above
    # 10^19.3 overflow in float32.
    tol: float = 1e-7
    max_steps: int = 100_000
    # Paper: the exact one. Code: softplus here and for MNIST, sigmoid for CIFAR-10.
    denominators: tuple[DenominatorName, ...] = ("exact", "softplus", "sigmoid")
    # Code: 1−α, 1−β = sigmoid(−5), sigmoid(5) here and for MNIST ("silverbox"), both sigmoid(3) for CIFAR-10.
    rates: tuple[str, ...] = ("silverbox", "cifar10")
    # The trained models. Paper: trained, but neither loss nor horizon nor schedule. Code: none for this
    # figure. Ours: mean squared error over the rows of the figure, Adam at a constant step size, gradients
    # clipped; from torch's weights times each of these (0.01 is what the project trains with), several
    # draws (seed + 2) each. The input is the repaired one.
    train_inits: int = 5
    train_scales: tuple[float, ...] = (0.01, 1.0)
    train_steps: int = 100
    train_lr: float = 0.03
    train_clip: float = 1.0

    @property
    def simulated(self) -> bool:
        """Whether the data are not the paper's."""
        return self.dataset != "silverbox-paper"


SETTINGS = {
    "smoke": Fig3Settings(
        dataset="silverbox-simulated", draws=20, rows=16, tol=1e-5, train_inits=2, train_steps=2
    ),
    "sample": Fig3Settings(),
    "full-small": Fig3Settings(),
    "paper": Fig3Settings(draws=5000, train_inits=10, train_steps=400),
}


def cases(settings: Fig3Settings) -> list[Case]:
    """Every setting of untrained models: the authors', and each with one thing changed (AdamNODE: two)."""
    found = [Case(model, kind) for kind in INPUTS for model in MODELS]
    found += [Case("ghbnode", change=change) for change in ("unbounded", "no-force")]
    known = {case.name for case in found}
    more = [
        Case("adamnode", denominator=kind, rates=rates)
        for rates in settings.rates
        for kind in settings.denominators
    ]
    return found + [case for case in more if case.name not in known]
