"""The Nesterov neural ODE: momentum under the damping 3/t."""

from __future__ import annotations

from typing import Any

from typing_extensions import Unpack

from ..block import Network, SolverOptions
from .momentumnode import SPAN, Momentum, MomentumODE


class NesterovODE(MomentumODE):
    """h' = −m,  m' = f(t, h) − (3/τ) m with τ = t + shift > 0: `MomentumODE` with the damping "nesterov".

    field: f(t, h) → dh, any module or function.
    shift: of the time in 3/τ.

    State z = [h, m], [2, B, *S]; f: the field. No number is learnt beside the field's.
    Source: H. H. N. Nguyen, T. M. Nguyen, H. K. Vo, S. J. Osher, T. N. Vo, NeurIPS 2022, the limit
    h'' + (3/t) h' + ∇F = 0 of W. Su, S. Boyd, E. J. Candès, JMLR 17(153), 2016, Eq. 3 (f = ∇F).
    """

    def __init__(self, field: Any, *, shift: float = 0.0):
        super().__init__(field, damping="nesterov", shift=shift)


class NesterovNODE(Momentum):
    """A Nesterov neural ODE: h' = −m, m' = f(t, h) − (3/τ) m with τ = t + shift, (h0, m0) ↦ h(T).

    field: f(t, h) → dh as in `NODE`.
    shift: of the time in 3/τ, so that an interval may start at 0.
    learnable: accepted as by the other blocks; NesterovNODE has no number to freeze.
    t: start and end, both above −shift; the default (1, 2) is the authors'.
    The rest is as in `NODE`.
    The authors' variables are those of `GNesterovNODE(activation="identity", xi=None)`; docs/models.md has
    the relation.
    Raises ArgumentError or ArgumentTypeError for bad settings, and for a time where 3/τ has no value or
    drives instead of damping; SolverError where a solve cannot go on.
    Source: H. H. N. Nguyen, T. M. Nguyen, H. K. Vo, S. J. Osher, T. N. Vo, Improving neural ordinary
    differential equations with Nesterov's accelerated gradient method, NeurIPS 2022.
    """

    interval = SPAN

    def __init__(
        self, field: Network, *, shift: float = 0.0, learnable: bool = True, **solver: Unpack[SolverOptions]
    ):
        super().__init__(NesterovODE(field, shift=shift), solver)
