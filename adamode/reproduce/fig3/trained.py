"""Fig. 3 trained: the six models fitted to the rows of the figure, then the norms of their states."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from ...adjoint.gradients import Direct
from ...adjoint.solve import solve
from ...models.fields.driven import Driven, Signal
from .growth import Case, Draws, EachLinear, Growth, dynamics_of, input_signal, norms, starts

_OWN = ("raw_gamma", "raw_alpha", "raw_beta")  # learnt; GHBNODE's ξ is not, as released


@dataclasses.dataclass(frozen=True)
class Training:
    """How the trained models are trained.

    steps: of Adam.  lr: its step size, constant.  clip: a model's gradient of a larger norm is scaled down
    to it.
    """

    steps: int
    lr: float
    clip: float


@dataclasses.dataclass(frozen=True)
class Fitted:
    """N models after training.

    before, after: [N], the root mean squared error in the recording's units.  growth: of their states.
    """

    before: Tensor
    after: Tensor
    growth: Growth


class Nets(nn.Module):
    """N models of one kind side by side, each with parameters of its own: field, start, γ or α and β.

    model: its name.  draws: what their parameters start from.  signal: their input.
    """

    def __init__(self, model: str, draws: Draws, signal: Signal):
        super().__init__()
        self.model, self.count = model, len(draws.weight)
        field = EachLinear(nn.Parameter(draws.weight.clone()), nn.Parameter(draws.bias.clone()))
        self.w = None if draws.w is None else nn.Parameter(draws.w.clone())
        self.dynamics = dynamics_of(Case(model), Driven(field).with_signal(signal)).double()
        for name in _OWN:
            if hasattr(self.dynamics, name):
                one = getattr(self.dynamics, name).detach()
                setattr(self.dynamics, name, nn.Parameter(one.expand(self.count, 1).clone()))

    def start(self, y0: Tensor) -> Tensor:
        """[K, N, C]. y0: 0-d, the first output."""
        return starts(self.model, self.w, y0, self.count)

    def outputs(self, y0: Tensor, rows: int) -> Tensor:
        """h's first entry at t = 1 … rows − 1, [N, rows − 1]: one step of dopri5 a row, no error control.

        So steps are the same for all, and no model's training depends on another's.
        """
        times = torch.arange(rows, dtype=torch.float64)
        solution = solve(self.dynamics, self.start(y0), times, dt=1.0, gradient=Direct())
        return solution.y[1:, 0, :, 0].T

    def errors(self, y: Tensor) -> Tensor:
        """Mean squared errors of the outputs after the first, [N]. y: [T]."""
        return (self.outputs(y[0], len(y)) - y[1:]).square().mean(1)


def train(
    model: str, draws: Draws, u: Tensor, y: Tensor, how: Training, *, tol: float, max_steps: int
) -> Fitted:
    """Fits N models to y, [T], under the input u, [T]; then solves each with rtol = atol = tol.

    The loss is the mean squared error of the outputs at t = 1 … T − 1, from the first output.
    """
    signal = input_signal(u, "repaired")
    nets = Nets(model, draws, signal)
    parameters = [p for p in nets.parameters() if p.requires_grad and p.shape[:1] == (nets.count,)]
    adam = torch.optim.Adam(parameters, lr=how.lr)
    with torch.no_grad():
        before = nets.errors(y).sqrt()
    for _ in range(how.steps):
        adam.zero_grad()
        nets.errors(y).sum().backward()
        clip_each(parameters, how.clip)
        adam.step()
    with torch.no_grad():
        after = nets.errors(y).sqrt()
        growth = norms(nets.dynamics, nets.start(y[0]), signal, tol=tol, max_steps=max_steps)
    return Fitted(before, after, growth)


def clip_each(parameters: list[Any], clip: float) -> None:
    """Scales the gradient of model i, entries i of all parameters, down to the norm ``clip``."""
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = torch.cat([g.flatten(1) for g in grads], dim=1).norm(dim=1)
    share = clip / norm.clamp_min(clip)
    for grad in grads:
        grad.mul_(share.reshape(-1, *(1,) * (grad.ndim - 1)))
