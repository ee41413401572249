"""Checks of a solve's gradient against autograd and finite differences through the same steps.

The finite differences replay the steps of the unperturbed solve, which are prescribed: step size
control does not enter the difference quotient, and its limit is the derivative that `Discrete` claims.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..solvers.errors import ArgumentError
from ..solvers.state import Layout, layout_of
from .autograd_dynamics import discover_parameters
from .dynamics import Dynamics
from .gradient import Direct, Discrete
from .solve import solve
from .verify import (
    BOUND_DIFFERENCES,
    BOUND_EXACT,
    Check,
    Entries,
    Quantity,
    block_names,
    compare,
    compare_entries,
    differences,
    in_double,
    theta_of,
)


@dataclasses.dataclass(frozen=True)
class References:
    """What a solve's gradients should be: by autograd, and by finite differences at some entries."""

    quantities: tuple[Quantity, ...]
    exact: tuple[Tensor, ...]
    differences: tuple[Entries, ...]


class GradientProblem:
    """One solve whose gradient is checked: L = Σ w·y over all outputs, w random.

    func: Dynamics, module or function.  y0: tensor or pytree.  t: times.  arguments: `solve`'s.
    """

    def __init__(self, func: Any, y0: Any, t: Tensor, arguments: dict[str, Any], *, seed: int = 0):
        if arguments.get("events"):
            raise ArgumentError("events=… cannot be checked here: a moved event changes what is returned.")
        layout = layout_of(y0)
        func, y0 = in_double(func, y0)
        leaves, self.spec = pytree.tree_flatten(y0)
        self.leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
        self.func, self.t, self.seed = func, t.detach().to(torch.float64), seed
        self.arguments = {**arguments, "trace": False, "dense": False}
        self.per_sample = arguments.get("stepping") == "per_sample"
        self.batch_axis = 1 if isinstance(func, Dynamics) else 0
        self.theta = self._parameters(layout)
        self.weights: list[Tensor] | None = None

    def _parameters(self, layout: Layout) -> list[Quantity]:
        if isinstance(self.func, Dynamics):
            found = theta_of(self.func)
        elif self.arguments.get("params") is not None:
            self.arguments["params"] = params = list(self.arguments["params"])
            found = [Quantity(f"params[{i}]", p) for i, p in enumerate(params)]
        elif isinstance(self.func, nn.Module):
            found = [Quantity(name, p) for name, p in self.func.named_parameters()]
        else:
            z, t = layout.pack(self._y0(detach=True)), self.t.flatten()[0].to(self.leaves[0])
            leaves = discover_parameters(lambda t, z: layout.pack(self.func(t, layout.unpack(z))), t, z)
            found = [Quantity(f"params[{i}]", p) for i, p in enumerate(leaves)]
        return [q for q in found if q.tensor.requires_grad]

    def _y0(self, *, detach: bool = False) -> Any:
        leaves = [leaf.detach() if detach else leaf for leaf in self.leaves]
        return pytree.tree_unflatten(leaves, self.spec)

    def quantities(self) -> tuple[Quantity, ...]:
        """The start's blocks (or leaves), then the parameters."""
        if isinstance(self.func, Dynamics):
            z = self.leaves[0].detach()
            names = block_names(self.func, len(z))
            start = [Quantity(f"a_{name}", z[k]) for k, name in enumerate(names)]
        elif len(self.leaves) == 1:
            start = [Quantity("y0", self.leaves[0].detach())]
        else:
            start = [Quantity(f"y0[{i}]", leaf.detach()) for i, leaf in enumerate(self.leaves)]
        return (*start, *self.theta)

    def _loss(self, y: Any) -> Tensor:
        leaves = pytree.tree_leaves(y)
        if self.weights is None:
            generator = torch.Generator().manual_seed(self.seed)
            self.weights = [torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x) for x in leaves]
        return sum(
            ((w * x).sum() for w, x in zip(self.weights, leaves, strict=True)), torch.zeros(()).double()
        )

    def gradient(self, choice: Any) -> list[Tensor | None]:
        """dL/d(quantity) by a gradient choice of `solve`, in the order of `quantities`."""
        solution = solve(self.func, self._y0(), self.t, **{**self.arguments, "gradient": choice})
        inputs = (*self.leaves, *(q.tensor for q in self.theta))
        found = torch.autograd.grad(self._loss(solution.y), inputs, allow_unused=True)
        start, theta = list(found[: len(self.leaves)]), found[len(self.leaves) :]
        if isinstance(self.func, Dynamics):
            start = [None] * len(self.leaves[0]) if start[0] is None else list(start[0])
        return [*start, *theta]

    def references(self, *, by_differences: bool = True) -> References:
        """Both references (or autograd alone); the steps are those that an unperturbed solve takes."""
        quantities = self.quantities()
        exact = [
            torch.zeros_like(q.tensor) if g is None else g
            for q, g in zip(quantities, self.gradient(Direct()), strict=True)
        ]
        if not by_differences:
            return References(quantities, tuple(exact), tuple({} for _ in quantities))
        replay = self._replay()
        found = tuple(
            differences(replay, q.tensor, int(g.abs().flatten().argmax()), self.seed)
            for q, g in zip(quantities, exact, strict=True)
        )
        return References(quantities, tuple(exact), found)

    def _replay(self) -> Callable[[], float]:
        """L as a function of what the tensors hold now, along the steps of now."""
        if self.arguments.get("dt") is not None:
            return lambda: self._loss(self._solve(self._y0(detach=True), self.t, self.arguments)).item()
        arguments = {**self.arguments, "trace": True, "gradient": None}
        rows = solve(self.func, self._y0(detach=True), self.t, **arguments).trace
        if not self.per_sample:
            prescribed = self._prescribed([r.t for r in rows if r.accepted][1:])
            return lambda: self._loss(self._solve(self._y0(detach=True), self.t, prescribed)).item()
        size = self.leaves[0].shape[self.batch_axis]
        steps = [
            self._prescribed([r.t for r in rows if r.accepted and r.sample == b][1:]) for b in range(size)
        ]

        def value() -> float:
            y0 = self._y0(detach=True)
            parts = []
            for b, prescribed in enumerate(steps):
                alone = pytree.tree_map(lambda x, b=b: x.narrow(self.batch_axis, b, 1), y0)
                t = self.t if self.t.ndim == 1 else self.t[b]
                parts.append(pytree.tree_leaves(self._solve(alone, t, prescribed)))
            # One more axis in front: the times.
            whole = [torch.cat(leaf, dim=self.batch_axis + 1) for leaf in zip(*parts, strict=True)]
            return self._loss(whole).item()

        return value

    def _prescribed(self, starts: list[float]) -> dict[str, Any]:
        """Arguments under which a solve steps on these times and no others: nothing is ever rejected."""
        kept = ("method", "jump_at", "save")
        rest = {name: self.arguments[name] for name in kept if name in self.arguments}
        return {**rest, "step_at": starts, "rtol": 1e100, "atol": 1e100, "dt0": 1e100}

    def _solve(self, y0: Any, t: Tensor, arguments: dict[str, Any]) -> Any:
        return solve(self.func, y0, t, **{**arguments, "gradient": None}).y


