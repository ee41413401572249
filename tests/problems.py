"""Initial value problems that the engine is tested on: closed solutions, small networks, a hand-written
dynamics, functions that leave their domain, and a recorder of what the solver asks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from adamode import Backsolve, Direct, Discrete, Dynamics, Interpolating, Reversible

EVERY_GRADIENT = (
    Discrete(),
    Discrete(keep="state"),
    Discrete(checkpoints=2),
    Interpolating(),
    Backsolve(),
    Reversible(),
    Direct(),
)


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def rational(t: Tensor, y: Tensor) -> Tensor:
    """Nonlinear, non-autonomous, not stiff; its solution is `rational_solution`."""
    x, z, s = y
    return torch.stack((-2 * x * z, x * x - t * x * z, 2 * z * x * s * s))


def rational_solution(t: float) -> Tensor:
    square = 1 + t * t
    return f64(1 / square, t / square, square / (1 + square))


def top(t: Tensor, y: Tensor) -> Tensor:
    """A driven rigid body (after Euler): nonlinear, non-autonomous, its error constants not small, so
    that a fifth-order slope shows far above rounding."""
    x, z, w = y
    return torch.stack(
        (-2 * z * w * (1 + 0.5 * torch.sin(t)), 1.25 * x * w + 0.1 * torch.cos(3 * t), -0.5 * x * z)
    )


class Net(nn.Module):
    """f(t, y) = tanh(y W1 + b1) W2 · cos t + μ y, float64; y: [B, n]."""

    def __init__(self, n: int = 3, hidden: int = 5, seed: int = 0):
        super().__init__()
        make = torch.Generator().manual_seed(seed)
        draw = lambda *s: nn.Parameter(torch.randn(s, generator=make, dtype=torch.float64) / 2)  # noqa: E731
        self.w1, self.b1, self.w2, self.mu = draw(n, hidden), draw(hidden), draw(hidden, n), draw()

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(y @ self.w1 + self.b1) @ self.w2 * torch.cos(t) + self.mu * y


class Tree(nn.Module):
    """The same idea on a state {"a": [B, n], "b": [B]}."""

    def __init__(self, n: int = 3):
        super().__init__()
        self.net = Net(n)

    def forward(self, t: Tensor, y: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"a": self.net(t, y["a"]) + y["b"][:, None], "b": torch.sin(y["b"]) - y["a"].sum(1)}


class Swing(nn.Module, Dynamics):
    """h' = m cos t,  m' = tanh(h W) − γ m, with its VJP by hand; z: [2, B, n]."""

    def __init__(self, n: int = 3, seed: int = 0):
        super().__init__()
        make = torch.Generator().manual_seed(seed)
        self.w = nn.Parameter(torch.randn(n, n, generator=make, dtype=torch.float64))
        self.gamma = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    def theta(self) -> tuple[Tensor, ...]:
        return self.w, self.gamma

    def forward(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        h, m = z
        p = torch.tanh(h @ self.w)
        return torch.stack((m * torch.cos(t), p - self.gamma * m)), (t, h, m, p)

    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        (t, _, _, p), (a_h, a_m) = saved, cotangent
        delta = (1 - p * p) * a_m  # ∂m'/∂(h W)
        return torch.stack((delta @ self.w.T, torch.cos(t) * a_h - self.gamma * a_m)), (delta, a_m)

    def parameter_gradients(
        self, saved: list[Any], deltas: list[Any], weights: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        # by stage [n], or by stage and sample [n, B]
        ones = [1.0] * len(saved) if weights is None else [c.reshape(-1, 1) for c in weights]
        w_bar = sum(h.T @ (c * d) for c, (_, h, _, _), (d, _) in zip(ones, saved, deltas, strict=True))
        g_bar = sum(-(c * a * m).sum() for c, (_, _, m, _), (_, a) in zip(ones, saved, deltas, strict=True))
        return w_bar, g_bar


class Recorder:
    """A func that writes down every time it is asked at, and passes on."""

    def __init__(self, func: Any):
        self.func, self.times = func, []

    def __call__(self, t: Tensor, y: Any) -> Any:
        self.times.append(float(t.detach()))
        return self.func(t, y)


def parabola(t: Tensor, y: Tensor) -> Tensor:
    """y' = −2√y: y = (1 − t)² from 1. A long first step puts a stage at y < 0, where √ is NaN."""
    return -2 * torch.sqrt(y)


def square(t: Tensor, y: Tensor) -> Tensor:
    """y' = y²: y = 1/(1/y0 − t), a pole at 1/y0."""
    return y * y


def quench(t: Tensor, y: Tensor, rate: float = 200.0) -> Tensor:
    """y' = −rate (y − cos t): contracts by e^{−rate t}, so backwards it loses everything."""
    return -rate * (y - torch.cos(t))


def relative(found: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest entry expected."""
    assert found.shape == expected.shape
    found, expected = found.detach(), expected.detach()
    return float((found - expected).abs().max() / max(float(expected.abs().max()), 1e-300))


def worst(found: Any, expected: Any) -> float:
    """The largest `relative` of several gradients; NaN if one is."""
    values = [relative(a, b) for a, b in zip(found, expected, strict=True)]
    return math.nan if any(math.isnan(v) for v in values) else max(values)


class Opaque(torch.autograd.Function):
    """y² without a rule for forward mode."""

    @staticmethod
    def forward(ctx, y):
        ctx.save_for_backward(y)
        return y * y

    @staticmethod
    def backward(ctx, g):
        return 2 * ctx.saved_tensors[0] * g
