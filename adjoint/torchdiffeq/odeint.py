"""torchdiffeq's face: `odeint` and `odeint_adjoint`, same call, same meaning, same shapes."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn

from ...solvers.checks import (
    STATE_DTYPES,
    check_call,
    check_params,
    check_readable,
    check_state,
    check_times,
)
from ...solvers.errors import AdamodeWarning, ArgumentError, ArgumentTypeError, FaceArgumentError
from ...solvers.march.output import as_time
from ...solvers.solution import State
from ...solvers.solve import Settings
from ...solvers.stats import Stats
from ...solvers.step.clocks import norm_value
from ...solvers.step.field import COMPLEX, layout_of
from ..arguments import Tolerances, uncompiled
from ..continuous.stepping import ReverseWish
from ..dynamics.adapt import wrap
from ..dynamics.protocol import UNDRIVEN, check_after
from ..engine.differentiate import differentiate
from ..engine.problem import SharedProblem
from ..engine.transformed import refuse_gradient
from ..gradients import Backsolve, Direct
from .callbacks import observers
from .manners import face, warn_instead, warn_once
from .options import Call, own_options
from .until_event import until_event

NO_GRAPH = (
    "a gradient of adamode.odeint(…, method='scipy_solver') was asked for: scipy's steps leave torch, and "
    "autograd with it. Use adamode.odeint_adjoint, which solves the adjoint by the same solver, or another "
    "method; where no gradient is meant, torch.no_grad() or .detach()."
)
Func = Callable[[Tensor, Any], Any]
EventFn = Callable[[Tensor, Any], Tensor]


def _promoted(y0: Any) -> Any:
    """A tuple of single and double precision, of real and complex, has the wider dtype throughout, as
    torch.cat has it."""
    kinds = {x.dtype for x in y0 if isinstance(x, Tensor)} if isinstance(y0, tuple) else set()
    if len(kinds) < 2 or not kinds <= {*STATE_DTYPES, *COMPLEX}:
        return y0
    widest = functools.reduce(torch.promote_types, kinds)
    return tuple(x.to(widest) if isinstance(x, Tensor) else x for x in y0)


def _check_call(func: Func, y0: Any, t: Any) -> Call:
    check_call(func, "func", *UNDRIVEN)
    y0 = _promoted(y0)
    layout = layout_of(y0)
    z0 = layout.pack(y0)
    check_state(z0)
    if isinstance(t, Tensor) and t.device != z0.device:
        warnings.warn(f"t is on {t.device} and y0 on {z0.device}; t is moved.", AdamodeWarning, stacklevel=4)
        t = t.to(z0.device)
    if isinstance(t, Tensor) and t.dim() == 1 and t.numel() == 1 and t.dtype.is_floating_point:
        check_readable(t, "t")
        return Call(func, layout, z0, t, t.detach().double().tolist())  # the start alone
    times = check_times(t)
    check_after(func, times)
    return Call(func, layout, z0, t, times)


@overload
def odeint(
    func: Callable[[Tensor, State], Any],
    y0: State,
    t: Tensor,
    *,
    rtol: Tolerances = 1e-7,
    atol: Tolerances = 1e-9,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    event_fn: None = None,
) -> State: ...


@overload
def odeint(
    func: Callable[[Tensor, State], Any],
    y0: State,
    t: Tensor,
    *,
    rtol: Tolerances = 1e-7,
    atol: Tolerances = 1e-9,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    event_fn: EventFn,
) -> tuple[Tensor, State]: ...


@uncompiled
def odeint(
    func: Callable[[Tensor, State], Any],
    y0: State,
    t: Tensor,
    *,
    rtol: Tolerances = 1e-7,
    atol: Tolerances = 1e-9,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    event_fn: EventFn | None = None,
) -> Any:
    """Solves dy/dt = func(t, y), y(t[0]) = y0; differentiable through the steps.

    func: callable (t 0-d, y) → dy/dt.
    y0: tensor, or tuple of tensors.
    t: [T], strictly monotone.
    rtol, atol: number, tensor that broadcasts against y0, or one number a member.
    method: None is "dopri5"; all methods of torchdiffeq 0.2.5, and ours.
    options: as torchdiffeq's; see the migration table in the docs.
    event_fn: callable (t, y); the solve ends where it (any of its entries) changes sign. t is then (start,
        any time in the direction to go), and (event time, [y0, y there]) is returned.

    Returns [T, *y0.shape], or a tuple of such. It has derivatives of every order with respect to y0 and
    whatever func uses, first and second ones with respect to t; step sizes count as constants.
    Raises ValueError and TypeError subclasses for bad input, RuntimeError ones where the solve cannot
    go on (all AdamodeError, and AssertionError where torchdiffeq asserts).
    """
    with face():
        call = _check_call(func, y0, t)
        settings = call.settings(method, rtol, atol, own_options(options))
        return _answer(call, settings, options, event_fn)


@overload
def odeint_adjoint(
    func: Callable[[Tensor, State], Any],
    y0: State,
    t: Tensor,
    *,
    rtol: Tolerances = 1e-7,
    atol: Tolerances = 1e-9,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    event_fn: None = None,
    adjoint_rtol: Tolerances | None = None,
    adjoint_atol: Tolerances | None = None,
    adjoint_method: str | None = None,
    adjoint_options: Mapping[str, Any] | None = None,
    adjoint_params: Iterable[Tensor] | None = None,
) -> State: ...


@overload
def odeint_adjoint(
    func: Callable[[Tensor, State], Any],
    y0: State,
    t: Tensor,
    *,
    rtol: Tolerances = 1e-7,
    atol: Tolerances = 1e-9,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    event_fn: EventFn,
    adjoint_rtol: Tolerances | None = None,
    adjoint_atol: Tolerances | None = None,
    adjoint_method: str | None = None,
    adjoint_options: Mapping[str, Any] | None = None,
    adjoint_params: Iterable[Tensor] | None = None,
) -> tuple[Tensor, State]: ...


@uncompiled
def odeint_adjoint(
    func: Callable[[Tensor, State], Any],
    y0: State,
    t: Tensor,
    *,
    rtol: Tolerances = 1e-7,
    atol: Tolerances = 1e-9,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    event_fn: EventFn | None = None,
    adjoint_rtol: Tolerances | None = None,
    adjoint_atol: Tolerances | None = None,
    adjoint_method: str | None = None,
    adjoint_options: Mapping[str, Any] | None = None,
    adjoint_params: Iterable[Tensor] | None = None,
) -> Any:
    """`odeint` with the gradient by the continuous adjoint (backsolve): memory O(1) in the steps.

    func: an nn.Module, or any callable with adjoint_params.
    y0, t, rtol, atol, method, options, event_fn: as in `odeint`.
    adjoint_rtol, adjoint_atol, adjoint_method, adjoint_options: of the reverse solve; the forward ones where
        None (options without their norm). adjoint_options["norm"] is "seminorm" (the default here) or a
        callable of (t, y…, adj_y…, adj_params…).
    adjoint_params: the tensors whose gradients are wanted; None: all parameters of func.

    A second derivative raises SecondDerivativeError. Returns and raises as `odeint` does.
    """
    with face():
        if adjoint_params is None and not isinstance(func, nn.Module):
            raise ArgumentError(
                f"func is a {type(func).__name__}, not an nn.Module, so its parameters are unknown: name "
                "them, adjoint_params=(…,) (or () for none)."
            )
        if adjoint_method not in (None, method) and options is not None and adjoint_options is None:
            raise ArgumentError(
                f"adjoint_method={adjoint_method!r} differs from method={method!r}, so adjoint_options "
                "cannot be taken from options: give adjoint_options as well."
            )
        own = own_options(options)
        if adjoint_options is None:
            adjoint_options = {name: value for name, value in own.items() if name != "norm"}
        named = parameters_of(func) if adjoint_params is None else adjoint_params
        params = tuple(check_params(named, "adjoint_params"))
        call = _check_call(func, y0, t)
        settings = call.settings(method, rtol, atol, own)
        pairs = ((adjoint_method, method), (adjoint_rtol, rtol), (adjoint_atol, atol))
        chosen = [forward if back is None else back for back, forward in pairs]
        theirs = own_options(adjoint_options, "adjoint_options")
        reverse = _reverse(call, settings, chosen, theirs, params)
        return _answer(call, settings, options, event_fn, params, reverse)


@uncompiled
def odeint_event(
    func: Callable[[Tensor, State], Any],
    y0: State,
    t0: Tensor,
    *,
    event_fn: EventFn,
    reverse_time: bool = False,
    odeint_interface: Callable[..., Any] = odeint,
    **kwargs: Any,
) -> tuple[Tensor, State]:
    """Solves from t0 until event_fn(t, y) changes sign: (event time, [y0, y there]).

    func, y0: as in `odeint`.
    t0: the start, one time.
    event_fn: callable (t, y).
    reverse_time: time decreases.
    odeint_interface: `odeint` or `odeint_adjoint`.
    kwargs: go to it.

    Event time and state are differentiable with respect to y0, t0, func's parameters and event_fn's own.
    """
    with face():
        if not isinstance(t0, Tensor) or t0.numel() != 1 or not t0.dtype.is_floating_point:
            raise ArgumentTypeError(f"t0={t0!r} must be a floating-point tensor with one time.")
    start = t0.reshape(-1)
    t = torch.cat((start, start.detach() + (-1.0 if reverse_time else 1.0)))
    found: tuple[Tensor, State] = odeint_interface(func, y0, t, event_fn=event_fn, **kwargs)
    return found


def parameters_of(module: Any) -> list[Tensor]:
    """A module's parameters; in a DataParallel replica they are plain tensors under their names."""
    found: list[Tensor] = list(module.parameters())
    for inner in module.modules():
        found += getattr(inner, "_former_parameters", {}).values()
    return found


