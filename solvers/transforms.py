"""What the transforms of torch.func and forward-mode AD wrap around tensors, told apart.

A solve reads times, states and error estimates on the host. A tensor that `vmap` has batched has no numbers
there, one on the meta device has none at all; a tangent of forward-mode AD, or a level of `torch.func.grad`,
passes through plain operators, and not through a hand-derived adjoint.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .errors import ArgumentError, ArgumentTypeError

_functorch = torch._C._functorch


def around() -> bool:
    """Whether a transform of torch.func is around the caller."""
    return torch._C._are_functorch_transforms_active()


def forwards() -> bool:
    """Whether forward-mode AD is on."""
    return forward_ad._current_level >= 0


def traced() -> bool:
    """Whether operators are recorded for a graph, with no numbers at hand."""
    keys = torch._C._TorchDispatchModeKey
    return any(torch._C._get_dispatch_mode(key) is not None for key in (keys.PROXY, keys.FAKE))


def layers(x: Tensor) -> Iterator[Tensor]:
    """x, and what it wraps, from the innermost transform outwards."""
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


def check_readable(x: Tensor, argument: str) -> None:
    """ArgumentError, or ArgumentTypeError, where the host could read no numbers of x."""
    if _functorch.is_functorch_wrapped_tensor(x) and batched(x):
        raise ArgumentTypeError(
            f"{argument} is batched by vmap, but a solve decides its steps by its tensors' values: leave it "
            "away and give the whole batch as y0 (each sample's own steps and times: "
            "solve(stepping='per_sample')); for a Jacobian, torch.func.jacrev or torch.func.jacfwd with "
            "gradient=adamode.Direct()."
        )
    if traced():
        raise ArgumentError(
            f"{argument} is traced (torch.func.linearize, make_fx, torch.export), but a solve decides its "
            "steps by its tensors' values, so no one graph is right for others: trace func alone, or export "
            "a model with a fixed number of steps (adamode export)."
        )
    if x.device.type == "meta":
        raise ArgumentError(
            f"{argument} is on the meta device, which holds no numbers: a solve decides its steps by them. "
            "Make it on the CPU or another device (torch.set_default_device and `with torch.device(…):` say "
            "where tensors are made)."
        )
