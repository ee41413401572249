"""The neural ODE: its dynamics with their VJP, and its block."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from typing_extensions import Unpack

from ..block import Block, Network, SolverOptions
from ..fields.trace import value_and_trace
from .field_dynamics import FieldDynamics, Slopes


class NeuralODE(FieldDynamics):
    """h' = f(t, h).  State z = [h], [1, B, *S]. f: the field.

    ANODE is the same dynamics on h padded with extra channels: see `models.dynamics.anode`.
    Source: R. T. Q. Chen, Y. Rubanova, J. Bettencourt, D. Duvenaud, NeurIPS 2018, Eq. (2).
    """

    blocks = ("h",)

    def forward(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """(dz, saved) by the equation above."""
        f, acts = self.field.forward(t, z[0])
        return f[None], acts

    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """(z̄, the field's deltas), with one VJP of the field: ∂h'/∂h = f_h."""
        h_bar, deltas = self.field.vjp(saved, cotangent[0])
        return h_bar[None], deltas

    def _divergence(self, t: Tensor, z: Tensor) -> Tensor:
        return value_and_trace(self._plain_field, t, z[0])[1]

    def _slopes(self, t: Tensor, z: Tensor, f: Tensor, slopes: Tensor) -> Slopes:
        return ((slopes,),)


class NODE(Block):
    """A neural ODE: h' = f(t, h), h0 ↦ h(T).

    field: f(t, h) → dh, any module or function, h [B, C, …], t 0-d ([B, 1, …, 1] per sample).
    learnable: accepted as by the other blocks; NODE has no number to freeze.
    t: start and end.
    rtol, atol, method, stepping, gradient, compile, sync_every: as in `adamode.solve` (`models.explain` says
        where compile=True does nothing; a block then warns and goes on without).
    Raises ArgumentError or ArgumentTypeError for bad settings, SolverError where a solve cannot go on.
    Source: R. T. Q. Chen, Y. Rubanova, J. Bettencourt, D. Duvenaud, NeurIPS 2018, Eq. 2.
    """

    def __init__(self, field: Network, *, learnable: bool = True, **solver: Unpack[SolverOptions]):
        super().__init__(NeuralODE(field), solver)

    def forward(self, h0: Tensor) -> Tensor:
        """h(T), [B, C, …], like h0."""
        return self.end(h0)

    def trajectory(self, h0: Tensor, t: Tensor) -> dict[str, Tensor]:
        """{"h"} at the times t, [T], as [T, B, C, …]; the start is at t[0]."""
        return self.path(h0, t)