def gradient_checks(
    problem: GradientProblem,
    choice: Any,
    references: References,
    bound: float | None = None,
    *,
    judge: bool = True,
) -> list[Check]:
    """A gradient choice against both references; judge=False: autograd alone, without a bound."""
    bound = bound_of(choice, problem.arguments) if bound is None else bound
    checks = []
    quantities = zip(
        references.quantities, problem.gradient(choice), references.exact, references.differences, strict=True
    )
    for quantity, found, exact, entries in quantities:
        name, shape = quantity.name, quantity.tensor.shape
        checks.append(compare(name, "autograd", found, exact, bound if judge else None))
        if judge:
            loose = max(bound, BOUND_DIFFERENCES)
            checks.append(compare_entries(name, found, entries, shape, loose))
    return checks


def bound_of(choice: Any, arguments: dict[str, Any]) -> float:
    """What a gradient must reach: rounding for a derivative of the steps, the tolerance for others."""
    if isinstance(choice, (Discrete, Direct)):
        return BOUND_EXACT
    tolerances = []
    for name, default in (("rtol", 1e-5), ("atol", 1e-7)):
        given = (arguments.get(name, default), getattr(choice, name, None))
        tolerances += [torch.as_tensor(v, dtype=torch.float64) for v in given if v is not None]
    # Errors of both solves add up over the steps and are amplified by the adjoint's growth.
    return max(1e3 * max(v.max().item() for v in tolerances), BOUND_EXACT)
