"""torchdiffeq in the place of our solver, where it is installed: the same model, weights and batch.

The paper's numbers were made with torchdiffeq 0.2.2: `odeint_adjoint` with dopri5, one tolerance for both
ways, its default norm, which has θ's adjoint in it. What the paper says of NFE, time and memory is what that
costs; so it is measured with it, and counted as its users count: calls of f.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from importlib import import_module, metadata
from typing import Any

import torch
from torch import Tensor, nn

from ...models.block import LastSolve
from ...solvers.stats import Stats
from ...solvers.status import Status
from ...train.step import EpochSums
from .training import Again
from .work import say

PACKAGE = "torchdiffeq"
# An AssertionError is how torchdiffeq says that its step has become too small; the other is ours.
CANNOT = (AssertionError, FloatingPointError)


@functools.cache
def installed() -> str:
    """The version of torchdiffeq that is here; "" where there is none."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(PACKAGE)
    return ""


def absent() -> str:
    """Why there is no number of torchdiffeq; "" where it is installed."""
    return "" if installed() else say("no torchdiffeq")


class _Counted(nn.Module):
    """F(t, z) of a dynamics for torchdiffeq, under its own autograd; calls: so far."""

    def __init__(self, dynamics: nn.Module) -> None:
        super().__init__()
        self.dynamics, self.calls = dynamics, 0

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """The derivative dz of the state z at the time t."""
        self.calls += 1
        dynamics: Any = self.dynamics
        dz: Tensor = dynamics.forward(t, z)[0]
        return dz


class TheirBlock(nn.Module):
    """A block's equation and start, solved by torchdiffeq's `odeint_adjoint` with the block's tolerances.

    ``last_stats``: calls of f in the last forward pass, and since then.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self._state, self._settings = block.state, block.settings
        self.func = _Counted(block.dynamics)
        self._nfe = 0
        self._odeint: Any = import_module(PACKAGE).odeint_adjoint

    def forward(self, h0: Tensor, **start: Tensor | None) -> Tensor:
        """h(T), like h0."""
        z0 = self._state(h0, **{name.removesuffix("0"): value for name, value in start.items()})
        t = torch.tensor(self._settings.t, dtype=h0.dtype, device=h0.device)
        self.func.calls = 0
        how = {"rtol": self._settings.rtol, "atol": self._settings.atol, "method": "dopri5"}
        end: Tensor = self._odeint(self.func, z0, t, **how)[-1, 0]
        self._nfe = self.func.calls
        return end

    @property
    def last_stats(self) -> LastSolve:
        """As a block's; nfe_backward is there once the backward pass has run."""
        return LastSolve(Stats(nfe=self._nfe, nfe_backward=self.func.calls - self._nfe), Status.SUCCESS)


@contextlib.contextmanager
def solved_by_torchdiffeq(model: Any) -> Iterator[None]:
    """Inside, the model's block is solved by torchdiffeq."""
    own = model.block
    model.block = TheirBlock(own)
    try:
        yield
    finally:
        model.block = own


def their_step(again: Again, x: Tensor, y: Tensor) -> EpochSums:
    """A training step but for the optimiser's, forwards and backwards, by torchdiffeq.

    Raises: AssertionError where its step became too small; FloatingPointError where a gradient is not
    finite, of which torchdiffeq itself says nothing.
    """
    with solved_by_torchdiffeq(again.model):
        sums = again.step(x, y)
    if not all(p.grad is None or bool(p.grad.isfinite().all()) for p in again.model.parameters()):
        raise FloatingPointError(say("nan gradient"))
    return sums
