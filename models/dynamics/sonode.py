"""The second-order neural ODE and its hand-derived VJP."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...adjoint.dynamics.protocol import Dynamics
from ..fields.field import as_field


class SecondOrderODE(nn.Module, Dynamics):
    """h' = v,  v' = f(t, [h, v]).

    State z = [h, v], [2, B, C, …]; f: a field on [B, 2C, …] (h and v joined in dim 1) that returns C
    channels.
    Source: A. Norcliffe, C. Bodnar, B. Day, N. Simidjievski, P. Liò, NeurIPS 2020, Eq. (4).
    """

    blocks = ("h", "v")
    joined = 2  # blocks that the field sees, side by side in dim 1

    def __init__(self, field: Any):
        super().__init__()
        self.field = as_field(field, joined=self.joined)

    def theta(self) -> tuple[Tensor, ...]:
        """The field's parameters."""
        return tuple(self.field.theta())

    @property
    def channels_last(self) -> bool:
        """Whether the field is faster on blocks [B, C, H, W] in channels-last memory."""
        return getattr(self.field, "channels_last", False)

    def forward(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """(dz, saved) by the equations above."""
        h, v = z.unbind(0)
        f, acts = self.field.forward(t, torch.cat((h, v), dim=1))
        return torch.stack((v, f)), acts

    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """(z̄, the field's deltas), with one VJP of the field."""
        a_h, a_v = cotangent.unbind(0)
        both, deltas = self.field.vjp(saved, a_v)
        h_bar, from_v = both.split(a_h.shape[1], dim=1)  # ∂v'/∂h = f_h
        v_bar = a_h + from_v  # ∂h'/∂v = 1, ∂v'/∂v = f_v
        return torch.stack((h_bar, v_bar)), deltas

    def parameter_gradients(
        self, saved: list[Any], deltas: list[Any], weights: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """The field's."""
        return tuple(self.field.parameter_gradients(saved, deltas, weights))
