"""Transforms of torch.func, forward-mode AD and tracing around a caller, and what they make of a tensor."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

_functorch = torch._C._functorch


def around() -> bool:
    """Whether a transform of torch.func is around the caller."""
    return torch._C._are_functorch_transforms_active()


def forwards() -> bool:
    """Whether forward-mode AD is on."""
    return forward_ad._current_level >= 0


def dual() -> bool:
    """Whether forward-mode AD is on by itself, outside torch.func, whose own cannot begin within it."""
    return forwards() and not around()


def traced() -> bool:
    """Whether operators are recorded for a graph, with no numbers at hand."""
    keys = torch._C._TorchDispatchModeKey
    return any(torch._C._get_dispatch_mode(key) is not None for key in (keys.PROXY, keys.FAKE))


def wrapped(x: Tensor) -> bool:
    """Whether a transform of torch.func has put a layer of its own around x."""
    return bool(_functorch.is_functorch_wrapped_tensor(x))


def layers(x: Tensor) -> Iterator[Tensor]:
    """x, and the tensors that it wraps, from the innermost transform outwards."""
    yield x
    while _functorch.is_functorch_wrapped_tensor(x):
        x = _functorch.get_unwrapped(x)
        yield x


def batched(x: Tensor) -> bool:
    """Whether a `vmap`, at any depth, gives x a hidden axis."""
    # is_grads_batched of torch.autograd.grad still has an older kind.
    return any(
        _functorch.is_batchedtensor(layer) or _functorch.is_legacy_batchedtensor(layer) for layer in layers(x)
    )


def has_tangent(x: Tensor) -> bool:
    """Whether forward-mode AD follows x."""
    return forwards() and any(forward_ad.unpack_dual(layer).tangent is not None for layer in layers(x))


def followed(x: Tensor) -> bool:
    """Whether a derivative with respect to x, by any of the transforms around it, may be asked for."""
    return any(layer.requires_grad for layer in layers(x)) or has_tangent(x)


def transformed() -> bool:
    """Whether a transform of torch.func is around the caller, or forward-mode AD is on."""
    return around() or forwards()


def moves(x: Tensor) -> bool:
    """Whether x needs a gradient, or a transform around the caller may ask for its derivative."""
    return followed(x) if transformed() else x.requires_grad


def follows() -> bool:
    """Whether someone may follow plain operators: autograd, a transform around the caller, or forward-mode
    AD, which no_grad does not stop."""
    return torch.is_grad_enabled() or transformed()


def still_forwards() -> contextlib.AbstractContextManager[Any]:
    """Forward-mode AD as the caller of a torch.autograd.Function has it: torch stops it inside."""
    return forward_ad._set_fwd_grad_enabled(True) if forwards() else contextlib.nullcontext()


def leaf(x: Tensor) -> Tensor:
    """x without its history, to be differentiated by; forward-mode AD follows it as it does x."""
    with torch.no_grad():
        own = x.view_as(x) if forwards() else x.detach()
    return own.requires_grad_()
