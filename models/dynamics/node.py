"""The neural ODE itself, and its augmented form, with their VJP."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ...adjoint.dynamics.protocol import Dynamics
from ..fields.field import as_field


class NeuralODE(nn.Module, Dynamics):
    """h' = f(t, h).  State z = [h], [1, B, *S]. f: the field.

    ANODE is the same dynamics on h padded with extra channels: see `models.dynamics.anode`.
    Source: R. T. Q. Chen, Y. Rubanova, J. Bettencourt, D. Duvenaud, NeurIPS 2018, Eq. (2).
    """

    blocks: tuple[str, ...] = ("h",)

    def __init__(self, field: Any):
        super().__init__()
        self.field = as_field(field)

    def theta(self) -> tuple[Tensor, ...]:
        """The field's parameters."""
        return tuple(self.field.theta())

    @property
    def channels_last(self) -> bool:
        """Whether the field is faster on blocks [B, C, H, W] in channels-last memory."""
        return getattr(self.field, "channels_last", False)

    def forward(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """(dz, saved) by the equation above."""
        f, acts = self.field.forward(t, z[0])
        return f[None], acts

    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """(z̄, the field's deltas), with one VJP of the field: ∂h'/∂h = f_h."""
        h_bar, deltas = self.field.vjp(saved, cotangent[0])
        return h_bar[None], deltas

    def parameter_gradients(
        self, saved: list[Any], deltas: list[Any], weights: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """The field's."""
        return tuple(self.field.parameter_gradients(saved, deltas, weights))
