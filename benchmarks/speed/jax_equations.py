"""The cases' equations in JAX, written so that XLA does well: time folded into biases, images with their
channels last, the 3×3 convolution as one matrix product (XLA:CPU convolves badly inside a loop)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

Array = Any
Theta = Sequence[Array]


def mlp(theta: Theta, t: Array, h: Array, *, time: bool) -> Array:
    """h: [B, D]; weights as torch has them, [out, in]."""
    x, layers = h, len(theta) // 2
    for i in range(layers):
        weight, bias = theta[2 * i], theta[2 * i + 1]
        if i == 0 and time:
            weight, bias = weight[:, :-1], bias + t * weight[:, -1]
        x = x @ weight.T + bias
        x = jnp.tanh(x) if i < layers - 1 else x
    return x


def conv(theta: Theta, t: Array, h: Array, *, activation: str) -> Array:
    """h: [B, H, W, C]; kernels as torch has them, [out, in + 1, k, k], the last input channel being time."""
    sigma = {"relu": jax.nn.relu, "tanh": jnp.tanh}[activation]
    w1, b1, w2, b2, w3, b3 = theta
    x = sigma(h @ w1[:, :-1, 0, 0].T + b1 + t * w1[:, -1, 0, 0])
    x = sigma(_three_by_three(w2, b2, t, x))
    return x @ w3[:, :-1, 0, 0].T + b3 + t * w3[:, -1, 0, 0]


def _three_by_three(weight: Array, bias: Array, t: Array, x: Array) -> Array:
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifts = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    columns = jnp.concatenate(shifts, axis=-1)  # [B, H, W, 9·C]
    kernel = weight[:, :-1].transpose(2, 3, 1, 0).reshape(-1, weight.shape[0])
    inside = jnp.pad(jnp.ones((height, width), x.dtype), 1)  # where the time channel is not padding
    seen = jnp.stack([inside[i : i + height, j : j + width] for i in range(3) for j in range(3)], -1)
    time = seen @ weight[:, -1].transpose(1, 2, 0).reshape(9, -1)
    return columns @ kernel + bias + t * time


def van_der_pol(theta: Theta, t: Array, state: Array) -> Array:
    """[…, 3]: y, y', μ."""
    y, v, mu = state[..., 0], state[..., 1], state[..., 2]
    return jnp.stack((v, mu * (1 - y * y) * v - y, jnp.zeros_like(mu)), -1)


def equations(spec: dict[str, Any]) -> Callable[[Theta, Array, Array], Array]:
    """F(θ, t, z) for z [K, B, …] (images [K, B, H, W, C]), or [B, 3] for van der Pol."""
    if spec["equations"] == "vdp":
        return van_der_pol

    def field(theta: Theta, t: Array, h: Array) -> Array:
        if spec["field"] == "mlp":
            return mlp(theta, t, h, time=spec["time"])
        return conv(theta, t, h, activation=spec["activation"])

    def node(theta: Theta, t: Array, z: Array) -> Array:
        return field(theta, t, z[0])[None]

    def adamnode(theta: Theta, t: Array, z: Array) -> Array:
        a, b = jax.nn.sigmoid(theta[0]), jax.nn.sigmoid(theta[1])
        h, m, v = z
        f = field(theta[2:], t, h)
        return jnp.stack((-m * jax.lax.rsqrt(v + spec["eps"]), -a * (f + m), b * (f * f - v)))

    return node if spec["equations"] == "node" else adamnode
