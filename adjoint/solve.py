"""`adamode.solve`: checks at the door, then the engine."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeVar, overload

import torch
from torch import Tensor

from ..solvers.checks import check_constant, check_positive, check_sample_times, check_times
from ..solvers.errors import ArgumentError, ArgumentTypeError
from ..solvers.march.event import Event, Impulse, resets
from ..solvers.march.events import EventWatch, SampleEvents
from ..solvers.march.grid import uniform_grid
from ..solvers.march.output import as_time
from ..solvers.march.samples import SampleSettings, Together, ends_of
from ..solvers.solution import Solution, State
from ..solvers.solve import Settings, Wish
from ..solvers.stats import Stats
from ..solvers.status import Status
from ..solvers.step.clocks import ONE, Each, each, norm_of, sent
from ..solvers.step.controller import PID
from ..solvers.step.groups import Groups
from ..solvers.trace import Trace
from .arguments import (
    Func,
    Grouping,
    LinearSolver,
    NormName,
    Options,
    Penalty,
    Request,
    Save,
    Times,
    Tolerances,
    check_groups,
    clocks_differ,
    coupling_of,
    named_arguments,
    needs_jacobian,
    read_request,
    uncompiled,
)
from .discrete.penalties import Part
from .dynamics.adapt import check_independent_samples, wrap
from .dynamics.driven import Driven
from .dynamics.jacobian import UserJacobian, jacobian_of
from .dynamics.protocol import Dynamics, check_after
from .engine.dense import DenseQuery, questions
from .engine.differentiate import Answer, differentiate
from .engine.event_gradient import events_of
from .engine.problem import Problem, SampleProblem, SharedProblem, Speed
from .gradients import Discrete, Gradient
from .inputs import own_stops, under_signal, with_kinks
from .penalties import beside, check_together, integrals_in, with_penalties
from .resets.chain import solve_with_resets
from .signals.signal import Signal

P = TypeVar("P", SharedProblem, SampleProblem)


# One signature a stepping: a checker then knows whether status and counts are numbers or tensors, and what
# needs steps per sample. A test holds the three alike.
@overload
def solve(
    func: Func[State],
    y0: State,
    t: Tensor,
    *,
    method: str = "dopri5",
    rtol: Tolerances = 1e-5,
    atol: Tolerances = 1e-7,
    stepping: Literal["shared"] = "shared",
    gradient: Gradient | None = Discrete(),  # noqa: B008  (frozen)
    controller: PID = PID(),  # noqa: B008  (frozen)
    dt0: float | None = None,
    max_steps: int = 100_000,
    step_at: Times = None,
    jump_at: Times = None,
    events: Sequence[Event | Impulse] | Event | Impulse = (),
    dense: bool = False,
    trace: bool = False,
    norm: NormName | Callable[[Any], Tensor] = "rms",
    params: Iterable[Tensor] | None = None,
    save: Save = "times",
    dt: float | None = None,
    compact: Literal[False] = False,
    sync_every: int = 1,
    compile: bool = False,
    jac: UserJacobian | None = None,
    linear_solver: LinearSolver = "lu",
    penalties: Sequence[Penalty] = (),
    signal: Signal | None = None,
) -> Solution[State, Status, int, float]: ...


@overload
def solve(
    func: Func[State],
    y0: State,
    t: Tensor,
    *,
    method: str = "dopri5",
    rtol: Tolerances = 1e-5,
    atol: Tolerances = 1e-7,
    stepping: Literal["per_sample"] | Tensor,
    gradient: Gradient | None = Discrete(),  # noqa: B008  (frozen)
    controller: PID = PID(),  # noqa: B008  (frozen)
    dt0: float | Tensor | None = None,
    max_steps: int = 100_000,
    step_at: Times = None,
    jump_at: Times = None,
    events: Sequence[Event | Impulse] | Event | Impulse = (),
    dense: bool = False,
    trace: bool = False,
    norm: NormName | Callable[[Any], Tensor] = "rms",
    params: Iterable[Tensor] | None = None,
    save: Save = "times",
    dt: float | None = None,
    compact: bool = False,
    sync_every: int = 1,
    compile: bool = False,
    jac: UserJacobian | None = None,
    linear_solver: LinearSolver = "lu",
    penalties: Sequence[Penalty] = (),
    signal: Signal | None = None,
) -> Solution[State, Tensor, Tensor, Tensor]: ...


@uncompiled
@named_arguments
def solve(
    func: Func[State],
    y0: State,
    t: Tensor,
    *,
    method: str = "dopri5",
    rtol: Tolerances = 1e-5,
    atol: Tolerances = 1e-7,
    stepping: Grouping = "shared",
    gradient: Gradient | None = Discrete(),  # noqa: B008  (frozen)
    controller: PID = PID(),  # noqa: B008  (frozen)
    dt0: float | Tensor | None = None,
    max_steps: int = 100_000,
    step_at: Times = None,
    jump_at: Times = None,
    events: Sequence[Event | Impulse] | Event | Impulse = (),
    dense: bool = False,
    trace: bool = False,
    norm: NormName | Callable[[Any], Tensor] = "rms",
    params: Iterable[Tensor] | None = None,
    save: Save = "times",
    dt: float | None = None,
    compact: bool = False,
    sync_every: int = 1,
    compile: bool = False,
    jac: UserJacobian | None = None,
    linear_solver: LinearSolver = "lu",
    penalties: Sequence[Penalty] = (),
    signal: Signal | None = None,
) -> Solution:
    """Solves dy/dt = func(t, y), y(t[0]) = y0, and returns y at every t.

    func: callable (t, y) → dy/dt in y's structure, or a `Dynamics` with y0 [K, B, *S]. t is 0-d; in
        per-sample stepping [B, 1, …, 1] with y0's dimensions (for a Dynamics: those of a block).
    y0: tensor of float32 or float64, complex64 or complex128, bfloat16 or float16 (func computes in half
        precision and gets t in float32, as are the steps), or a pytree of such.
    t: [T], strictly monotone, either way; per sample also [B, T]; on any device (dL/dt, sol.t and
        sol.t_events are there, all else with y0).
    rtol, atol: number, tensor that broadcasts against y0, or one number a member.
    method: an explicit, implicit or Rosenbrock method (docs/methods.md), or "auto": dopri5 while its
        stability allows the steps, radau5 where it does not, changed on each clock by itself.
    stepping: "shared" (one step size), "per_sample" (one for each sample; samples must not depend on each
        other), or integers [B]: samples with the same number share their steps, the error norm is over them,
        and all else is as per sample.
    gradient: Discrete(), Interpolating(), Backsolve(), Direct(), Reversible(), or None (the result is
        detached).
    controller: step size control.
    dt0: first |dt| (default: Hairer's estimate; per sample also [B]).
    max_steps: limit on attempts.
    step_at, jump_at: times to hit, [n], or per sample [B, n] with each its own; at jump_at func is
        discontinuous.
    norm: "rms", "max", "blocks" (the largest RMS of the blocks of a [K, …] state, or of a pytree's leaves),
        or a callable of the state's structure that returns a 0-d tensor ([B] per sample).
    params: the tensors whose gradients are wanted; None: a Module's parameters, or for another callable the
        leaves that its graph reaches.
    dt: a fixed |dt| instead of adaptive steps.
    events: `Event`s to watch, and `Impulse`s; a reset of either changes the state, and the solve goes on.
    dense: sol(t) gives y at any time.
    trace: one row an attempt.
    save: y at "times", at all accepted "steps", or at the "end" only.
    compact: per sample, func sees only the samples still under way; it must hold no data of its own for each
        sample (those of a signal are the ones it sees).
    sync_every: attempts that are queued on the device before the host looks once; the steps are the same.
    compile: the solve and its way back are native programs, kept for later processes (docs/cache.md); where
        that cannot be, programs of `torch.compile`, an attempt each, or sync_every attempts. func must be a
        Dynamics or an nn.Module on one tensor; what cannot be compiled is solved without, with an
        AdamodeWarning.
    jac: of an implicit method: callable (t, y) → df/dy, [n, n] for a state [n], [B, n, n] for a batch of
        independent states with n entries each (row i: of entry i); of a Dynamics each sample's n = K · |S|
        entries. None: the dynamics' own `jacobian`, or func is differentiated, in forward mode where it can.
    linear_solver: of kvaerno3 and kvaerno5: "lu" factors a matrix of n × n numbers a sample; "gmres" makes
        none, and takes products of df/dy by func's forward mode: for states of many numbers.
    penalties: the numbers that `sol.penalty(name)` gives, differentiable (docs/penalties.md): "kinetic", ∫
        |f|² |dt|; "jacobian", ∫ |εᵀ ∂f/∂y|² |dt| with a Gaussian ε drawn once; "error", Σ E_j |h_j| over
        accepted steps, E_j the RMS of the local error estimate; "stiffness", Σ of estimates of the largest
        |eigenvalue|.
    signal: an input: func(t, y, u), and jac(t, y, u), are given u(t), […, U], in y0's dtype; per sample
        [B, …, U] at each sample's time. Steps end on the signal's times. Its values are parameters of the
        solve, and get their gradient.

    Raises ArgumentError or ArgumentTypeError for bad input, DynamicsError for what func returns, and
    with shared steps SolverError where the solve cannot go on. Per sample nothing is raised for a
    sample: its status says how it ended and what was not computed is NaN.
    """
    given = locals()
    options = Options(**{name: given[name] for name in Options.__dataclass_fields__})
    if options.penalties:
        check_together(func, options)
    if options.penalties and integrals_in(options):
        whole = beside(func, y0, options)
        sol = _solution(read_request(whole.func, whole.y0, t, whole.options), whole.part)
        return whole.unwrapped(sol, t, options.penalties)
    request = read_request(func, y0, t, options)
    if any(map(resets, options.events)):
        return solve_with_resets(request, make_problem, _told)
    return _solution(request)


def _solution(request: Request, part: Part | None = None) -> Solution:
    """From a request to what is returned. part: of the packed state, what penalties count."""
    options = request.options
    if clocks_differ(options.stepping):
        check_independent_samples(request.func)
    problem = make_problem(request)
    if options.penalties:
        problem = with_penalties(request, problem, part)
    with problem.traced():
        answer = differentiate(problem, options.gradient)
    return _told(request, problem, answer)


def _told(request: Request, problem: Problem, answer: Answer) -> Solution:
    """What is returned of a problem that was solved."""
    options, t, layout, trace = request.options, request.t, request.layout, problem.wish.trace
    run = answer.run
    y, own_t = answer.values[: len(run.times)], t if t.dim() == 1 else t.t()
    if options.save == "steps":
        own_t = torch.as_tensor(run.times, dtype=t.dtype, device=t.device)
    elif options.save == "end":
        y, own_t = y[-1:], own_t[-1:]
    with torch.set_grad_enabled(torch.is_grad_enabled() and options.gradient is not None):
        t_events, y_events = events_of(request, problem, answer) if options.events else ([], [])
    rows = None if trace is None else trace.rows()
    value, derivative = None, None
    if options.dense:
        query = DenseQuery(problem, answer, detached=options.gradient is None)
        value, derivative = questions(query, layout, problem.clocks, problem.z0.shape)
    found = (own_t, layout.unpack(y), run.status, problem.stats, t_events, y_events, rows, value, derivative)
    if problem.penalties is None:
        return Solution(*found)
    return Solution(*found, _penalties=problem.penalties.told(answer.values[len(run.times) :], run.status))


def blocks_of(request: Request) -> int:
    """How many blocks the state has along its first axis."""
    return len(request.z0) if isinstance(request.func, Dynamics) else 1


def make_problem(request: Request) -> Problem:
    """The engine's problem, for the stepping that was asked for."""
    return _with_many_clocks(request) if clocks_differ(request.options.stepping) else _with_one_clock(request)


def _built(
    kind: type[P], request: Request, start: Tensor, t: Tensor, times: Any, settings: Any, events: Any
) -> P:
    """The problem of either kind. start: as func wants it.  events: who watches them."""
    options, z0, stats = request.options, request.z0, Stats()

    def count() -> None:
        stats.nfe, stats.n_calls = stats.nfe + 1, stats.n_calls + clocks_differ(options.stepping)

    func: Any = request.func
    jac = options.jac
    if options.signal is not None:
        func, jac, settings = under_signal(request, options.signal, settings)
    plain, make_dynamics, autocast = wrap(func, request.layout, z0, start, options.params, count)
    if needs_jacobian(options):
        clocks = settings.clocks if isinstance(settings, SampleSettings) else ONE
        free = options.linear_solver == "gmres"
        jacobian = jacobian_of(func, plain, jac, request.layout, z0, clocks, free=free)
        settings = dataclasses.replace(settings, jacobian=jacobian)
    wish = Wish(
        every_step=options.save == "steps",
        dense=options.dense,
        events=events if options.events else None,
        trace=Trace(stats, request, blocks_of(request)) if options.trace else None,
    )
    return kind(
        *(plain, make_dynamics, z0, t, times, settings, autocast, stats, wish),
        speed=Speed(options.sync_every, options.compile),
        func=plain if isinstance(func, Driven) else func,
        named=options.params is not None,
    )


def _with_one_clock(request: Request) -> SharedProblem:
    options, z0 = request.options, request.z0
    times, t = check_times(request.t), request.t.to(z0.device, non_blocking=True)  # its gradient finds back
    if getattr(request.func, "after", None) is not None:
        check_after(request.func, times)
    if isinstance(options.dt0, Tensor):
        raise ArgumentTypeError("dt0 is a tensor: with shared stepping give one number.")
    if options.dt0 is not None:
        check_positive(options.dt0, "dt0")
    grid = None
    if options.dt is not None:
        grid = functools.partial(uniform_grid, dt=options.dt, most=options.max_steps)
    steps, jumps = request.stops, request.jumps
    if options.signal is not None:
        steps, jumps = with_kinks(request, options.signal, times)
    settings = Settings(
        *(request.tableau, request.tolerance, norm_of(options.norm, request.layout), options.controller),
        dt0=options.dt0,
        grid=grid,
        max_steps=options.max_steps,
        step_at=steps,
        jump_at=jumps,
        coupling=coupling_of(options),
    )
    events = None
    if options.events:
        events = EventWatch(options.watched, request.layout.unpack, times[0], z0.detach())
    if options.save == "end":
        times, t = [times[0], times[-1]], torch.stack((t[0], t[-1]))
    return _built(SharedProblem, request, as_time(times[0], z0), t, times, settings, events)


def _with_many_clocks(request: Request) -> SampleProblem:
    options, z0 = request.options, request.z0
    clocks = each(1 if isinstance(request.func, Dynamics) else 0, z0.dim())
    batch = clocks.batch_size(z0)
    times = check_sample_times(request.t, z0, batch)
    if getattr(request.func, "after", None) is not None:
        check_after(request.func, request.t.detach().flatten().tolist())  # host read
    t = request.t.to(z0.device, non_blocking=True)  # its gradient finds its way back
    t = t if t.dim() == 2 else t.expand(batch, -1)
    if options.save != "times":
        times, t = ends_of(times), ends_of(t)
    events = functools.partial(SampleEvents, options.watched, request.layout, clocks)
    settings, start = _sample_settings(request, clocks, times), clocks.time(times[:, 0], z0)
    return _built(SampleProblem, request, start, t, times, settings, events)


def _sample_settings(request: Request, clocks: Each, times: Tensor) -> SampleSettings:
    options, device, batch = request.options, times.device, len(times)
    norms = functools.partial(norm_of, options.norm, request.layout)

    dt0, together = options.dt0, None
    if dt0 is not None:
        check_constant(dt0, "dt0")
        dt0 = torch.as_tensor(dt0, dtype=torch.float64, device=device).detach()
        if dt0.dim() > 1 or dt0.numel() not in (1, batch) or not bool((dt0 > 0).all()):
            raise ArgumentError(
                f"dt0={options.dt0!r} must be positive: one number, or one for each of the {batch} samples."
            )
        dt0 = dt0.expand(batch)
    if isinstance(options.stepping, Tensor):
        ids, n = check_groups(options.stepping, times, batch)
        together = Together(ids, n, norms)
        if dt0 is not None and bool((Groups(ids, n, dt0 > 0).largest(dt0) != dt0).any()):  # host read
            raise ArgumentError(f"dt0={options.dt0!r} must be the same for all samples of a group.")

    every = sorted({*request.stops, *request.jumps})
    stops, jumps = sent(every, device), sent([t in request.jumps for t in every], device, torch.bool)
    if options.own_stops:
        stops, jumps = own_stops(request, times, together)
    return SampleSettings(
        *(clocks, request.tableau, request.tolerance, norms(clocks), options.controller, dt0, options.dt),
        max_steps=options.max_steps,
        stops=stops,
        jumps=jumps,
        compact=options.compact,
        together=together,
        coupling=coupling_of(options),
    )
