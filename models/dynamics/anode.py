"""The augmented neural ODE: NODE's dynamics on a state with room to move around itself."""

from __future__ import annotations

import torch
from torch import Tensor

from ...solvers.errors import ArgumentError, ArgumentTypeError
from .node import NeuralODE


class AugmentedNODE(NeuralODE):
    """h' = f(t, h) with h = [x, p extra channels]; the VJP is NODE's.

    Source: E. Dupont, A. Doucet, Y. W. Teh, Augmented neural ODEs, NeurIPS 2019, Sec. 4.
    """


def augment(h0: Tensor, p: int) -> Tensor:
    """h0 with p channels of zeros appended to dim 1.

    Raises ArgumentTypeError where p is no integer, ArgumentError where it is negative or h0 has no
    dim 1.
    """
    if isinstance(p, bool) or not isinstance(p, int):
        raise ArgumentTypeError(f"augment={p!r} must be a whole number of channels.")
    if p < 0:
        raise ArgumentError(f"augment={p!r} must not be negative.")
    if h0.ndim < 2:
        raise ArgumentError(f"h0 has shape {tuple(h0.shape)}: extra channels need a dim 1, [B, C, …].")
    zeros = h0.new_zeros((h0.shape[0], p, *h0.shape[2:]))
    return torch.cat((h0, zeros), dim=1)
