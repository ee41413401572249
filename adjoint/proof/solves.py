"""Checks of a solve's gradient against autograd and finite differences through the same steps.

The finite differences replay the steps of the unperturbed solve, which are prescribed: step size
control does not enter the difference quotient, and its limit is the derivative that `Discrete` claims.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ...solvers.errors import AdamodeWarning, ArgumentError, SolverError
from ...solvers.step.field import Layout, layout_of
from ..arguments import Backsolve, Direct, Discrete, Interpolating, clocks_differ
from ..dynamics.by_autograd import discover_parameters
from ..dynamics.protocol import Dynamics
from ..solve import solve
from .slopes import Along, Taylor, along, compare_along, taylor
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

GAP_TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6)


@dataclasses.dataclass(frozen=True)
class References:
    """What a solve's gradients should be: by autograd, and by finite differences.

    differences: at some entries of each quantity ({}: none).  lines: along a random direction (or None).
    """

    quantities: tuple[Quantity, ...]
    exact: tuple[Tensor, ...]
    differences: tuple[Entries, ...]
    lines: tuple[Along | None, ...]


class GradientProblem:
    """One solve whose gradient is checked: L = Σ w·y over all outputs, w random.

    func: Dynamics, module or function.  y0: tensor or pytree.  t: times.  arguments: `solve`'s.
    """

    def __init__(self, func: Any, y0: Any, t: Tensor, arguments: dict[str, Any], *, seed: int = 0):
        if arguments.get("events"):
            raise ArgumentError("events=… cannot be checked here: a moved event changes what is returned.")
        layout = layout_of(y0)
        if any(leaf.numel() == 0 for leaf in pytree.tree_leaves(y0)):
            raise ArgumentError("y0 has a leaf without entries: there is no gradient to check.")
        func, y0 = in_double(func, y0)
        leaves, self.spec = pytree.tree_flatten(y0)
        self.leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
        self.func, self.t, self.seed = func, t.detach().to(torch.float64), seed
        self.arguments = {**arguments, "trace": False, "dense": False}
        self.per_sample = clocks_differ(arguments.get("stepping", "shared"))
        self.batch_axis = 1 if isinstance(func, Dynamics) else 0
        self.theta = self._parameters(layout)
        self.weights: list[Tensor] | None = None

    def at_tolerance(self, tolerance: float) -> GradientProblem:
        """The same problem with rtol = atol = tolerance."""
        changed = copy.copy(self)
        changed.arguments = {**self.arguments, "rtol": tolerance, "atol": tolerance}
        return changed

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
            self.weights = [
                torch.randn(x.shape, generator=generator, dtype=x.dtype, device="cpu").to(x) for x in leaves
            ]
        return sum(
            ((w * x).sum() for w, x in zip(self.weights, leaves, strict=True)),
            torch.zeros((), dtype=torch.float64, device=leaves[0].device),
        )

    def gradient(self, choice: Any) -> list[Tensor | None]:
        """dL/d(quantity) by a gradient choice of `solve`, in the order of `quantities`."""
        return self._gradient_of(
            solve(self.func, self._y0(), self.t, **{**self.arguments, "gradient": choice}).y
        )

    def _gradient_of(self, y: Any) -> list[Tensor | None]:
        inputs = (*self.leaves, *(q.tensor for q in self.theta))
        found = torch.autograd.grad(self._loss(y), inputs, allow_unused=True)
        start, theta = list(found[: len(self.leaves)]), found[len(self.leaves) :]
        if isinstance(self.func, Dynamics):
            start = [None] * len(self.leaves[0]) if start[0] is None else list(start[0])
        return [*start, *theta]

    def gradient_of(self, values: Callable[[Any, Tensor], Any]) -> list[Tensor | None]:
        """dL/d(quantity) by autograd through another way to y, values(y0, t)."""
        return self._gradient_of(values(self._y0(), self.t))

    def references(self, *, entries: int = 1, directions: bool = True) -> References:
        """Autograd, and finite differences at so many entries and along a direction of each quantity.

        The steps are those that an unperturbed solve takes.
        """
        quantities = self.quantities()
        exact = [
            torch.zeros_like(q.tensor) if g is None else g
            for q, g in zip(quantities, self.gradient(Direct()), strict=True)
        ]
        if not entries and not directions:
            n = len(quantities)
            return References(quantities, tuple(exact), ({},) * n, (None,) * n)
        value = self.replay()
        found: list[Entries] = [
            differences(value, q.tensor, int(g.abs().flatten().argmax()), self.seed, entries)
            for q, g in zip(quantities, exact, strict=True)
        ]
        lines = [along(value, q.tensor, self.seed) if directions else None for q in quantities]
        return References(quantities, tuple(exact), tuple(found), tuple(lines))

    def replay(self) -> Callable[[], float]:
        """L as a function of what the tensors hold now, along the steps of now."""
        if self.arguments.get("dt") is not None:
            return lambda: self._loss(self._solve(self._y0(detach=True), self.t, self.arguments)).item()
        arguments = {**self.arguments, "trace": True, "gradient": None}
        rows = solve(self.func, self._y0(detach=True), self.t, **arguments).trace or []
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
    found: Sequence[Tensor | None],
    references: References,
    bound: float | None,
    *,
    direction: str = "dot-product",
) -> list[Check]:
    """A gradient against the references; bound None: autograd alone, not judged.

    direction: what the comparison along a direction is called.
    """
    checks = []
    rows = zip(
        references.quantities, found, references.exact, references.differences, references.lines, strict=True
    )
    for quantity, got, exact, entries, line in rows:
        name, shape = quantity.name, quantity.tensor.shape
        checks.append(compare(name, "autograd", got, exact, bound))
        if bound is None:
            continue
        loose = max(bound, BOUND_DIFFERENCES)
        if entries:
            checks.append(compare_entries(name, got, entries, shape, loose))
        if line is not None:
            checks.append(compare_along(name, direction, got, line, loose))
    return checks


def gradient_taylor(problem: GradientProblem, found: Sequence[Tensor | None], choice: Any) -> Taylor:
    """The Taylor remainder of a gradient along the steps of the unperturbed solve.

    Not judged for the continuous adjoints, which are not the derivative of those steps.
    """
    result = taylor(problem.replay(), problem.quantities(), found, problem.seed)
    return result if isinstance(choice, (Discrete, Direct)) else dataclasses.replace(result, ok=None)


@dataclasses.dataclass(frozen=True)
class Gap:
    """How far a continuous adjoint is from the discrete one at a tolerance: the largest difference over
    the largest entry of the whole gradient."""

    tolerance: float
    interpolating: float | None
    backsolve: float | None


def gaps(problem: GradientProblem, tolerances: Sequence[float] = GAP_TOLERANCES) -> tuple[Gap, ...]:
    """The gap between both kinds of gradient as rtol = atol falls; None where an adjoint cannot go on.

    () where the steps are fixed, and there is no tolerance, or where the loss is over all steps, and
    another with each tolerance.
    """
    if problem.arguments.get("dt") is not None or problem.arguments.get("save") == "steps":
        return ()
    found: list[Gap] = []
    for tolerance in tolerances:
        each = problem.at_tolerance(tolerance)
        try:
            exact = each.gradient(Discrete())
        except SolverError:  # the solve itself: nothing to compare
            return tuple(found)
        found.append(
            Gap(tolerance, *(_gap(each, choice, exact) for choice in (Interpolating(), Backsolve())))
        )
    return tuple(found)


def _gap(problem: GradientProblem, choice: Any, exact: Sequence[Tensor | None]) -> float | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AdamodeWarning)
            found = problem.gradient(choice)
    except SolverError:
        return None
    largest = worst = 0.0
    for quantity, got, want in zip(problem.quantities(), found, exact, strict=True):
        nothing = torch.zeros_like(quantity.tensor)
        got, want = (nothing if g is None else g for g in (got, want))
        difference = (got - want).abs().max().item() if got.numel() else 0.0
        worst = max(worst, difference) if math.isfinite(difference) else math.inf
        largest = max(largest, want.abs().max().item() if want.numel() else 0.0)
    return worst / largest if largest > 0 else worst


def bound_of(choice: Any, arguments: dict[str, Any]) -> float:
    """What a gradient must reach: rounding for a derivative of the steps, the tolerance for others."""
    if isinstance(choice, (Discrete, Direct)):
        return BOUND_EXACT
    tolerances = []
    for name, default in (("rtol", 1e-5), ("atol", 1e-7)):
        given = (arguments.get(name, default), getattr(choice, name, None))
        tolerances += [torch.as_tensor(v, dtype=torch.float64, device="cpu") for v in given if v is not None]
    # Errors of both solves add up over the steps and are amplified by the adjoint's growth.
    return max(1e3 * max(v.max().item() for v in tolerances), BOUND_EXACT)
