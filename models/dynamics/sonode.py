"""The second-order neural ODE and its hand-derived VJP."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from ..block import Block, Network, SolverOptions
from ..fields.trace import value_and_trace
from .field_dynamics import FieldDynamics, Slopes


class SecondOrderODE(FieldDynamics):
    """h' = v,  v' = f(t, [h, v]).

    State z = [h, v], [2, B, C, …]; f: a field on [B, 2C, …] (h and v joined in dim 1) that returns C
    channels.
    Source: A. Norcliffe, C. Bodnar, B. Day, N. Simidjievski, P. Liò, NeurIPS 2020, Eq. (4).
    """

    blocks = ("h", "v")
    joined = 2

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

    def _divergence(self, t: Tensor, z: Tensor) -> Tensor:
        h, v = z.unbind(0)  # ∂h'/∂h = 0, ∂v'/∂v = f_v
        return value_and_trace(lambda t, v: self._plain_field(t, torch.cat((h, v), dim=1)), t, v)[1]

    def _slopes(self, t: Tensor, z: Tensor, f: Tensor, slopes: Tensor) -> Slopes:
        return (0.0, 1.0), (slopes,)


class SONODE(Block):
    """A second-order neural ODE: h' = v, v' = f(t, [h, v]), (h0, v0) ↦ h(T).

    field: f(t, x) → dv with x = torch.cat([h, v], dim=1), [B, 2C, …], and dv [B, C, …].
    learnable, solver: as in `NODE`.
    Raises ArgumentError or ArgumentTypeError for bad settings, SolverError where a solve cannot go on.
    Source: A. Norcliffe, C. Bodnar, B. Day, N. Simidjievski, P. Liò, NeurIPS 2020, Eq. 4.
    """

    def __init__(self, field: Network, *, learnable: bool = True, **solver: Unpack[SolverOptions]):
        super().__init__(SecondOrderODE(field), solver)

    def forward(self, h0: Tensor, v0: Tensor | None = None) -> Tensor:
        """h(T), [B, C, …], like h0; the velocity v0 is zero where not given."""
        return self.end(h0, v=v0)

    def trajectory(self, h0: Tensor, t: Tensor, v0: Tensor | None = None) -> dict[str, Tensor]:
        """{"h", "v"} at the times t, [T], each [T, B, C, …]; the start is at t[0]."""
        return self.path(h0, t, v=v0)
