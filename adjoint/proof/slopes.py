"""Directions: the dot-product test, the Taylor remainder, and the gap between two adjoints.

All three look at a gradient as a whole, where `verify` looks at entries: a random direction u has a
part in every entry, so no wrong entry can hide.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...solvers.errors import SolverError
from .verify import BOUND_DIFFERENCES, Check, Quantity, five_points

SHARES = tuple(2.0**-k for k in range(4, 17, 2))  # of a direction, in the Taylor test
# A right gradient leaves a remainder O(h²), a wrong one O(h). In between are the kinks of a ReLU, which
# prove nothing; only an error that would matter is called one.
SLOPE_RIGHT, SLOPE_WRONG, WRONG = 1.7, 1.3, 1e-2


@dataclasses.dataclass(frozen=True, eq=False)
class Along:
    """A random direction u of one tensor (see `direction`), and ⟨∇, u⟩ by five-point differences."""

    u: Tensor
    slope: float


@dataclasses.dataclass(frozen=True)
class Taylor:
    """|L(x + hu) − L(x) − h⟨g, u⟩| at several h, and how fast it falls.

    slope: of log remainder over log h: 2 where g is the gradient, 1 where it is not; None where
    L is linear, its remainder is below rounding, or L is not finite at the moved points.  ok: None
    where nothing can be said (a kink on the way, an adjoint that is not the steps' derivative).
    """

    steps: tuple[float, ...]
    remainders: tuple[float, ...]
    slope: float | None
    ok: bool | None

    def sentence(self) -> str:
        """The result in words."""
        if self.slope is None:
            return f"Taylor remainder: {'below rounding, as of a linear map' if self.ok else 'not judged'}."
        verdict = {True: "the gradient is right", False: "the gradient is wrong", None: "not judged"}[self.ok]
        return f"Taylor remainder falls with slope {self.slope:.2f} (2: right, 1: wrong): {verdict}."


def direction(tensor: Tensor, seed: int) -> Tensor:
    """u in tensor's shape, dtype and device: each entry N(0, 1) times its own size.

    An entry near the edge of a domain (v of AdamODE) must not be moved by what is little for another.
    """
    generator = torch.Generator().manual_seed(seed + 7919)
    normal = torch.randn(tensor.shape, generator=generator, dtype=torch.float64, device="cpu").to(tensor)
    x = tensor.detach()
    typical = max(x.square().mean().sqrt().item(), 0.1) if x.numel() else 0.1
    return normal * x.abs().clamp_min(0.1 * typical)


def along(value: Callable[[], float], tensor: Tensor, seed: int) -> Along:
    """⟨∂value/∂tensor, u⟩ by five-point differences; the tensor is changed in place and put back."""
    u, middle = direction(tensor, seed), tensor.detach().clone()

    def moved(x: float) -> float:
        with torch.no_grad():
            tensor.copy_(middle + x * u)
        return value()

    try:
        return Along(u, five_points(moved, torch.finfo(tensor.dtype).eps ** 0.2))
    finally:
        with torch.no_grad():
            tensor.copy_(middle)


def compare_along(name: str, reference: str, found: Tensor | None, line: Along, bound: float | None) -> Check:
    """⟨found, u⟩ against the difference quotient; relative to their size, or what it is on average."""
    terms = torch.zeros_like(line.u) if found is None else found * line.u
    got, typical = terms.sum().item(), terms.norm().item()  # the terms may cancel
    scale = max(abs(line.slope), typical)
    gap = abs(got - line.slope)
    error = 0.0 if gap == 0 else gap / scale if scale > 0 else math.inf
    error = math.nan if math.isnan(got) or math.isnan(line.slope) else error
    return Check(name, reference, error, bound, (), got, line.slope)


def dot_product(quantity: Quantity, found: Tensor | None, value: Callable[[], float], seed: int) -> Check:
    """⟨Ju, w⟩ = ⟨u, Jᵀw⟩ for one block or parameter; value() is ⟨F, w⟩, so its slope along u is ⟨Ju, w⟩."""
    line = along(value, quantity.tensor, seed)
    return compare_along(quantity.name, "dot-product", found, line, BOUND_DIFFERENCES)


def taylor(
    value: Callable[[], float], quantities: Sequence[Quantity], gradient: Sequence[Tensor | None], seed: int
) -> Taylor:
    """The remainder along one direction of all quantities together."""
    tensors = [q.tensor for q in quantities]
    middles = [x.detach().clone() for x in tensors]
    moves = [direction(x, seed + i) for i, x in enumerate(tensors)]
    terms = [u * g for u, g in zip(moves, gradient, strict=True) if g is not None]
    slope = sum(part.sum().item() for part in terms)
    start, remainders = value(), []
    size = max(abs(start), abs(slope) * SHARES[0])
    try:
        for h in SHARES:
            with torch.no_grad():
                for x, middle, u in zip(tensors, middles, moves, strict=True):
                    x.copy_(middle + h * u)
            remainders.append(abs(value() - start - h * slope))
    except SolverError:  # the point moved to where the solve cannot go on
        return Taylor(SHARES[: len(remainders)], tuple(remainders), None, None)
    finally:
        with torch.no_grad():
            for x, middle in zip(tensors, middles, strict=True):
                x.copy_(middle)
    typical = math.sqrt(sum(part.square().sum().item() for part in terms))
    return _judged(remainders, size, max(typical, abs(slope)))


def _judged(remainders: list[float], size: float, typical: float) -> Taylor:
    if any(not math.isfinite(r) for r in remainders):
        return Taylor((), (), None, None)
    rounding = 1e3 * torch.finfo(torch.float64).eps * size
    points = [(math.log(h), math.log(r)) for h, r in zip(SHARES, remainders, strict=True) if r > rounding]
    if len(points) < 3:
        return Taylor(SHARES, tuple(remainders), None, not points or None)
    # The smallest steps: the largest may lie outside the range where the leading term rules.
    points = points[-4:]
    mean_x, mean_y = (sum(p[i] for p in points) / len(points) for i in (0, 1))
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    ok = True if slope > SLOPE_RIGHT else None
    if slope < SLOPE_WRONG and remainders[-1] > WRONG * SHARES[-1] * typical:
        ok = False
    return Taylor(SHARES, tuple(remainders), slope, ok)
