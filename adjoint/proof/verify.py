"""Checks of a hand-derived VJP against autograd and finite differences, as data.

Each result is one block or parameter against one reference, with the entry that differs most.
`verify_solve` does the same for the gradient of a whole solve.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ...solvers.errors import ArgumentError, ArgumentTypeError
from ..dynamics.protocol import Dynamics, check_blocks, named_blocks

# Relative to the largest entry, float64. Exact derivatives agree to rounding, 1e-13 as a rule.
BOUND_EXACT = 1e-9
# Central differences of fourth order: 1e-12 to 1e-10 as a rule.
BOUND_DIFFERENCES = 1e-7
ENTRIES = 2  # of each block and parameter that are differenced: the largest, and others at random


@dataclasses.dataclass(frozen=True)
class Check:
    """One quantity against one reference.

    quantity: "a_h", … or a parameter's name.  relative_error: the largest difference over the
    reference's largest entry.  index, found, expected: where it is, and both numbers there.
    bound None: reported, not judged.
    """

    quantity: str
    reference: str
    relative_error: float
    bound: float | None
    index: tuple[int, ...]
    found: float
    expected: float

    @property
    def ok(self) -> bool | None:
        """Whether the error is within the bound (NaN is not); None where there is none."""
        return None if self.bound is None else self.relative_error <= self.bound


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A tensor whose gradient is checked, under the name of its adjoint."""

    name: str
    tensor: Tensor


# Some entries of a gradient, by flat index.
Entries = dict[int, float]


def compare(name: str, reference: str, found: Tensor | None, expected: Tensor, bound: float | None) -> Check:
    """The entry that differs most; a missing gradient counts as zero."""
    found = torch.zeros_like(expected) if found is None else found
    difference = (found - expected).abs().flatten()
    worst = int(difference.argmax())  # NaN counts as the largest
    at = torch.unravel_index(torch.tensor(worst, dtype=torch.int64, device="cpu"), expected.shape)
    numbers = found.flatten()[worst].item(), expected.flatten()[worst].item()
    error = _relative(difference[worst].item(), expected.abs().max().item())
    return Check(name, reference, error, bound, tuple(int(i) for i in at), *numbers)


def compare_entries(
    name: str, found: Tensor | None, expected: Entries, shape: Sequence[int], bound: float | None
) -> Check:
    """The same for finite differences, known at some entries only."""
    flat = [0.0] * math.prod(shape) if found is None else found.flatten().tolist()
    gaps = {i: abs(flat[i] - value) for i, value in expected.items()}
    worst = max(gaps, key=lambda i: math.inf if math.isnan(gaps[i]) else gaps[i])
    at = torch.unravel_index(torch.tensor(worst, dtype=torch.int64, device="cpu"), tuple(shape))
    error = _relative(gaps[worst], max(abs(value) for value in expected.values()))
    index = tuple(int(i) for i in at)
    return Check(name, "finite-differences", error, bound, index, flat[worst], expected[worst])


def _relative(difference: float, scale: float) -> float:
    if difference == 0:
        return 0.0
    return difference / scale if scale > 0 else math.inf


def five_points(value: Callable[[float], float], step: float) -> float:
    """The derivative of value at 0, by differences of fourth order.

    Where the narrow and the wide quotient differ by more than curvature explains, there is a kink between
    the points (a ReLU): then a step 30 times as small is tried, twice.
    """
    best, least = math.nan, math.inf
    for h in (step, step / 30, step / 900):
        at = {k: value(k * h) for k in (-2, -1, 1, 2)}
        narrow, wide = (at[1] - at[-1]) / (2 * h), (at[2] - at[-2]) / (4 * h)
        gap = abs(narrow - wide)
        if not gap >= least:  # the first where it is NaN
            best, least = narrow + (narrow - wide) / 3, gap
        if gap <= 3e-5 * abs(narrow):
            break
    return best


