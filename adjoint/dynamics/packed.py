"""A func on a pytree with its VJP by hand, as the engine wants it: on one tensor."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...solvers.step.field import Layout
from .protocol import Dynamics, LeafDynamics


class PackedDynamics(Dynamics):
    """A `LeafDynamics` on the packed state."""

    def __init__(self, inner: LeafDynamics, layout: Layout):
        self.inner, self.layout = inner, layout

    def theta(self) -> tuple[Tensor, ...]:
        """The inner one's."""
        return self.inner.theta()

    def forward(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """The inner one's, dy packed."""
        dy, saved = self.inner.forward(self.layout.time(t), self.layout.leaves(z))
        return self.layout.joined(dy), saved

    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """The inner one's, the cotangents packed."""
        bars, deltas = self.inner.vjp(saved, self.layout.leaves(cotangent))
        return self.layout.joined(bars), deltas

    def parameter_gradients(
        self, saved: list[Any], deltas: list[Any], weights: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """The inner one's."""
        return self.inner.parameter_gradients(saved, deltas, weights)
