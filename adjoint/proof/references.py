"""The references that a gradient is compared with; and one VJP of a dynamics beside its references.

`solves` does the same for the gradient of a whole solve.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ...solvers.errors import ArgumentError, ArgumentTypeError, NotRepeatableError
from ...solvers.step.clocks import distance, unlike
from ..dynamics.adapt import checked_gradients
from ..dynamics.protocol import Dynamics, check_blocks, named_blocks
from .comparisons import BOUND_DIFFERENCES, Check, Entries, Quantity, compare, compare_entries
from .slopes import Along, along, compare_along, differences, normal


@dataclasses.dataclass(frozen=True)
class References:
    """The right gradients of some quantities.

    exact: by autograd; None where autograd cannot differentiate.
    differences: by finite differences at some entries of each quantity ({}: none).
    lines: by finite differences along a random direction of each (None: not wanted).
    """

    quantities: tuple[Quantity, ...]
    exact: tuple[Tensor, ...] | None
    differences: tuple[Entries, ...]
    lines: tuple[Along | None, ...]


def difference_references(
    value: Callable[[], float],
    quantities: Sequence[Quantity],
    guide: Sequence[Tensor],
    seed: int,
    entries: int,
) -> tuple[tuple[Entries, ...], tuple[Along | None, ...]]:
    """`References.differences` and `References.lines` of value(), a function of what the tensors hold.

    guide: a gradient of each quantity; its largest entry is among those that are differenced.
    entries: how many of each quantity are.
    """
    found = tuple(
        differences(value, q.tensor, int(g.abs().flatten().argmax()), seed, entries)
        for q, g in zip(quantities, guide, strict=True)
    )
    return found, tuple(along(value, q.tensor, seed) for q in quantities)


def gradient_checks(
    found: Sequence[Tensor], references: References, bound: float | None, *, direction: str = "dot-product"
) -> list[Check]:
    """A gradient against its references.

    bound: of the comparison with autograd; differences have 1e-7 at best. None: autograd alone, not judged.
    direction: the name of the comparison along a direction.
    """
    checks = []
    for i, (quantity, got) in enumerate(zip(references.quantities, found, strict=True)):
        name, line = quantity.name, references.lines[i]
        if references.exact is not None:
            checks.append(compare(name, "autograd", got, references.exact[i], bound))
        if bound is None:
            continue
        loose = max(bound, BOUND_DIFFERENCES)
        if references.differences[i]:
            checks.append(compare_entries(name, got, references.differences[i], loose))
        if line is not None:
            checks.append(compare_along(name, direction, got, line, loose))
    return checks


@dataclasses.dataclass(frozen=True)
class VjpCase:
    """One VJP with a random cotangent w.

    found: the gradients that it gave.
    value: ⟨F, w⟩ as a function of what the tensors hold.
    """

    found: tuple[Tensor, ...]
    references: References
    value: Callable[[], float]


def refuse_random(evaluate: Callable[[], Tensor]) -> None:
    """Raises NotRepeatableError where two calls differ by more than rounding: nothing could be compared."""
    with torch.no_grad():
        first, second = (torch.nan_to_num(evaluate().clone(), nan=0.0) for _ in range(2))
    off = float(distance(second, first))  # host read
    if unlike(off, first.dtype):
        raise NotRepeatableError(off, "A check compares values of func with each other.")


def vjp_case(dynamics: Dynamics, t: Tensor | float, z: Tensor, *, seed: int, entries: int) -> VjpCase:
    """One VJP of a dynamics, with a random cotangent: every block, every tensor of theta() that learns.

    t: 0-d, or as `Dynamics.forward` takes it.
    z: [K, B, *S]; float32 is converted to float64.
    entries: of each block and parameter that are differenced: the largest, and others at random.
    Raises ArgumentError or ArgumentTypeError for anything but a dynamics and its state.
    """
    if not isinstance(dynamics, Dynamics):
        raise ArgumentTypeError(
            f"dynamics is a {type(dynamics).__name__}; it must derive from adamode.Dynamics. For a function "
            "or module without a VJP of its own there is adamode.verify.check_gradient."
        )
    dynamics, z = in_double(dynamics, z)
    if z.ndim < 2 or z.numel() == 0:
        raise ArgumentError(f"z has shape {tuple(z.shape)}; it must be [K, B, *S], with entries to check.")
    check_blocks(dynamics, z, "z")
    z = z.detach().clone()
    t = t.to(z) if isinstance(t, Tensor) else torch.full((), t, dtype=z.dtype, device=z.device)
    cotangent = normal(z, torch.Generator().manual_seed(seed))
    theta = theta_of(dynamics)
    refuse_random(lambda: dynamics.forward(t, z)[0])
    with torch.no_grad():
        _, saved = dynamics.forward(t, z)
        z_bar, deltas = dynamics.vjp(saved, cotangent)
        theta_bar = dynamics.parameter_gradients([saved], [deltas], None)
    theta_bar = checked_gradients(dynamics, theta_bar, [q.tensor for q in theta], ArgumentError)
    learnt = [q for q in theta if q.tensor.requires_grad]  # a frozen parameter is nothing to check
    bars = [bar for bar, q in zip(theta_bar, theta, strict=True) if q.tensor.requires_grad]
    quantities = (*blocks_of(dynamics, z), *learnt)
    pairs = zip(quantities, [*z_bar, *bars], strict=True)
    found = tuple(torch.zeros_like(q.tensor) if g is None else g for q, g in pairs)

    def value() -> float:
        with torch.no_grad():
            return (dynamics.forward(t, z)[0] * cotangent).sum().item()

    leaf, exact = z.clone().requires_grad_(), None
    with torch.enable_grad():
        dz, _ = dynamics.forward(t, leaf)
    if dz.requires_grad:  # else forward is not differentiable, and finite differences must do
        inputs = (leaf, *(q.tensor for q in learnt))
        first, *rest = torch.autograd.grad(dz, inputs, cotangent, materialize_grads=True)
        exact = (*first, *rest)
    guide = found if exact is None else exact
    by_differences = difference_references(value, quantities, guide, seed, entries)
    return VjpCase(found, References(quantities, exact, *by_differences), value)


def in_double(func: Any, y0: Any) -> tuple[Any, Any]:
    """func and its start in float64: a module in float32 is copied, anything else must be float64."""
    dtype = pytree.tree_leaves(y0)[0].dtype
    if dtype == torch.float64:
        return func, y0
    if dtype == torch.float32 and isinstance(func, nn.Module):
        return copy.deepcopy(func).double(), pytree.tree_map(lambda x: x.double(), y0)
    raise ArgumentError(
        f"the start has dtype {dtype}; a check needs torch.float64, since float32 shows only rounding: "
        "convert the start and what func holds."
    )


def theta_of(dynamics: Dynamics) -> list[Quantity]:
    """The tensors of theta() with their names, where the dynamics is a module."""
    named = dynamics.named_parameters() if isinstance(dynamics, nn.Module) else ()
    names = {id(p): name for name, p in named}
    return [Quantity(names.get(id(p), f"theta[{i}]"), p) for i, p in enumerate(dynamics.theta())]


def blocks_of(dynamics: Dynamics, z: Tensor) -> list[Quantity]:
    """The blocks of a state, [K, …], under the dynamics' own names, or 0, 1, …"""
    own = named_blocks(dynamics)
    names = own if len(own) == len(z) else range(len(z))
    return [Quantity(f"a_{name}", block) for name, block in zip(names, z, strict=True)]
