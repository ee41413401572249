"""σ, by which the generalised momentum models bound a speed or a field, in three kinds, each with its VJP.

    tanh       σ' = 1 − σ²
    hardtanh   clipped at ±5; σ' = 1 inside, 0 at ±5 and beyond, as torch has it
    identity   no bound

All are odd, σ(−x) = −σ(x), and σ' is known from σ alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from torch import Tensor

from ..solvers.errors import check_choice
from .fields.field import get_activation
from .known import SATURATIONS as SATURATIONS
from .known import SaturationName as SaturationName

BOUND = 5.0  # of hardtanh, as the heavy ball authors' code has it


@dataclasses.dataclass(frozen=True)
class Saturation:
    """One kind: value(x) → s = σ(x), and back(a, s) → a ⊙ σ'(x), both new tensors. bounded: whether σ is."""

    name: SaturationName
    bounded: bool
    value: Callable[[Tensor], Tensor]
    back: Callable[[Tensor, Tensor], Tensor]


def _hardtanh(x: Tensor) -> Tensor:
    return x.clamp(-BOUND, BOUND)


def _hardtanh_back(a: Tensor, s: Tensor) -> Tensor:
    return a * (s.abs() < BOUND)


_tanh = get_activation("tanh")
_KINDS: dict[str, Saturation] = {
    kind.name: kind
    for kind in (
        Saturation("identity", False, lambda x: x.clone(), lambda a, s: a.clone()),
        Saturation("tanh", True, lambda x: x.tanh(), _tanh.backward),
        Saturation("hardtanh", True, _hardtanh, _hardtanh_back),
    )
}


def get_saturation(name: str, known: tuple[str, ...] = SATURATIONS) -> Saturation:
    """The kind of that name; ArgumentError, with the nearest of those known, for another."""
    check_choice("activation", name, known)
    return _KINDS[name]
