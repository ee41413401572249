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

from ...solvers.attempts import TraceRow
from ...solvers.checks import check_call
from ...solvers.errors import AdamodeWarning, ArgumentError, SolverError
from ...solvers.methods import EVERY
from ...solvers.step.field import Layout, layout_of
from ..arguments import clocks_differ
from ..dynamics.adapt import wrap
from ..dynamics.by_autograd import discover_parameters
from ..dynamics.protocol import UNDRIVEN, Dynamics
from ..gradients import Backsolve, Direct, Discrete, Gradient, Interpolating, Reversible
from ..solve import solve
from .comparisons import BOUND_EXACT, Quantity
from .references import References, blocks_of, difference_references, in_double, refuse_random, theta_of
from .slopes import Taylor, normal, taylor

EXACT = (Discrete, Direct, Reversible)  # derivatives of the steps
GAP_TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6)


class _Held(nn.Module):
    """Gives what it holds to a function: `functional_call` puts other parameters into it for that long."""

    def __init__(self, func: nn.Module):
        super().__init__()
        self.func = func

    def forward(self, use: Callable[[nn.Module], Any]) -> Any:
        """The function's result."""
        return use(self.func)


class GradientProblem:
    """One solve whose gradient is checked: L = Σ w·y over all outputs, w random.

    func: Dynamics, module or function.
    y0: tensor or pytree.
    t: times.
    arguments: `solve`'s.
    steps: the gradient choice whose steps they are; all but Reversible() have the method's own.
    """

    def __init__(
        self,
        func: Any,
        y0: Any,
        t: Tensor,
        arguments: dict[str, Any],
        *,
        seed: int = 0,
        steps: Gradient = Discrete(),  # noqa: B008  (frozen)
    ):
        if arguments.get("events"):
            raise ArgumentError("events=… cannot be checked here: a moved event changes what is returned.")
        if arguments.get("signal") is not None:
            raise ArgumentError(
                "signal=… cannot be checked here: func is differentiated as func(t, y). Give one that asks "
                "the signal, lambda t, y: func(t, y, signal(t)), and step_at=signal.times."
            )
        if not isinstance(func, Dynamics):
            check_call(func, "func", *UNDRIVEN)
        layout = layout_of(y0)
        if any(leaf.numel() == 0 for leaf in pytree.tree_leaves(y0)):
            raise ArgumentError("y0 has a leaf without entries: there is no gradient to check.")
        func, y0 = in_double(func, y0)
        leaves, self.spec = pytree.tree_flatten(y0)
        self.leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
        self.func, self.t, self.seed = func, t.detach().to(torch.float64), seed
        self.arguments = {**arguments, "trace": False, "dense": False, "gradient": None}
        self.by_autograd, self.leapfrog = Direct(), EVERY[arguments.get("method", "dopri5")].leapfrog
        if isinstance(steps, Reversible):
            self.arguments["gradient"], self.by_autograd = (
                steps,
                Direct(None if self.leapfrog else steps.coupling),
            )
        self.per_sample = clocks_differ(arguments.get("stepping", "shared"))
        self.batch_axis = 1 if isinstance(func, Dynamics) else 0
        self.theta = self._parameters(layout)
        self.weights: list[Tensor] | None = None

    def refuse_random(self) -> None:
        """Raises NotRepeatableError where func gives two values at the start."""
        layout, t = layout_of(self._y0()), self.t.flatten()[0].to(self.leaves[0])
        y0 = layout.pack(self._y0())
        f = wrap(self.func, layout, y0, t, None, lambda: None)[0]
        refuse_random(lambda: f(t, y0))

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
            z, t = layout.pack(self._y0()), self.t.flatten()[0].to(self.leaves[0])
            leaves = discover_parameters(lambda t, z: layout.pack(self.func(t, layout.unpack(z))), t, z)
            found = [Quantity(f"params[{i}]", p) for i, p in enumerate(leaves)]
        return [q for q in found if q.tensor.requires_grad]

    def _y0(self, *, attached: bool = False) -> Any:
        leaves = [leaf if attached else leaf.detach() for leaf in self.leaves]
        return pytree.tree_unflatten(leaves, self.spec)

    def quantities(self) -> tuple[Quantity, ...]:
        """The start's blocks (or leaves), then the parameters."""
        leaves = [leaf.detach() for leaf in self.leaves]
        if isinstance(self.func, Dynamics):
            return (*blocks_of(self.func, leaves[0]), *self.theta)
        names = [f"y0[{i}]" for i in range(len(leaves))] if len(leaves) > 1 else ["y0"]
        return (*map(Quantity, names, leaves), *self.theta)

    def _loss(self, y: Any) -> Tensor:
        leaves = pytree.tree_leaves(y)
        if self.weights is None:
            generator = torch.Generator().manual_seed(self.seed)
            self.weights = [normal(x, generator) for x in leaves]
        return sum(
            ((w * x).sum() for w, x in zip(self.weights, leaves, strict=True)),
            torch.zeros((), dtype=torch.float64, device=leaves[0].device),
        )

    def gradient(self, choice: Gradient) -> tuple[Tensor, ...]:
        """dL/d(quantity) by a gradient choice of `solve`, in the order of `quantities`."""
        return self.gradient_of(lambda y0, t: self._solve(y0, t, {**self.arguments, "gradient": choice}))

    def gradient_of(self, values: Callable[[Any, Tensor], Any]) -> tuple[Tensor, ...]:
        """dL/d(quantity) by autograd through another way to y, values(y0, t)."""
        inputs = (*self.leaves, *(q.tensor for q in self.theta))
        loss = self._loss(values(self._y0(attached=True), self.t))
        found = torch.autograd.grad(loss, inputs, materialize_grads=True)
        return (*found[0], *found[1:]) if isinstance(self.func, Dynamics) else found

    def forward(self, directions: Sequence[Tensor], choice: Gradient) -> Tensor:
        """Forward sensitivities, [n + 1]: L's derivative along each quantity's direction by itself, and along
        all of them at once.

        func: a Dynamics that is an nn.Module.  directions: like `quantities`.
        """
        names = {id(p): f"func.{name}" for name, p in self.func.named_parameters()}
        arguments, start = {**self.arguments, "gradient": choice}, self.leaves[0].detach()
        n, held = len(directions) - len(self.theta), _Held(self.func)

        def moved(each: Tensor) -> Tensor:
            steps = each[:-1] + each[-1]
            blocks = [x + step * u for x, step, u in zip(start, steps, directions, strict=False)]
            theta = {
                names[id(q.tensor)]: q.tensor.detach() + step * u
                for q, step, u in zip(self.theta, steps[n:], directions[n:], strict=True)
            }
            solved = lambda func: solve(func, torch.stack(blocks), self.t, **arguments).y  # noqa: E731
            return self._loss(torch.func.functional_call(held, theta, (solved,)))

        found: Tensor = torch.func.jacfwd(moved)(start.new_zeros(len(directions) + 1))
        return found

    def references(self, *, entries: int | None = 1) -> References:
        """Autograd, and finite differences at so many entries and along a direction of each quantity.

        entries: of each quantity; None: autograd alone.
        The steps are those that an unperturbed solve takes.
        """
        quantities, exact = self.quantities(), self.gradient(self.by_autograd)
        n = len(quantities)
        if entries is None:
            return References(quantities, exact, ({},) * n, (None,) * n)
        by_differences = difference_references(self.replay(), quantities, exact, self.seed, entries)
        return References(quantities, exact, *by_differences)

    def replay(self) -> Callable[[], float]:
        """L as a function of what the tensors hold now, along the steps of now."""
        arguments = self.arguments
        if arguments.get("dt") is None:
            traced = solve(self.func, self._y0(), self.t, **{**arguments, "trace": True})
            rows = [row for row in traced.trace or [] if row.accepted]
            if self.per_sample:
                return self._replay_samples(rows)
            arguments = self._prescribed(rows)
        return lambda: self._loss(self._solve(self._y0(), self.t, arguments)).item()

    def _replay_samples(self, rows: Sequence[TraceRow]) -> Callable[[], float]:
        """`replay`, each sample alone along its own steps."""
        axis = self.batch_axis
        size = self.leaves[0].shape[axis]
        steps = [self._prescribed([row for row in rows if row.sample == b]) for b in range(size)]

        def value() -> float:
            y0, parts = self._y0(), []
            for b, prescribed in enumerate(steps):
                alone = pytree.tree_map(lambda x, b=b: x.narrow(axis, b, 1), y0)
                t = self.t if self.t.ndim == 1 else self.t[b]
                parts.append(pytree.tree_leaves(self._solve(alone, t, prescribed)))
            # One more axis in front: the times.
            whole = [torch.cat(leaf, dim=axis + 1) for leaf in zip(*parts, strict=True)]
            return self._loss(whole).item()

        return value

    def _prescribed(self, steps: Sequence[TraceRow]) -> dict[str, Any]:
        """Arguments under which a solve takes these steps and no others: nothing is ever rejected."""
        same = {n: v for n, v in self.arguments.items() if n in ("method", "jump_at", "save", "gradient")}
        starts = [row.t for row in steps][1:]
        return {**same, "step_at": starts, "rtol": 1e100, "atol": 1e100, "dt0": 1e100}

    def _solve(self, y0: Any, t: Tensor, arguments: dict[str, Any]) -> Any:
        return solve(self.func, y0, t, **arguments).y


