"""The sum of fields, and its VJP."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ...solvers.errors import ArgumentError
from .field import Field, Gradients, copied


class Total(Field):
    """f(t, h) = f₁(t, h) + … + f_n(t, h): such as a linear field and a network for the rest.

    parts: f₁ … f_n.
    """

    parts: Any  # an nn.ModuleList of fields

    def __init__(self, *parts: Field):
        super().__init__()
        sizes = {(part.channels_in, part.channels_out) for part in parts}
        if len(sizes) != 1:
            raise ArgumentError(
                f"Total: give at least one field, all of one size; these have {sorted(sizes)}."
            )
        ((self.channels_in, self.channels_out),) = sizes
        self.channels_last = any(part.channels_last for part in parts)
        self.parts = nn.ModuleList(parts)

    def for_solve(self) -> Any:
        """With its parts as in the solve."""
        return copied(self, parts=[part.for_solve() for part in self.parts])

    def reference(self, t: Tensor, h: Tensor) -> Tensor:
        """The sum of the parts' references."""
        return sum((part.reference(t, h) for part in self.parts[1:]), self.parts[0].reference(t, h))

    def forward(self, t: Tensor, h: Tensor) -> tuple[Tensor, Any]:
        """(f, each part's saved)."""
        values, saved = zip(*(part.forward(t, h) for part in self.parts), strict=True)
        return sum(values[1:], values[0]), saved

    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """h̄ = Σ h̄ᵢ; deltas: each part's."""
        pairs = [part.vjp(own, cotangent) for part, own in zip(self.parts, saved, strict=True)]
        bars, deltas = zip(*pairs, strict=True)
        return sum(bars[1:], bars[0]), deltas

    def parameter_gradients(self, saved: list[Any], deltas: list[Any], weights: Tensor | None) -> Gradients:
        """Each part's, in turn."""
        found: list[Tensor | None] = []
        for i, part in enumerate(self.parts):
            found += part.parameter_gradients([s[i] for s in saved], [d[i] for d in deltas], weights)
        return tuple(found)
