"""Reference solutions and gradients from scipy (DOP853, tolerances 1e-13): nothing here uses the engine."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

TOL = 1e-13


def _integrate(
    f: Callable[[float, np.ndarray], np.ndarray], span: Sequence[float], y: np.ndarray
) -> np.ndarray:
    found = solve_ivp(f, span, y, method="DOP853", rtol=TOL, atol=TOL)
    assert found.success
    return found.y[:, -1]


def reference_solution(func: Callable[[Tensor, Tensor], Tensor], y0: Tensor, t: Sequence[float]) -> Tensor:
    """[T, *y0.shape] in float64."""
    shape = y0.shape

    def f(time: float, y: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            now = torch.tensor(time, dtype=torch.float64)
            return func(now, torch.from_numpy(y).view(shape)).reshape(-1).numpy()

    values = [y0.detach().double().reshape(-1).numpy()]
    for a, b in itertools.pairwise(t):
        values.append(_integrate(f, (a, b), values[-1]))
    return torch.from_numpy(np.stack(values)).view(len(t), *shape)


def reference_gradient(
    func: Callable[[Tensor, Tensor], Tensor],
    params: Sequence[Tensor],
    y0: Tensor,
    t: Sequence[float],
    g: Tensor,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """(dL/dy0, dL/dt, dL/dparams) for the cotangents g [T, *y0.shape], by the continuous adjoint.

    scipy solves [y, a, θ̄] from each output back to the one before; the Jacobian products are autograd's.
    """
    values = reference_solution(func, y0, t)
    shape, n = y0.shape, y0.numel()

    def products(time: float, y: Tensor, a: Tensor) -> tuple[Any, ...]:
        y = y.detach().requires_grad_()
        with torch.enable_grad():
            dy = func(torch.tensor(time, dtype=torch.float64), y)
        found = torch.autograd.grad(dy, (y, *params), a, allow_unused=True)
        return dy.detach(), *(
            torch.zeros_like(x) if d is None else d for d, x in zip(found, (y, *params), strict=True)
        )

    def f(time: float, state: np.ndarray) -> np.ndarray:
        y, a = torch.from_numpy(state[: 2 * n]).view(2, *shape)
        dy, a_bar, *theta_bar = products(time, y, a)
        return torch.cat([dy.reshape(-1), *(-x.reshape(-1) for x in (a_bar, *theta_bar))]).numpy()

    a, theta = g[-1].clone(), np.zeros(sum(p.numel() for p in params))
    dt = [(g[i] * products(time, values[i], a)[0]).sum() for i, time in enumerate(t)]
    for i in range(len(t) - 1, 0, -1):
        start = np.concatenate([values[i].reshape(-1).numpy(), a.reshape(-1).numpy(), theta])
        end = _integrate(f, (t[i], t[i - 1]), start)
        a, theta = torch.from_numpy(end[n : 2 * n].copy()).view(shape), end[2 * n :]
        if i == 1:
            dt[0] = -(a * products(t[0], values[0], a)[0]).sum()
        a = a + g[i - 1]
    sizes = np.cumsum([p.numel() for p in params])[:-1]
    theta_bar = [
        torch.from_numpy(x.copy()).view(p.shape) for x, p in zip(np.split(theta, sizes), params, strict=True)
    ]
    return a, torch.stack(dt), theta_bar
