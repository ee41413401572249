"""Comparisons of a gradient with its references, as data.

Each result is one block or parameter against one reference, with the entry that differs most.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

# Relative to the largest entry, float64. Exact derivatives agree to rounding, 1e-13 as a rule.
BOUND_EXACT = 1e-9
# Central differences of fourth order: 1e-12 to 1e-10 as a rule.
BOUND_DIFFERENCES = 1e-7


@dataclasses.dataclass(frozen=True)
class Check:
    """One quantity against one reference.

    quantity: "a_h", … or a parameter's name.
    reference: what it was compared with.
    relative_error: the largest difference over the reference's largest entry.
    bound: of the relative error; None where it is reported and not judged.
    index, found, expected: the entry of the largest difference, and both numbers there.
    """

    quantity: str
    reference: str
    relative_error: float
    bound: float | None
    index: tuple[int, ...]
    found: float
    expected: float

    @property
    def ok(self) -> bool | None:
        """Whether the error is within the bound (NaN is not); None where there is none."""
        return None if self.bound is None else self.relative_error <= self.bound


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A tensor whose gradient is checked, under the name of its adjoint."""

    name: str
    tensor: Tensor


# Some entries of a gradient, by flat index.
Entries = dict[int, float]


def compare(name: str, reference: str, found: Tensor, expected: Tensor, bound: float | None) -> Check:
    """The entry that differs most.

    found, expected: the gradient and its reference, of one shape.
    """
    difference = (found - expected).abs().flatten()
    worst = int(difference.argmax())  # NaN counts as the largest
    numbers = found.flatten()[worst].item(), expected.flatten()[worst].item()
    error = relative(difference[worst].item(), expected.abs().max().item())
    return Check(name, reference, error, bound, _index(worst, found.shape), *numbers)


def compare_entries(name: str, found: Tensor, expected: Entries, bound: float | None) -> Check:
    """The same for finite differences, known at some entries only."""
    places = torch.tensor(list(expected), dtype=torch.int64, device=found.device)
    known = torch.tensor(list(expected.values()), dtype=found.dtype, device=found.device)
    check = compare(name, "finite-differences", found.flatten()[places], known, bound)
    place = int(places[check.index[0]])
    return dataclasses.replace(check, index=_index(place, found.shape))


def _index(flat: int, shape: Sequence[int]) -> tuple[int, ...]:
    at = torch.unravel_index(torch.tensor(flat, dtype=torch.int64, device="cpu"), tuple(shape))
    return tuple(int(i) for i in at)


def relative(difference: float, scale: float) -> float:
    """The difference over the scale: 0 where there is none, ∞ where the scale is 0."""
    if difference == 0:
        return 0.0
    return difference / scale if scale > 0 else math.inf
