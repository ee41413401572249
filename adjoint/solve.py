"""`adamode.solve`: checks at the door, then the engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..solvers.checks import (
    check_derivative,
    check_positive,
    check_resolution,
    check_state,
    check_times,
    check_tolerance,
)
from ..solvers.controller import PID
from ..solvers.errors import ArgumentError, ArgumentTypeError, nearest
from ..solvers.field import Autocast, PackedFunction
from ..solvers.loop import Stats
from ..solvers.methods import get_method
from ..solvers.norms import Norm, Tolerance, largest, maximum, rms
from ..solvers.solution import Solution
from ..solvers.solve import Settings
from ..solvers.state import Layout, layout_of
from ..solvers.stepper import clock
from .autograd_dynamics import AutogradDynamics, discover_parameters
from .dynamics import Dynamics
from .engine import Problem, differentiate
from .gradient import Backsolve, Direct, Discrete, Gradient

Times = Sequence[float] | Tensor | None


def solve(
    func: Callable[[Tensor, Any], Any] | Dynamics,
    y0: Any,
    t: Tensor,
    *,
    method: str = "dopri5",
    rtol: Any = 1e-5,
    atol: Any = 1e-7,
    stepping: str = "shared",
    gradient: Gradient | None = Discrete(),  # noqa: B008  (frozen)
    controller: PID = PID(),  # noqa: B008  (frozen)
    dt0: float | None = None,
    max_steps: int = 100_000,
    step_at: Times = None,
    jump_at: Times = None,
    norm: str | Callable[[Any], Tensor] = "rms",
    params: Iterable[Tensor] | None = None,
    dt: float | None = None,
    **unknown: Any,
) -> Solution:
    """Solves dy/dt = func(t, y), y(t[0]) = y0, and returns y at every t.

    func: callable (t 0-d, y) → dy/dt in y's structure, or a `Dynamics` with y0 [K, B, *S].
    y0: tensor of float32 or float64, or a pytree of such.  t: [T], strictly monotone, either way.
    rtol, atol: number, tensor that broadcasts against y0, or one number a member.
    gradient: Discrete(), Backsolve(), Direct() or None (the result is detached).
    controller: step size control.  dt0: first |dt| (default: Hairer's estimate).
    max_steps: limit on attempts.  step_at, jump_at: times to hit; at jump_at func is discontinuous.
    norm: "rms", "max", or a callable of the state's structure that returns a 0-d tensor.
    params: what gradients are wanted for; None: a Module's parameters, or for another callable the
    leaves that its graph reaches.  dt: a fixed |dt| instead of adaptive steps.

    Raises ArgumentError or ArgumentTypeError for bad input, DynamicsError for what func returns,
    SolverError where the solve cannot go on.
    """
    if unknown:
        name = next(iter(unknown))
        raise ArgumentTypeError(f"solve got an unknown argument {name!r}: {nearest(name, _KNOWN)}")
    if stepping != "shared":
        raise ArgumentError(f"stepping={stepping!r} is not known: {nearest(stepping, ['shared'])}")
    if gradient is not None and not isinstance(gradient, (Discrete, Backsolve, Direct)):
        raise ArgumentTypeError(f"gradient={gradient!r} must be Discrete(), Backsolve(), Direct() or None.")
    layout = layout_of(y0)
    z0 = layout.pack(y0)
    check_state(z0)
    if isinstance(func, Dynamics) and not layout.single:
        raise ArgumentTypeError("y0 of a Dynamics must be one tensor [K, B, *S].")
    times = check_times(t, z0)
    tableau = get_method(method)
    if dt is None and not tableau.adaptive:
        raise ArgumentError(f"method={method!r} has no error estimate: give a fixed step, dt=….")
    for name, value in (("dt0", dt0), ("dt", dt)):
        if value is not None:
            check_positive(value, name)
    check_positive(max_steps, "max_steps", integer=True)
    if not isinstance(controller, PID):
        raise ArgumentTypeError(f"controller={controller!r} must be an adamode.PID, PI() or I().")
    tolerance = Tolerance(
        check_tolerance(rtol, "rtol", z0, layout), check_tolerance(atol, "atol", z0, layout)
    )
    check_resolution(tolerance.rtol, "rtol", z0.dtype)
    settings = Settings(
        tableau,
        tolerance,
        norm_of(norm, layout),
        controller,
        dt0=dt0,
        dt=dt,
        max_steps=max_steps,
        step_at=check_stops(step_at, "step_at"),
        jump_at=check_stops(jump_at, "jump_at"),
    )
    problem = make_problem(func, z0, t, times, layout, settings, params, cast=False)
    answer = differentiate(problem, gradient)
    return Solution(t, layout.unpack(answer.values), answer.status, problem.stats)


_KNOWN = ("method", "rtol", "atol", "stepping", "gradient", "controller", "dt0", "max_steps", "step_at")
_KNOWN += ("jump_at", "norm", "params", "dt")


def make_problem(
    func: Callable[[Tensor, Any], Any] | Dynamics,
    z0: Tensor,
    t: Tensor,
    times: Sequence[float],
    layout: Layout,
    settings: Settings,
    params: Iterable[Tensor] | None,
    *,
    cast: bool,
    **more: Any,
) -> Problem:
    """The engine's problem for a user's func or Dynamics on a packed state."""
    autocast = Autocast(z0.device)
    if isinstance(func, Dynamics):
        dynamics = CheckedDynamics(func, autocast)
        plain: Callable[[Tensor, Tensor], Tensor] = lambda t, z: dynamics.forward(t, z)[0]  # noqa: E731
        return Problem(plain, lambda: dynamics, z0, t, times, settings, autocast, Stats(), **more)
    if not callable(func):
        raise ArgumentTypeError(f"func is a {type(func).__name__}; it must be callable as func(t, y).")
    packed = PackedFunction(func, layout, autocast, cast)
    stats = Stats()

    def make_dynamics() -> Dynamics:
        if params is not None:
            wanted = list(params)
        elif isinstance(func, nn.Module):
            wanted = list(func.parameters())
        else:
            stats.nfe += 1
            wanted = discover_parameters(packed, clock(times[0], z0), z0)
        return AutogradDynamics(packed, wanted, autocast)

    return Problem(packed, make_dynamics, z0, t, times, settings, autocast, stats, **more)


class CheckedDynamics(Dynamics):
    """A user's Dynamics, with the shapes of what it returns checked and its autocast state restored."""

    def __init__(self, inner: Dynamics, autocast: Autocast):
        self.inner, self.autocast = inner, autocast

    def theta(self) -> tuple[Tensor, ...]:
        """The inner one's."""
        return tuple(self.inner.theta())

    def forward(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """The inner one's, dz checked."""
        with self.autocast.inside():
            dz, saved = self.inner.forward(t, z)
        return check_derivative(dz, z, self.autocast.enabled), saved

    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """The inner one's, z̄ checked."""
        with self.autocast.inside():
            z_bar, deltas = self.inner.vjp(saved, cotangent)
        return check_vjp_result(z_bar, cotangent, self.inner), deltas

    def parameter_gradients(
        self, saved: list[Any], deltas: list[Any], weights: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """The inner one's, number and shapes checked."""
        theta = self.theta()
        gradients = tuple(self.inner.parameter_gradients(saved, deltas, weights))
        name = type(self.inner).__name__
        if len(gradients) != len(theta):
            raise ArgumentError(
                f"{name}.parameter_gradients returned {len(gradients)} gradients for the {len(theta)} "
                "tensors of theta(): one for each, in that order (None for zero)."
            )
        for i, (gradient, p) in enumerate(zip(gradients, theta, strict=True)):
            if gradient is not None and gradient.shape != p.shape:
                raise ArgumentError(
                    f"{name}.parameter_gradients: entry {i} has shape {tuple(gradient.shape)}, but "
                    f"theta()[{i}] has {tuple(p.shape)}: keep the order of theta()."
                )
        return gradients


def check_vjp_result(z_bar: Any, cotangent: Tensor, dynamics: Dynamics) -> Tensor:
    """The state's cotangent, which must look like the state."""
    if not isinstance(z_bar, Tensor) or z_bar.shape != cotangent.shape:
        found = tuple(z_bar.shape) if isinstance(z_bar, Tensor) else type(z_bar).__name__
        raise ArgumentError(
            f"{type(dynamics).__name__}.vjp returned {found} for the state's cotangent; it must have "
            f"the state's shape {tuple(cotangent.shape)}."
        )
    return z_bar.to(cotangent.dtype)


def norm_of(norm: str | Callable[[Any], Tensor], layout: Layout) -> Norm:
    """The error norm on the packed state. For a pytree "rms" is the largest of its leaves' RMS."""
    if callable(norm):
        return lambda z: norm(layout.unpack(z))
    if norm == "max":
        return maximum
    if norm != "rms":
        raise ArgumentError(f"norm={norm!r} is not known: {nearest(str(norm), ['rms', 'max'])}")
    if layout.single:
        return rms
    return lambda z: largest([rms(leaf) for leaf in layout.leaves(z) if leaf.numel()])


def check_stops(times: Times, name: str) -> tuple[float, ...]:
    """Times to hit, as floats."""
    if times is None:
        return ()
    values = torch.as_tensor(times, dtype=torch.float64).reshape(-1).tolist()
    for i, value in enumerate(values):
        if not math.isfinite(value):
            raise ArgumentError(f"{name}[{i}] is {value}: times must be finite.")
    return tuple(values)
