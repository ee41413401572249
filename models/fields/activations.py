"""Activations by name, with the derivative written in the activation's output."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...solvers.errors import ArgumentError, nearest

# Activations from which oneDNN's linear layer with tanh is faster: it costs 16 µs a call, leaves caches cold
# for what follows, and saves 2 ns of torch's 2.6 ns a tanh (f of a 64–64 network: 256 rows 200 µs against
# 240, 512 rows 330 against 290, 2048 rows 1190 against 640).
_FUSED_FROM = 32768


@dataclasses.dataclass(frozen=True)
class Activation:
    """y = value(x), in_place(x) over x itself; backward(ȳ, y) → x̄, one kernel that needs the output only."""

    name: str
    value: Callable[[Tensor], Tensor]
    in_place: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]

    def layer(self, x: Tensor, weight: Tensor, bias: Tensor, *, fused: bool) -> Tensor:
        """value(x Wᵀ + b). x: [R, in]; weight: [out, in]; bias: [out] or [R, out].

        fused: oneDNN may do it in one call where that is faster: no autograd follows, nothing traces it.
        """
        if fused and self.name == "tanh" and x.shape[0] * weight.shape[0] >= _FUSED_FROM and bias.ndim == 1:
            op = _linear_tanh()
            if op is not None and _plain(x, weight, bias):
                # With a strided weight it falls back to a loop, a hundred times slower.
                return op(x, weight.contiguous(), bias, "tanh", [], "")
        return self.in_place(torch.addmm(bias, x, weight.t()))


def _plain(*tensors: Tensor) -> bool:
    """float32 on the CPU, and products not shortened by autocast."""
    ours = all(x.dtype is torch.float32 and x.device.type == "cpu" for x in tensors)
    return ours and not torch.is_autocast_enabled("cpu") and bool(torch.backends.mkldnn.enabled)


@functools.cache
def _linear_tanh() -> Callable[..., Tensor] | None:
    """oneDNN's tanh(x Wᵀ + b), as accurate as torch's (1.5 units in the last place); None without it.

    The operator is inductor's and no public one: it is tried once, and compared.
    """
    x = torch.linspace(-2.0, 2.0, 8, dtype=torch.float32, device="cpu").view(4, 2)
    weight, bias = x[:3].contiguous(), x.flatten()[:3].contiguous()
    try:
        op = torch.ops.mkldnn._linear_pointwise.default
        found = op(x, weight, bias, "tanh", [], "")
    except (AttributeError, RuntimeError, TypeError):
        return None
    return op if torch.allclose(found, F.linear(x, weight, bias).tanh(), rtol=1e-6, atol=1e-6) else None


# Resolved once: a call through `torch.ops.aten` looks its overload up each time.
_TANH = torch.ops.aten.tanh_backward.default
_THRESHOLD = torch.ops.aten.threshold_backward.default
_SIGMOID = torch.ops.aten.sigmoid_backward.default


def _relu_backward(cotangent: Tensor, y: Tensor) -> Tensor:
    return _THRESHOLD(cotangent, y, 0)  # ȳ where y > 0; 0 at 0, as torch has it


_ACTIVATIONS = {
    activation.name: activation
    for activation in (
        Activation("tanh", torch.tanh, torch.tanh_, _TANH),  # ȳ(1 − y²)
        Activation("relu", torch.relu, torch.relu_, _relu_backward),
        Activation("sigmoid", torch.sigmoid, torch.sigmoid_, _SIGMOID),  # ȳ y(1 − y)
    )
}


def get_activation(name: str) -> Activation:
    """The activation of that name; an unknown one is an ArgumentError that offers the nearest."""
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise ArgumentError(f"activation={name!r} is not known: {nearest(name, _ACTIVATIONS)}")
    return _ACTIVATIONS[name]