def _answer(
    call: Call,
    settings: Settings,
    options: Mapping[str, Any] | None,
    event_fn: EventFn | None,
    params: tuple[Tensor, ...] | None = None,
    reverse: ReverseWish | None = None,
) -> Any:
    """The result of both functions: the values at the times, or the event's time and the values there.

    reverse: of the continuous adjoint; without it the gradient is autograd's through the steps.
    """
    layout, z0, stats = call.layout, call.z0, Stats()
    if event_fn is not None:
        check_call(event_fn, "event_fn", "event_fn(t, y)")
    if len(call.times) == 1:
        return layout.unpack(z0[None].clone())

    def count() -> None:
        stats.nfe += 1

    start, told = as_time(call.times[0], z0), functools.partial(warn_once, "captured")
    plain, make_dynamics, autocast = wrap(call.func, layout, z0, start, params, count, told=told)
    problem = SharedProblem(
        *(plain, make_dynamics, z0, call.t, call.times, settings, autocast, stats),
        observers=observers(call.func, "", layout.unpack, settings),
        reverse=reverse or ReverseWish(),
    )
    if settings.foreign is not None and event_fn is not None:
        raise ArgumentError(
            "method='scipy_solver' looks for no event_fn: give another method, or call "
            "scipy.integrate.solve_ivp itself."
        )
    if settings.foreign is not None and reverse is None:
        return layout.unpack(_without_graph(problem))
    gradient = Backsolve() if reverse else Direct()
    if event_fn is None:
        return layout.unpack(differentiate(problem, gradient).values)
    size = (options or {}).get("step_size")
    return until_event(problem, layout, event_fn, gradient, None if size is None else float(size))


