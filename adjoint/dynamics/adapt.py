"""The user's func or Dynamics as the engine wants it, its results checked."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ...solvers.checks import check_call, check_params, check_unfollowed
from ...solvers.errors import (
    AdamodeError,
    AdamodeWarning,
    ArgumentError,
    DynamicsError,
    NotRepeatableError,
)
from ...solvers.march.output import Step
from ...solvers.march.samples import SampleStep
from ...solvers.stats import Stats
from ...solvers.step.clocks import distance, unlike
from ...solvers.step.field import Autocast, Layout, PackedFunction, check_derivative, transformed, widened
from .by_autograd import AutogradDynamics, Captured, discover_parameters
from .driven import Driven, DrivenDynamics, DrivenFunction
from .packed import PackedDynamics
from .protocol import DRIVEN, UNDRIVEN, Dynamics, LeafDynamics, PerSolve
from .twice import TwiceDynamics

Plain = Callable[[Tensor, Tensor], Tensor]
F = TypeVar("F", Dynamics, LeafDynamics)


def wrap(
    func: Callable[[Tensor, Any], Any] | Dynamics | Driven,
    layout: Layout,
    z0: Tensor,
    first_time: Tensor,
    params: Iterable[Tensor] | None,
    count: Callable[[], None],
    *,
    told: Callable[[str], None] | None = None,
) -> tuple[Plain, Callable[[], Dynamics], Autocast]:
    """(f on the packed state, what makes its Dynamics, the autocast state).

    first_time: the start as func wants it, for the evaluation that finds func's parameters.
    count: counts that evaluation.
    told: takes what is said of gradients that the adjoint would miss, in place of an error; results of
        another floating dtype are then converted (torchdiffeq's manners).
    """
    autocast, started = Autocast(z0.device), None
    if isinstance(func, Dynamics):
        checked = CheckedDynamics(func, autocast)
        in_solve = lambda: CheckedDynamics(for_solve(func), autocast, alone=transformed())  # noqa: E731
        return lambda t, z: checked.forward(t, z)[0], in_solve, autocast
    driven, func = (func, func.func) if isinstance(func, Driven) else (None, func)
    check_call(func, "func", *(UNDRIVEN if driven is None else DRIVEN))
    if isinstance(func, PerSolve):
        started = func.at_start(layout.time(first_time), layout.unpack(z0.detach()))
        func = started.func
        for _ in range(started.spent):
            count()
    packed = PackedFunction(func, layout, autocast, told is not None)
    named = None if params is None else check_params(params)
    f, alone, apart = _functions(packed, driven)
    kind: Callable[..., Dynamics] = AutogradDynamics if driven is None else DrivenDynamics
    if started is not None and started.traced is not None and not transformed():
        lean = PackedFunction(started.traced.func, layout, autocast, told is not None)
        kind = functools.partial(TwiceDynamics, lean=lean, layout=layout, traced=started.traced)

    def missed(found: Captured) -> None:
        """Says that the adjoint would leave out gradients which autograd has.

        Parameters of func that the caller did not name in params are left out on purpose.
        """
        own = {id(p) for p in func.parameters()} if isinstance(func, nn.Module) else set()
        found = Captured([leaf for leaf in found.leaves if id(leaf) not in own], found.foreign)
        if not found.leaves and found.foreign is None:
            return
        text = _missed_text(found, func)
        if params is None and told is None:
            raise ArgumentError(text)
        if told is not None:
            told(text)
        else:
            warnings.warn(text, AdamodeWarning, stacklevel=2)

    def make_dynamics() -> Dynamics:
        by_hand = None if started is None else started.by_hand
        if by_hand is not None and named is None and not autocast.enabled and not transformed():
            return PackedDynamics(for_solve(by_hand), layout)
        own = list(func.parameters()) if named is None and isinstance(func, nn.Module) else named
        if own is not None:
            return kind(alone, own, autocast, missed)
        count()
        return kind(alone, discover_parameters(apart, first_time, z0), autocast, None)

    return f, make_dynamics, autocast


def _functions(packed: PackedFunction, driven: Driven | None) -> tuple[Any, Any, Plain]:
    """f, the same where no transform is to follow it, and without a graph to a signal's samples."""
    if driven is not None:
        f = DrivenFunction(packed, driven.reader)
        return f, DrivenFunction(packed, driven.reader, alone=transformed()), f.apart
    alone: Any = packed
    if transformed():
        alone = lambda t, z: check_unfollowed(packed(t, z))  # noqa: E731
    return packed, alone, packed


def _missed_text(found: Captured, func: Any) -> str:
    """The tensors of func's graph that the adjoint does not see, and the way out."""
    if found.foreign is not None:
        what = f"a tensor that was computed outside it (by {found.foreign})"
    else:
        what = "; ".join(describe(leaf, func) for leaf in found.leaves[:3])
    return (
        f"func uses {what}, which needs a gradient but is not among its parameters: the adjoint gives it "
        "none. Name all of func's parameters: params=[…] (adjoint_params of odeint_adjoint), or use "
        "gradient=adamode.Direct() (adamode.odeint), or detach it."
    )


@torch.no_grad()
def for_solve(func: F) -> F:
    """The dynamics as it is used in one solve whose steps autograd does not follow."""
    find = getattr(func, "for_solve", None)  # one that only has the four methods need not have it
    found: F = func if find is None else find()
    return found


class CheckedDynamics(Dynamics):
    """A user's Dynamics, with the shapes of its results checked and its autocast state restored.

    alone: no transform of torch.func, nor forward-mode AD, is to follow its values, which is checked.
    """

    def __init__(self, inner: Dynamics, autocast: Autocast, *, alone: bool = False):
        self.inner, self.autocast, self.alone = inner, autocast, alone
        self._theta: tuple[Tensor, ...] | None = None

    def theta(self) -> tuple[Tensor, ...]:
        """The inner one's, asked for once a solve: listing a module's parameters takes 40 µs."""
        if self._theta is None:
            self._theta = tuple(self.inner.theta())
        return self._theta

    def forward(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """The inner one's, dz checked."""
        if self.autocast.enabled:
            with self.autocast.inside():
                dz, saved = self.inner.forward(t, z)
        else:
            dz, saved = self.inner.forward(t, z)
        dz = check_derivative(dz, z, self.autocast.enabled)
        return (check_unfollowed(dz) if self.alone else dz), saved

    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """The inner one's, z̄ checked."""
        if self.autocast.enabled:
            with self.autocast.inside():
                z_bar, deltas = self.inner.vjp(saved, cotangent)
        else:
            z_bar, deltas = self.inner.vjp(saved, cotangent)
        if not isinstance(z_bar, Tensor) or z_bar.shape != cotangent.shape:
            found = tuple(z_bar.shape) if isinstance(z_bar, Tensor) else type(z_bar).__name__
            raise DynamicsError(
                f"{type(self.inner).__name__}.vjp returned {found} for the state's cotangent; it must "
                f"have the state's shape {tuple(cotangent.shape)}."
            )
        return (z_bar if z_bar.dtype is cotangent.dtype else z_bar.to(cotangent.dtype)), deltas

    def parameter_gradients(
        self, saved: list[Any], deltas: list[Any], weights: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """The inner one's, number and shapes checked."""
        returned = self.inner.parameter_gradients(saved, deltas, weights)
        return checked_gradients(self.inner, returned, self.theta(), DynamicsError)


def checked_gradients(
    dynamics: Dynamics, returned: Any, theta: Sequence[Tensor], error: type[AdamodeError]
) -> tuple[Tensor | None, ...]:
    """What parameter_gradients returned, its number and shapes checked. error: what is raised."""
    name = f"{type(dynamics).__name__}.parameter_gradients"
    wanted = "one gradient for each tensor of theta(), in that order (None for zero)"
    if not isinstance(returned, (tuple, list)):
        raise error(f"{name} returned a {type(returned).__name__}; it must return a tuple, {wanted}.")
    if len(returned) != len(theta):
        found = f"{len(returned)} gradients for the {len(theta)} tensors of theta()"
        raise error(f"{name} returned {found}: {wanted}.")
    for i, (gradient, p) in enumerate(zip(returned, theta, strict=True)):
        if gradient is not None and not isinstance(gradient, Tensor):
            raise error(f"{name}: entry {i} is a {type(gradient).__name__}; it must be {wanted}.")
        if gradient is not None and gradient.shape != p.shape:
            raise error(
                f"{name}: entry {i} has shape {tuple(gradient.shape)}, but theta()[{i}] has "
                f"{tuple(p.shape)}: keep the order of theta()."
            )
    return tuple(returned)


APART = ("which per-sample stepping must keep apart", ", or stepping='shared'")


def check_independent_samples(func: Any, said: tuple[str, str] = APART) -> None:
    """Refuses what makes samples depend on each other: BatchNorm in training mode.

    said: why that is wrong, and a further way out.
    """
    why, way = said
    owner = getattr(func, "__self__", func)  # of a bound method
    modules = owner.named_modules() if isinstance(owner, nn.Module) else ()
    for name, module in modules:
        if not isinstance(module, nn.modules.batchnorm._BatchNorm):
            continue
        if module.training or not module.track_running_stats:
            mode = "in training mode" if module.training else "without running statistics"
            raise ArgumentError(
                f"{f'func.{name}' if name else 'func'} is a {type(module).__name__} {mode}: it mixes the "
                f"samples, {why}. Use GroupNorm or LayerNorm, running statistics with func.eval(){way}."
            )


def describe(tensor: Tensor, func: Callable[..., Any]) -> str:
    """The tensor's name in func's closure or globals where it has one, and its shape."""
    for name, value in _surroundings(func):
        held = value.named_parameters(prefix=name) if isinstance(value, nn.Module) else [(name, value)]
        for own, p in held:
            if p is tensor:
                return f"{own}, shape {tuple(tensor.shape)}"
    return f"a tensor of shape {tuple(tensor.shape)}"


def _surroundings(func: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """Names and values that func can see outside itself."""
    target = func.forward if isinstance(func, nn.Module) else func
    try:
        seen = inspect.getclosurevars(getattr(target, "__func__", target))
    except TypeError:
        return
    yield from seen.nonlocals.items()
    yield from seen.globals.items()
    owner = getattr(target, "__self__", None)
    if owner is not None:
        yield from (("self." + name, value) for name, value in vars(owner).items())


def tell(dynamics: Dynamics, index: Tensor | None) -> None:
    """Says which samples the next evaluations are of (None: all) to a dynamics with something of each."""
    present = getattr(dynamics, "present", None)
    if present is not None:
        present(index)


# θ's gradients of so many stages are one call, if their states have so many entries at most: five steps at
# once take 0.16 ms for 0.51 with states of 24 entries; with 6144 what waits leaves the cache (8.1 for 5.8).
TOGETHER, WAITING = 48, 2**15


def stages_together(dynamics: Dynamics, z: Tensor) -> int:
    """How many stages `parameter_gradients` is worth waiting for, with states like z."""
    if isinstance(dynamics, AutogradDynamics):  # each stage's gradients are there with its VJP
        return 1
    return max(1, min(TOGETHER, WAITING // max(z.numel(), 1)))


class ThetaSum:
    """dL/dθ as a sum over stages, outside the integrator's state; parameters that get none stay zero.

    wanted: False skips all work (no parameter needs a gradient).
    together: stages without weights wait until they are so many.
    """

    def __init__(self, dynamics: Dynamics, *, wanted: bool = True, together: int = 1):
        self.dynamics, self.wanted, self.together = dynamics, wanted, together
        self.waiting: tuple[list[Any], list[Any]] = ([], [])
        self.totals: list[Tensor | None] = [None] * len(dynamics.theta())

    def add(self, saved: list[Any], deltas: list[Any], weights: Tensor | None = None) -> None:
        """Adds Σ wᵢ (∂F/∂θ)ᵀaᵢ of one step's stages."""
        if not self.wanted or not self.totals or not saved:
            return
        if weights is None and self.together > 1:
            for own, more in zip(self.waiting, (saved, deltas), strict=True):
                own += more
            if len(self.waiting[0]) < self.together:
                return
            (saved, deltas), self.waiting = self.waiting, ([], [])
        self.add_gradients(self.dynamics.parameter_gradients(saved, deltas, weights))

    def add_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        """Adds what is a gradient of θ already, in the order of `theta`."""
        for i, gradient in enumerate(gradients):
            if gradient is not None and gradient.is_sparse:  # of some rows, some of them twice
                total = self.totals[i]
                if total is None:
                    total = self.totals[i] = widened(torch.zeros_like(self.dynamics.theta()[i]))
                total.index_add_(0, gradient._indices()[0], widened(gradient._values()))
            elif gradient is not None:
                total = self.totals[i]
                # The first is not ours to write into: it may share memory with what f saved.
                self.totals[i] = widened(gradient.clone()) if total is None else total.add_(gradient)

    def result(self) -> list[Tensor]:
        """One gradient for each of θ."""
        (saved, deltas), self.waiting, self.together = self.waiting, ([], []), 1
        self.add(saved, deltas)
        theta = self.dynamics.theta()
        pairs = zip(theta, self.totals, strict=True)
        return [torch.zeros_like(p) if total is None else total.to(p.dtype) for p, total in pairs]


Complain = Callable[[NotRepeatableError], None]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One evaluation of func: its value k at (time, z); index: of which samples, None: all."""

    time: Tensor
    z: Tensor
    k: Tensor
    index: Tensor | None = None

    def check(self, dynamics: Dynamics, stats: Stats, complain: Complain) -> None:
        """Evaluates func there once more; one host read. Rounding of another order of sums is allowed."""
        stats.nfe_recomputed += 1
        tell(dynamics, self.index)
        again, _ = dynamics.forward(self.time, self.z)
        tell(dynamics, None)
        refuse_unlike(float(distance(again, self.k)), self.k.dtype, complain)  # host read


def last_evaluation(step: Step | SampleStep) -> Evaluation:
    """The last evaluation of an accepted step, in memory of its own.

    A sample that did not accept the step has the evaluation of its first stage.
    """
    stages = step.result.stages
    if isinstance(step, SampleStep):
        n, clocks, accepted = step.tableau.n_stages, step.clocks, step.accepted
        time = torch.where(accepted.view(step.times[0].shape), step.times[n - 1], step.times[0])
        z = clocks.choose(accepted, step.result.y1, step.y0)
        return Evaluation(time, z, clocks.choose(accepted, stages.get(n - 1), step.first), step.index)
    n = step.tableau.n_stages
    if len(step.saved) < n:  # a fixed grid's last step does not evaluate its end
        return Evaluation(step.times[0], step.y0, stages.get(0).clone())
    return Evaluation(step.times[n - 1], step.y1, step.last[0].clone())


class LastEvaluation:
    """One evaluation of func, the last of a solve, for adjoints that will evaluate stages anew.

    The slopes of an implicit step are what its equations say, and a leapfrog's are velocities: no values of
    func but for the very first. The step after such a step begins with one.
    """

    def __init__(self) -> None:
        self.kept: Evaluation | None = None
        self.solved = False  # whether there was an implicit step

    def see(self, step: Step | SampleStep) -> None:
        """An accepted step, or an attempt of all samples."""
        self.solved = self.solved or step.result.solved is not None or step.tableau.leapfrog
        if not self.solved:
            self.kept = last_evaluation(step)
        elif self.kept is None:
            first, index = step.result.stages.get(0), None
            if isinstance(step, SampleStep):
                first, index = step.first, step.index
            self.kept = Evaluation(step.times[0], step.y0, first.clone(), index)

    def check(self, dynamics: Dynamics, stats: Stats, complain: Complain) -> None:
        """`Evaluation.check`, where a step was taken."""
        if self.kept is not None:
            self.kept.check(dynamics, stats, complain)


def refuse_unlike(off: float, dtype: torch.dtype, complain: Complain) -> None:
    """Complains where two evaluations at one place differ by more than rounding.

    off: the difference, relative to the value.
    """
    if unlike(off, dtype):
        complain(NotRepeatableError(off))