def differences(
    value: Callable[[], float], tensor: Tensor, largest: int, seed: int, entries: int = ENTRIES
) -> Entries:
    """∂value/∂tensor at entry ``largest`` and others drawn at random, by five-point differences.

    The tensor is changed in place and put back. With a step of ε^(1/5) rounding and truncation are
    both about 1e-12.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(tensor.numel(), generator=generator, dtype=torch.int64, device="cpu")
    drawn = order[:entries].tolist()
    chosen = [largest, *(i for i in drawn if i != largest)][:entries]
    flat, found = tensor.detach().view(-1), {}
    for i in chosen:
        middle = flat[i].item()
        size = max(abs(middle), 0.1)

        def moved(x: float, i: int = i, middle: float = middle, size: float = size) -> float:
            flat[i] = middle + x * size
            return value()

        try:
            found[i] = five_points(moved, torch.finfo(tensor.dtype).eps ** 0.2) / size
        finally:
            flat[i] = middle
    return found


def _check_state(dynamics: Dynamics, z: Tensor) -> None:
    if z.ndim < 2 or z.numel() == 0:
        raise ArgumentError(f"z has shape {tuple(z.shape)}; it must be [K, B, *S], with entries to check.")
    check_blocks(dynamics, z, "z")


@dataclasses.dataclass(frozen=True)
class VjpCase:
    """One VJP with a random cotangent w: what it gave, and ⟨F, w⟩ as a function of what the tensors hold."""

    quantities: tuple[Quantity, ...]
    found: tuple[Tensor | None, ...]
    exact: tuple[Tensor | None, ...]
    differentiable: bool
    value: Callable[[], float]


def vjp_case(dynamics: Dynamics, t: Tensor | float, z: Tensor, *, seed: int = 0) -> VjpCase:
    """One VJP of a dynamics, with a random cotangent: every block, every tensor of theta() that learns.

    t: 0-d, or as `Dynamics.forward` takes it.  z: [K, B, *S].  float32 is converted to float64.
    Raises ArgumentError or ArgumentTypeError for what is not a dynamics and its state.
    """
    if not isinstance(dynamics, Dynamics):
        raise ArgumentTypeError(
            f"dynamics is a {type(dynamics).__name__}; it must derive from adamode.Dynamics. For a function "
            "or module without a VJP of its own there is adamode.verify.check_gradient."
        )
    dynamics, z = in_double(dynamics, z)
    _check_state(dynamics, z)
    z = z.detach().clone()
    t = t.to(z) if isinstance(t, Tensor) else torch.full((), t, dtype=z.dtype, device=z.device)
    generator = torch.Generator().manual_seed(seed)
    cotangent = torch.randn(z.shape, generator=generator, dtype=z.dtype, device="cpu").to(z.device)
    theta = theta_of(dynamics)
    with torch.no_grad():
        _, saved = dynamics.forward(t, z)
        z_bar, deltas = dynamics.vjp(saved, cotangent)
        theta_bar = dynamics.parameter_gradients([saved], [deltas], None)
    if len(theta_bar) != len(theta):
        raise ArgumentError(
            f"{type(dynamics).__name__}.parameter_gradients returned {len(theta_bar)} gradients for "
            f"{len(theta)} tensors of theta(): one for each, in that order."
        )
    blocks = [Quantity(f"a_{name}", z[k]) for k, name in enumerate(block_names(dynamics, len(z)))]
    leaf = z.clone().requires_grad_()
    with torch.enable_grad():
        dz, _ = dynamics.forward(t, leaf)
    exact: list[Tensor | None] = [None] * (len(blocks) + len(theta))
    if dz.requires_grad:  # else forward is not differentiable, and finite differences must do
        learnt = [q.tensor for q in theta if q.tensor.requires_grad]
        z_exact, *rest = torch.autograd.grad(dz, (leaf, *learnt), cotangent, allow_unused=True)
        z_exact = torch.zeros_like(z) if z_exact is None else z_exact
        each = iter(rest)
        exact = [*z_exact, *(next(each) if q.tensor.requires_grad else None for q in theta)]

    def value() -> float:
        with torch.no_grad():
            return (dynamics.forward(t, z)[0] * cotangent).sum().item()

    rows = zip([*blocks, *theta], [*z_bar, *theta_bar], exact, strict=True)
    # Blocks are slices of a state without grad; a frozen parameter is nothing to check.
    kept = [row for i, row in enumerate(rows) if i < len(blocks) or row[0].tensor.requires_grad]
    quantities, found, wanted = zip(*kept, strict=True)
    return VjpCase(quantities, found, wanted, dz.requires_grad, value)


def judged(
    case: VjpCase, quantity: Quantity, found: Tensor | None, exact: Tensor | None, seed: int
) -> list[Check]:
    """One quantity of the case against autograd, where F is differentiable, and finite differences."""
    name, tensor = quantity.name, quantity.tensor
    rows = []
    if case.differentiable:
        exact = torch.zeros_like(tensor) if exact is None else exact
        rows.append(compare(name, "autograd", found, exact, BOUND_EXACT))
    guide = exact if exact is not None else found
    largest = 0 if guide is None else int(guide.abs().flatten().argmax())
    entries = differences(case.value, tensor, largest, seed)
    rows.append(compare_entries(name, found, entries, tensor.shape, BOUND_DIFFERENCES))
    return rows


def in_double(func: Any, y0: Any) -> tuple[Any, Any]:
    """func and its start in float64: a module in float32 is copied, anything else must be float64."""
    dtype = pytree.tree_leaves(y0)[0].dtype
    if dtype == torch.float64:
        return func, y0
    if dtype == torch.float32 and isinstance(func, nn.Module):
        return copy.deepcopy(func).double(), pytree.tree_map(lambda x: x.double(), y0)
    raise ArgumentError(
        f"the start has dtype {dtype}; a check needs torch.float64, or rounding is all it sees: convert "
        "the start and what func holds."
    )


def theta_of(dynamics: Dynamics) -> list[Quantity]:
    """The tensors of theta() with their names, where the dynamics is a module."""
    named: Iterable[tuple[str, Tensor]] = (
        dynamics.named_parameters() if isinstance(dynamics, nn.Module) else ()
    )
    names = {id(p): name for name, p in named}
    return [Quantity(names.get(id(p), f"theta[{i}]"), p) for i, p in enumerate(dynamics.theta())]


def block_names(dynamics: Dynamics, count: int) -> tuple[str, ...]:
    """The names of the state's blocks: the dynamics' own ``blocks``, or 0, 1, …"""
    names = named_blocks(dynamics)
    return names if len(names) == count else tuple(str(k) for k in range(count))