def gradient_taylor(problem: GradientProblem, found: Sequence[Tensor], choice: Any) -> Taylor:
    """The Taylor remainder of a gradient along the steps of the unperturbed solve.

    Not judged for the continuous adjoints, which are not the derivative of those steps.
    """
    result = taylor(problem.replay(), problem.quantities(), found, problem.seed)
    return result if isinstance(choice, EXACT) else dataclasses.replace(result, ok=None)


@dataclasses.dataclass(frozen=True)
class Gap:
    """How far a continuous adjoint is from the discrete one: the largest difference over the largest entry
    of the whole gradient.

    tolerance: rtol and atol.
    interpolating, backsolve: of the two adjoints; None where one cannot go on.
    """

    tolerance: float
    interpolating: float | None
    backsolve: float | None


def gaps(problem: GradientProblem, tolerances: Sequence[float] = GAP_TOLERANCES) -> tuple[Gap, ...]:
    """The gap between both kinds of gradient as rtol = atol falls; None where an adjoint cannot go on.

    () where the steps are fixed, and there is no tolerance, or where the loss is over all steps, and
    another with each tolerance; and of a leapfrog, which has neither.
    """
    if (
        problem.leapfrog
        or problem.arguments.get("dt") is not None
        or problem.arguments.get("save") == "steps"
    ):
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


def _gap(problem: GradientProblem, choice: Gradient, exact: Sequence[Tensor]) -> float | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AdamodeWarning)
            found = problem.gradient(choice)
    except SolverError:
        return None
    got, want = (torch.cat([g.flatten() for g in gradient]) for gradient in (found, exact))
    worst, largest = (got - want).abs().max().item(), want.abs().max().item()
    worst = worst if math.isfinite(worst) else math.inf
    return worst / largest if largest > 0 else worst


def bound_of(choice: Any, arguments: dict[str, Any]) -> float:
    """The bound of a gradient: rounding for a derivative of the steps, the tolerance for others."""
    if isinstance(choice, EXACT):
        return BOUND_EXACT
    tolerances = []
    for name, default in (("rtol", 1e-5), ("atol", 1e-7)):
        given = (arguments.get(name, default), getattr(choice, name, None))
        tolerances += [torch.as_tensor(v, dtype=torch.float64, device="cpu") for v in given if v is not None]
    # Errors of both solves add up over the steps and are amplified by the adjoint's growth.
    return max(1e3 * max(v.max().item() for v in tolerances), BOUND_EXACT)