def _without_graph(problem: SharedProblem) -> Tensor:
    """The values of a solver that autograd cannot follow; a backward pass that asks for them raises."""
    values = differentiate(problem, None).values
    if not torch.is_grad_enabled():
        return values
    inputs = [problem.z0, problem.t, problem.plain(problem.start, problem.z0)]
    if not any(x.requires_grad for x in inputs):
        return values
    (tied,) = refuse_gradient([values], inputs, FaceArgumentError(NO_GRAPH))
    return tied


def _adjoint_state(za: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The reverse solve's state for a callback: (0, y, adj_y), packed; the places they have there."""
    return za.new_zeros(()), za[0], za[1]


def _reverse(
    call: Call, forward: Settings, chosen: Sequence[Any], options: dict[str, Any], params: tuple[Tensor, ...]
) -> ReverseWish:
    """What a reverse solve is to be, from its own arguments. chosen: method, rtol and atol."""
    norm = options.pop("norm", "seminorm")
    if not callable(norm) and norm != "seminorm":
        raise ArgumentError(f"adjoint_options['norm']={norm!r} must be 'seminorm' or a callable.")
    method, rtol, atol = chosen
    settings = call.settings(method, rtol, atol, options, "adjoint_")
    found = ReverseWish(
        dataclasses.replace(settings, norm=forward.norm),
        observers(call.func, "_adjoint", _adjoint_state, settings),
        complain=warn_instead,
        guard=face,
    )
    if not callable(norm):
        return found
    check_call(norm, "adjoint_options['norm']", "norm(state)")
    if any(not p.requires_grad for p in params):
        warnings.warn(
            "adjoint_params holds a tensor that needs no gradient; it is left out of the reverse solve and "
            "of adjoint_options['norm'].",
            AdamodeWarning,
            stacklevel=5,
        )

    def in_users_shapes(z: Tensor, a: Tensor, theta: list[Tensor]) -> Tensor:
        time = z.new_zeros(())
        size = norm((time, *call.layout.leaves(z), *call.layout.leaves(a), *theta))
        return norm_value(size, (), z)

    return dataclasses.replace(found, theta_norm=in_users_shapes)
