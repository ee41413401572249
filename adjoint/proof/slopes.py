"""Derivatives by differences: of single entries, and along random directions, with the Taylor remainder.

A random direction u has a part in every entry, so no wrong entry can hide.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ...solvers.errors import SolverError
from .comparisons import Check, Entries, Quantity, relative

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

    steps, remainders: each h, and the remainder there.
    slope: of log remainder over log h: 2 where g is the gradient, 1 where it is not; None where
        L is linear, its remainder is below rounding, or L is not finite at the moved points.
    ok: None where nothing can be said (a kink on the way, an adjoint that is not the steps' derivative).
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


def normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """N(0, 1) in the shape, dtype and on the device of ``like``; drawn on the CPU in float64."""
    return torch.randn(like.shape, generator=generator, dtype=torch.float64, device="cpu").to(like)


def direction(tensor: Tensor, seed: int) -> Tensor:
    """u in tensor's shape, dtype and device: each entry N(0, 1) times its own size.

    An entry near the edge of a domain (v of AdamODE) must not be moved by what is little for another.
    """
    drawn = normal(tensor, torch.Generator().manual_seed(seed + 7919))
    x = tensor.detach()
    typical = max(x.square().mean().sqrt().item(), 0.1) if x.numel() else 0.1
    return drawn * x.abs().clamp_min(0.1 * typical)


@contextlib.contextmanager
def moving(
    value: Callable[[], float], tensors: Sequence[Tensor], moves: Sequence[Tensor]
) -> Iterator[Callable[[float], float]]:
    """The function h ↦ value() with each tensor moved by h times its move; puts all back at the end."""
    middles = [x.detach().clone() for x in tensors]

    @torch.no_grad()
    def place(h: float | None) -> None:
        for x, middle, u in zip(tensors, middles, moves, strict=True):
            x.copy_(middle if h is None else middle + h * u)

    def moved(h: float) -> float:
        place(h)
        return value()

    try:
        yield moved
    finally:
        place(None)


def five_points(value: Callable[[float], float], step: float) -> float:
    """The derivative of value at 0, by differences of fourth order.

    Where the narrow and the wide quotient differ by more than curvature explains, there is a kink between
    the points (a ReLU): then a step 30 times as small is tried, twice.
    """
    best, least = math.nan, math.inf
    for h in (step, step / 30, step / 900):
        at = {k: value(k * h) for k in (-2, -1, 1, 2)}
        narrow, wide = (at[1] - at[-1]) / (2 * h), (at[2] - at[-2]) / (4 * h)
        gap = abs(narrow - wide)
        if not gap >= least:  # the first where it is NaN
            best, least = narrow + (narrow - wide) / 3, gap
        if gap <= 3e-5 * abs(narrow):
            break
    return best


def slope_along(value: Callable[[], float], tensor: Tensor, u: Tensor) -> float:
    """⟨∂value/∂tensor, u⟩ by five-point differences.

    With a step of ε^(1/5) rounding and truncation are both about 1e-12.
    """
    with moving(value, (tensor,), (u,)) as moved:
        return five_points(moved, torch.finfo(tensor.dtype).eps ** 0.2)


def differences(value: Callable[[], float], tensor: Tensor, largest: int, seed: int, entries: int) -> Entries:
    """∂value/∂tensor at entry ``largest`` and others drawn at random, ``entries`` in all."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(tensor.numel(), generator=generator, dtype=torch.int64, device="cpu")
    drawn = shuffled[:entries].tolist()
    flat, found = tensor.detach().flatten(), {}
    for i in [largest, *(i for i in drawn if i != largest)][:entries]:
        move = torch.zeros_like(flat)
        move[i] = size = max(abs(flat[i].item()), 0.1)
        found[i] = slope_along(value, tensor, move.view(tensor.shape)) / size
    return found


def along(value: Callable[[], float], tensor: Tensor, seed: int) -> Along:
    """⟨∂value/∂tensor, u⟩ of a random direction u."""
    u = direction(tensor, seed)
    return Along(u, slope_along(value, tensor, u))


def compare_along(name: str, reference: str, found: Tensor, line: Along, bound: float | None) -> Check:
    """⟨found, u⟩ against the difference quotient, relative to their size.

    Where the terms of the product cancel, their norm is its size.
    """
    terms = found * line.u
    got, typical = terms.sum().item(), terms.norm().item()
    error = relative(abs(got - line.slope), max(abs(line.slope), typical))
    error = math.nan if math.isnan(got) or math.isnan(line.slope) else error
    return Check(name, reference, error, bound, (), got, line.slope)


def taylor(
    value: Callable[[], float], quantities: Sequence[Quantity], gradient: Sequence[Tensor], seed: int
) -> Taylor:
    """The remainder along one direction of all quantities together."""
    tensors = [q.tensor for q in quantities]
    moves = [direction(x, seed + i) for i, x in enumerate(tensors)]
    terms = [u * g for u, g in zip(moves, gradient, strict=True)]
    slope = sum(part.sum().item() for part in terms)
    start, remainders = value(), []
    try:
        with moving(value, tensors, moves) as moved:
            for h in SHARES:
                remainders.append(abs(moved(h) - start - h * slope))
    except SolverError:  # the point moved to where the solve cannot go on
        return Taylor(SHARES[: len(remainders)], tuple(remainders), None, None)
    typical = math.sqrt(sum(part.square().sum().item() for part in terms))
    return _judged(remainders, max(abs(start), abs(slope) * SHARES[0]), max(typical, abs(slope)))


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
