"""Backsolve where AdamODE is hardest to solve backwards: is a wrong gradient ever given without an error?

Exact denominator, ε = 1e-3, float64, tolerance 1e-8. Backwards, errors in v grow like e^{(1−β)T}, and below
v = −ε the square root has no value: half of the cases have (1−β)T ≤ 4, the others 4 … 20. A third of each
start at v = 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import torch
from torch import Tensor

from adamode import Backsolve, Discrete, ReconstructionError, SolverError
from adamode.models.dynamics import AdamODE
from adamode.models.fields import MLP

from .cases import Case, error, gradient_of

CASES = 100  # half of them hard
HARD = 50  # cases from this seed on have (1−β)T in 4 … 20
TOL, REFERENCE_TOL = 1e-8, 1e-11
WRONG = 1e-4  # ten thousand tolerances: no rounding, and nothing that a user would call the gradient


@dataclasses.dataclass(frozen=True)
class Outcome:
    """product: (1−β)T.
    error: of the gradient, None where an error was raised, and text is that error's.
    finite: every entry of the gradient is.
    reconstruction: in tolerances, as backsolve reports it.
    """

    seed: int
    product: float
    error: float | None
    finite: bool = True
    reconstruction: float = 0.0
    text: str = ""

    @property
    def wrong(self) -> bool:
        """Handed out without an error, and NaN or more than 1e-4 off."""
        return self.error is not None and not (self.finite and self.error <= WRONG)


def random_case(seed: int) -> tuple[Case, float]:
    """A case and its (1−β)T: rates 0.05 … 0.95, B = 3, D = 4, a network of 16–16."""
    draw = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)

    def uniform() -> float:
        return float(torch.rand((), generator=draw))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    rate_b, rate_a = uniform() * 0.9 + 0.05, uniform() * 0.9 + 0.05
    product = 4 + 16 * uniform() if seed >= HARD else 0.2 + 3.8 * uniform()
    dynamics = AdamODE(MLP(4, (16, 16)), alpha=1 - rate_a, beta=1 - rate_b, eps=1e-3).double()
    h, m = normal(3, 4), 0.3 * normal(3, 4)
    v = (torch.zeros_like(h), m * m, torch.rand(3, 4, generator=draw, dtype=torch.float64))[seed % 3]
    t = torch.tensor([0.0, product / rate_b], dtype=torch.float64)
    w = torch.randn(3, 3, 4, generator=torch.Generator().manual_seed(seed + 1000), dtype=torch.float64)
    return Case("AdamNODE", dynamics, torch.stack((h, m, v)), t, w), product


def try_case(seed: int, choice: Backsolve = Backsolve()) -> Outcome:  # noqa: B008  (frozen)
    """Backsolve on one case. `ReconstructionError`, or another `SolverError`, is the guard's answer."""
    case, product = random_case(seed)
    try:
        found, sol = gradient_of(case, TOL, gradient=choice)
    except (ReconstructionError, SolverError) as problem:
        return Outcome(seed, product, None, text=f"{type(problem).__name__}: {problem}")
    right, _ = gradient_of(case, REFERENCE_TOL, gradient=Discrete(keep="state"))
    off = sol.stats.reconstruction_error
    finite = all(bool(x.isfinite().all()) for x in found)
    return Outcome(seed, product, error(found, right), finite, 0.0 if off is None else float(off))


def study(seeds: Iterable[int] = range(CASES), choice: Backsolve = Backsolve()) -> list[Outcome]:  # noqa: B008
    """One outcome a case."""
    return [try_case(seed, choice) for seed in seeds]
