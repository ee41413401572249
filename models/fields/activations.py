"""Activations by name, with the derivative written in the activation's output."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from ...solvers.errors import ArgumentError, nearest


@dataclasses.dataclass(frozen=True)
class Activation:
    """y = value(x); backward(ȳ, y) → x̄, one fused kernel that needs the output only."""

    name: str
    value: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]


def _tanh_backward(cotangent: Tensor, y: Tensor) -> Tensor:
    return torch.ops.aten.tanh_backward(cotangent, y)  # ȳ(1 − y²)


def _relu_backward(cotangent: Tensor, y: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward(cotangent, y, 0)  # ȳ where y > 0; 0 at 0, as torch has it


def _sigmoid_backward(cotangent: Tensor, y: Tensor) -> Tensor:
    return torch.ops.aten.sigmoid_backward(cotangent, y)  # ȳ y(1 − y)


_ACTIVATIONS = {
    activation.name: activation
    for activation in (
        Activation("tanh", torch.tanh, _tanh_backward),
        Activation("relu", torch.relu, _relu_backward),
        Activation("sigmoid", torch.sigmoid, _sigmoid_backward),
    )
}


def get_activation(name: str) -> Activation:
    """The activation of that name; an unknown one is an ArgumentError that offers the nearest."""
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise ArgumentError(f"activation={name!r} is not known: {nearest(name, _ACTIVATIONS)}")
    return _ACTIVATIONS[name]
