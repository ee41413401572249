"""`solve(..., penalties=)`: what can be asked for together, and the integrals solved beside the state.

    kinetic   K' = |f|²           jacobian   J' = |εᵀ ∂f/∂y|²,  ε ~ N(0, 1) drawn once a solve

They are further entries of the state, left out of the error norm, so that steps are those of the solve
without them and every adjoint differentiates them. Penalties of the steps themselves are
`discrete.penalties`.

Source: C. Finlay, J.-H. Jacobsen, L. Nurbekyan, A. Oberman, How to train your neural ODE: the world of
Jacobian and kinetic regularization, ICML 2020.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..solvers.checks import check_call, check_tolerance
from ..solvers.errors import ArgumentError, ArgumentTypeError
from ..solvers.methods import EVERY
from ..solvers.solution import Query, Solution
from ..solvers.status import Status
from ..solvers.step.clocks import ONE, each, norm_of
from ..solvers.step.field import Layout, layout_of, transformed
from .arguments import Options, Request, clocks_differ, needs_jacobian
from .discrete.penalties import Part, StepPenalties
from .dynamics.adapt import check_independent_samples, for_solve
from .dynamics.protocol import DRIVEN, UNDRIVEN, Dynamics, check_blocks
from .engine.problem import Problem
from .gradients import Direct, Discrete

INTEGRALS = ("kinetic", "jacobian")


def integrals_in(options: Options) -> list[str]:
    """Those of the penalties that are solved beside the state."""
    return [name for name in options.penalties if name in INTEGRALS]


def check_together(func: Any, options: Options) -> None:
    """ArgumentError for penalties with what cannot have them."""
    asked, own = f"penalties={options.penalties!r}", integrals_in(options)
    if options.events:
        raise ArgumentError(
            f"{asked} with events: a solve that an event may end has no sum to its end. Leave events out."
        )
    if options.compile or options.sync_every > 1:
        name = "compile=True" if options.compile else f"sync_every={options.sync_every}"
        raise ArgumentError(
            f"{asked} with {name}: penalties see every accepted step, which a program or a queue of attempts "
            f"does not show. Leave {name.split('=')[0]} out."
        )
    if len(own) < len(options.penalties):
        _check_steps(asked, options)
    if own:
        _check_integrals(func, own, options)


def _check_steps(asked: str, options: Options) -> None:
    """Of error and stiffness."""
    gradient, tableau = options.gradient, EVERY[options.method]
    coupled = isinstance(gradient, Direct) and gradient.coupling is not None
    if not isinstance(gradient, (Discrete, Direct, type(None))) or coupled:
        name = f"{type(gradient).__name__}({'coupling=…' if coupled else ''})"
        raise ArgumentError(
            f"{asked} with gradient={name}: 'error' and 'stiffness' are numbers of the forward steps, and "
            "this way back does not go through the method's own. Use Discrete() or Direct(); 'kinetic' and "
            "'jacobian' go with all."
        )
    if tableau.wants_jacobian or tableau.leapfrog:
        raise ArgumentError(
            f"{asked} with method={options.method!r}: 'error' and 'stiffness' are computed from the slopes "
            "of an explicit step. Choose dopri5, or 'kinetic' and 'jacobian'."
        )
    if isinstance(gradient, Discrete) and transformed():
        raise ArgumentError(
            f"{asked} under a transform of torch.func, or forward-mode AD: their derivative is there with "
            "gradient=Direct()."
        )


def _check_integrals(func: Any, own: Sequence[str], options: Options) -> None:
    """Of kinetic and jacobian."""
    asked = f"penalties={tuple(own)!r}"
    if options.jac is not None:
        raise ArgumentError(
            f"{asked} with jac: the integrals are further entries of the state, whose derivatives jac does "
            "not give. Leave jac out, and func is differentiated."
        )
    if isinstance(options.stepping, Tensor):
        raise ArgumentError(
            f"{asked} with stepping in groups: use stepping='per_sample' or 'shared'; 'error' and "
            "'stiffness' go with groups."
        )
    if "jacobian" not in own:
        return
    if needs_jacobian(options):
        raise ArgumentError(
            f"{asked} with an implicit method (method={options.method!r}, or the reverse solve's): it needs "
            "the forward-mode derivative of a derivative. Take an explicit method, or kinetic."
        )
    if isinstance(func, Dynamics):
        raise ArgumentError(
            f"{asked}: 'jacobian' of a {type(func).__name__}: its VJP by hand has itself no derivative. Give "
            "func as a function or a Module on a tensor, which autograd differentiates twice, or take "
            "'kinetic'."
        )
    if options.compact:
        raise ArgumentError(
            f"{asked} with compact=True: the probe of 'jacobian' is drawn for the whole batch. Leave compact "
            "out, or take 'kinetic'."
        )
    if transformed():
        raise ArgumentError(
            f"{asked}: 'jacobian' is a derivative by torch.autograd and not defined under a transform of "
            "torch.func or forward-mode AD. Use torch.autograd.grad in the transform's place."
        )


@dataclasses.dataclass(frozen=True)
class Beside:
    """A solve with integrals beside its state.

    func, y0, options: what is solved in the place of what was asked for.
    parts: what of a value is y, and the integrals, [T] or [T, B] each.
    part: of the packed state, what is y.
    """

    func: Any
    y0: Any
    options: Options
    names: tuple[str, ...]
    parts: Callable[[Any], tuple[Any, Sequence[Tensor]]]
    part: Callable[[Tensor], Tensor]

    def unwrapped(self, sol: Solution, t: Tensor, names: Sequence[str]) -> Solution:
        """The solution that was asked for. names: of all penalties, in their order."""
        y, integrals = self.parts(sol.y)
        way = (t.detach()[..., -1] - t.detach()[..., 0]).sign()  # of time: ∫ … |dt|
        found = {
            name: self._at_end(q, sol) * way.to(q, non_blocking=True)
            for name, q in zip(self.names, integrals, strict=True)
        }
        found |= sol._penalties
        return dataclasses.replace(
            sol,
            y=y,
            _value=self._first(sol._value),
            _derivative=self._first(sol._derivative),
            _penalties={name: found[name] for name in names},
        )

    def _at_end(self, q: Tensor, sol: Solution) -> Tensor:
        """An integral where each clock ended: with every step saved, samples have rows of their own."""
        if self.options.save != "steps" or q.dim() == 1:
            return q[-1]
        last = q.gather(0, sol.stats.n_accepted.clamp(max=len(q) - 1)[None])[0]
        return torch.where(sol.status == int(Status.SUCCESS), last, torch.nan)

    def _first(self, query: Query | None) -> Query | None:
        return None if query is None else lambda t, per_sample: self.parts(query(t, per_sample))[0]


def beside(func: Any, y0: Any, options: Options) -> Beside:
    """The solve with the integrals that options ask for."""
    own, per_sample = tuple(integrals_in(options)), clocks_differ(options.stepping)
    steps = tuple(name for name in options.penalties if name not in own)
    if per_sample:
        check_independent_samples(func)
    blocks = isinstance(func, Dynamics)
    layout = layout_of(y0, batched=per_sample and not blocks)
    z0 = layout.pack(y0)
    if layout.paired:
        raise ArgumentTypeError(
            f"penalties={own!r} of a complex state: take its real and imaginary part as two tensors."
        )
    if blocks:
        return _of_blocks(func, z0, layout, dataclasses.replace(options, penalties=steps))
    check_call(func, "func", *(UNDRIVEN if options.signal is None else DRIVEN))
    clocks = each(0, z0.dim()) if per_sample else ONE
    norm = norm_of(options.norm, layout, clocks)
    leaf = pytree.tree_leaves(y0)[0]
    q0 = tuple(torch.zeros(leaf.shape[:per_sample], dtype=leaf.dtype, device=leaf.device) for _ in own)

    def tolerance(name: str) -> Any:
        given = getattr(options, name)
        found = check_tolerance(given, name, z0, layout)
        if not isinstance(found, Tensor):
            return found
        return [*([found] if layout.single else given), *(1.0 for _ in own)]

    rtol, atol = tolerance("rtol"), tolerance("atol")
    probe = None
    if "jacobian" in own:
        probe = [torch.randn_like(x.detach()) for x in pytree.tree_leaves(y0)]
    kind = _ModuleBeside if isinstance(func, nn.Module) else _FunctionBeside
    seen = getattr(func, "penalised", None)
    return Beside(
        kind(func, _Rates(own, layout, per_sample, probe, seen)),
        (y0, q0),
        dataclasses.replace(
            options,
            penalties=steps,
            norm=lambda state: norm(layout.pack(state[0])),
            rtol=rtol,
            atol=atol,
        ),
        own,
        lambda state: state,
        lambda z: z[..., : z.shape[-1] - len(own)],
    )


@dataclasses.dataclass(frozen=True)
class _Rates:
    """f and the integrands.

    probe: ε by leaf, where jacobian is asked for.
    seen: so many of f's leaves, the first ones, are penalised; None: all.
    """

    names: tuple[str, ...]
    layout: Layout
    per_sample: bool
    probe: list[Tensor] | None
    seen: int | None = None

    def of(self, func: Callable[[Tensor, Any], Any], t: Tensor, y: Any) -> tuple[Any, tuple[Tensor, ...]]:
        """(f, integrands), the latter 0-d or [B]."""
        found = {}
        if self.probe is None:
            dy = func(t, y)
        else:
            dy, found["jacobian"] = self._with_jacobian(func, t, y)
        found["kinetic"] = self._total(pytree.tree_leaves(dy)[: self.seen], y)
        return dy, tuple(found[name] for name in self.names)

    def _total(self, leaves: Sequence[Any], y: Any) -> Tensor:
        """The sum of squares of a clock's entries; what is no tensor of fit is refused with f itself."""
        like = pytree.tree_leaves(y)[0]
        total = like.new_zeros(like.shape[: self.per_sample])
        for leaf in leaves:
            if isinstance(leaf, Tensor) and leaf.dim() >= self.per_sample:
                square = leaf.to(total.dtype).square()
                total = total + (square.reshape(len(leaf), -1).sum(1) if self.per_sample else square.sum())
        return total

    def _with_jacobian(self, func: Callable[[Tensor, Any], Any], t: Tensor, y: Any) -> tuple[Any, Tensor]:
        """f, and |εᵀ ∂f/∂y|², with a graph where autograd is on."""
        assert self.probe is not None
        followed = torch.is_grad_enabled()
        leaves, spec = pytree.tree_flatten(y)
        with torch.enable_grad():
            inner = [x if followed and x.requires_grad else x.detach().requires_grad_() for x in leaves]
            dy = func(t, pytree.tree_unflatten(inner, spec))
            found = self.layout.matched(dy) or []
            pairs = [
                (k, e.to(k))
                for k, e in zip(found[: self.seen], self.probe, strict=False)
                if isinstance(k, Tensor) and k.requires_grad and k.shape == e.shape
            ]
            rows: Sequence[Tensor | None] = ()
            if pairs:
                outputs, probes = zip(*pairs, strict=True)
                rows = torch.autograd.grad(outputs, inner, probes, create_graph=followed, allow_unused=True)
            total = self._total(rows, y)
        if not followed:
            dy = pytree.tree_map(lambda k: k.detach() if isinstance(k, Tensor) else k, dy)
            total = total.detach()
        return dy, total


class _FunctionBeside:
    """func(t, y) as a function of (y, integrals)."""

    def __init__(self, func: Callable[[Tensor, Any], Any], rates: _Rates):
        self.func, self.rates = func, rates

    def __call__(self, t: Tensor, state: Any, *u: Tensor) -> Any:
        """(f, integrands). u: of a signal."""
        return self.rates.of(lambda t, y: self.func(t, y, *u), t, state[0])


class _ModuleBeside(nn.Module):
    """The same of a Module, whose parameters are its own."""

    def __init__(self, func: nn.Module, rates: _Rates):
        super().__init__()
        self.func, self.rates = func, rates

    def forward(self, t: Tensor, state: Any, *u: Tensor) -> Any:
        """(f, integrands). u: of a signal."""
        return self.rates.of(lambda t, y: self.func(t, y, *u), t, state[0])


def _of_blocks(func: Any, z0: Tensor, layout: Layout, options: Options) -> Beside:
    """Of a Dynamics: kinetic energy is a further block, entry by entry of the others."""
    if not layout.single or z0.dim() < 2:
        raise ArgumentTypeError("y0 of a Dynamics must be one tensor [K, B, *S].")
    check_blocks(func, z0, "y0")
    per_sample, k = clocks_differ(options.stepping), len(z0)
    norm = norm_of(options.norm, layout, each(1, z0.dim()) if per_sample else ONE)

    def tolerance(name: str) -> Any:
        found = check_tolerance(getattr(options, name), name, z0, layout)
        if not isinstance(found, Tensor) or found.dim() < z0.dim() or len(found) == 1:
            return found
        return torch.cat((found, torch.ones_like(found[:1])))

    def parts(z: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """Of values [*T, K + 1, B, *S]."""
        axis = z.dim() - z0.dim()
        energy = z.select(axis, k)
        kept = energy.flatten(axis + 1).sum(axis + 1) if z0.dim() > 2 else energy
        return z.narrow(axis, 0, k), [kept if per_sample else energy.flatten(axis).sum(axis)]

    changed = dataclasses.replace(
        options, norm=lambda z: norm(z[:k]), rtol=tolerance("rtol"), atol=tolerance("atol")
    )
    start = torch.cat((z0, torch.zeros_like(z0[:1])))
    return Beside(_WithEnergy(func), start, changed, ("kinetic",), parts, lambda z: z[:k])


class _WithEnergy(Dynamics):
    """(F, Σ_k F_k²) on [K + 1, B, *S], the last block the energy of each entry; its VJP is F's at
    a + 2 F c, c the last block's cotangent."""

    def __init__(self, inner: Dynamics):
        self.inner = inner
        self.channels_last = getattr(inner, "channels_last", False)
        self.after, self.stands_for = getattr(inner, "after", None), inner

    def theta(self) -> tuple[Tensor, ...]:
        """What F depends on."""
        return tuple(self.inner.theta())

    def for_solve(self) -> Dynamics:
        """Of F's own for one solve."""
        return _WithEnergy(for_solve(self.inner))

    def forward(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """F, and its energy."""
        dz, saved = self.inner.forward(t, z[:-1])
        return torch.cat((dz, dz.square().sum(0, keepdim=True))), (saved, dz)

    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """Nothing depends on the energy."""
        own, dz = saved
        bar, deltas = self.inner.vjp(own, cotangent[:-1] + 2.0 * dz * cotangent[-1:])
        return torch.cat((bar, torch.zeros_like(bar[:1]))), deltas

    def parameter_gradients(
        self, saved: list[Any], deltas: list[Any], weights: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Those of F: the energy is in the cotangents."""
        return self.inner.parameter_gradients([own for own, _ in saved], deltas, weights)


def with_penalties(request: Request, problem: Problem, part: Part | None) -> Problem:
    """The problem with the penalties that are sums over its steps."""
    options = request.options
    if request.layout.paired:
        raise ArgumentTypeError(
            f"penalties={options.penalties!r} of a complex state: take its real and imaginary part as two."
        )
    walked = isinstance(options.gradient, Discrete) and torch.is_grad_enabled()
    own = (options.penalties, request.tableau, problem.clocks, problem.z0)
    return dataclasses.replace(problem, penalties=StepPenalties(*own, directions=walked, part=part))
