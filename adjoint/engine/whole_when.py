"""When a solve can be made by native programs, and what it then begins with."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from ...solvers.device.natives import Natives, comparable
from ...solvers.device.whole import Form, Start
from ...solvers.methods import get_method
from ...solvers.solve import Observers
from ...solvers.step.attempt import Rules
from ...solvers.step.field import transformed
from ...solvers.step.runge_kutta import regular
from ..dynamics.protocol import Dynamics
from ..dynamics.traced import Calls, DynamicsCalls, ModuleCalls
from ..gradients import Backsolve, Discrete, Gradient, Interpolating
from .plan import kept_by, make_plan
from .problem import Problem, SampleProblem, SharedProblem
from .speed import looked_at, norm_name, takes_one_tensor
from .whole import WholeSolve
from .whole_grid import NOBODY

ENTRIES = ("forward", "vjp", "parameter_gradients", "theta")  # of an owner, those of a module first
FEWEST = 8  # places for outputs that a program has at least, so that one serves several numbers of them


def whole_solve(problem: Problem, gradient: Gradient | None) -> WholeSolve | None:
    """The solve by whole programs, where it can be."""
    if not _eligible(problem, gradient):
        return None
    owner, settings = problem.func, problem.settings
    entries = ENTRIES if isinstance(owner, Dynamics) else ENTRIES[:1]
    known = comparable(owner, entries)
    if known is None:
        return None
    calls: Calls = DynamicsCalls() if isinstance(owner, Dynamics) else ModuleCalls()
    theta = tuple(calls.theta(owner)) if gradient is not None else ()
    wanted = gradient is not None and any(x.requires_grad for x in (problem.z0, problem.t, *theta))
    y, n_times = regular(problem.z0.detach()), problem.t.shape[-1]
    inside, slopes = n_times > 2, wanted and problem.t.requires_grad
    dense = wanted and isinstance(gradient, Interpolating)
    if (inside or dense) and settings.tableau.c_dense:
        return None
    places = max(FEWEST, 1 << (n_times - 1).bit_length()) if inside else n_times
    own = (settings.tableau, settings.norm, settings.controller, problem.clocks)
    if _along(problem):
        own = (settings.tableau, *NOBODY, problem.clocks)
    recorded = wanted and not isinstance(gradient, Backsolve)
    flags = (settings.dt0 is None and not settings.fixed, recorded, inside, slopes, dense)
    keeps = wanted and _keeps(problem, gradient)
    natives = Natives.of(owner)
    key = (known, own, settings.fixed, flags, keeps, y.shape, y.stride(), y.dtype, places)
    plan = natives.notes.get(key)
    if plan is None:
        tableau, norm, controller, clocks = own
        numeric = tableau.numeric(y.dtype, y.device)
        rules = Rules(tableau, numeric, norm, controller, clocks, fixed=settings.fixed)
        recipe, kept = (kept_by(owner, problem.start, y) if keeps else None) or (None, ())
        form = Form(rules, *flags, recipe)
        plan = natives.notes[key] = make_plan((owner, known, entries), form, y, places, kept, theta)
    times, start = plan.latest.find(problem.begun_like(), functools.partial(_begun, problem, y, places))
    return WholeSolve(problem, natives, calls, plan, y, times, start, theta, plan.values.now())


def _along(problem: Problem) -> bool:
    """Whether the steps are a grid's, which the host knows."""
    return isinstance(problem, SharedProblem) and problem.settings.fixed


def _keeps(problem: Problem, gradient: Gradient | None) -> bool:
    """Whether activations are kept, if they can be: with a clock a sample those of attempts that failed would
    be among them."""
    wished = isinstance(gradient, Discrete) and gradient.keep == "stages"
    own = isinstance(problem.func, Dynamics) and isinstance(problem, SharedProblem)
    return wished and own and not problem.settings.fixed


def _begun(problem: Problem, y: Tensor, places: int) -> tuple[Tensor, Start | None]:
    """The times, padded; and what the first call takes, but along a grid."""
    settings, clocks, times = problem.settings, problem.clocks, problem.lanes()
    if places > len(times):
        times = torch.cat((times, times.new_full((places - len(times), times.shape[1]), torch.nan)))
    if _along(problem):
        return times, None
    ends = times[:: problem.t.shape[-1] - 1][:2].reshape(2, *clocks.shape(y)).clone()
    dt0 = settings.dt if settings.fixed else settings.dt0
    if not isinstance(dt0, Tensor):
        dt0 = torch.full_like(ends[0], torch.nan if dt0 is None else dt0)
    most = torch.full((1,), settings.max_steps, dtype=torch.int64, device=y.device)
    # Tensors of a user's may be one, lie in one another or be expanded, and a program is for one layout.
    given = (dt0, *settings.tolerance.tensors(y))
    dt0, rtol, atol = (x.detach().clone(memory_format=torch.contiguous_format) for x in given)
    return times, Start(ends, dt0, rtol, atol, most, times)


def _eligible(problem: Problem, gradient: Gradient | None) -> bool:
    """Whether the host need not look before the end."""
    wish, settings, owner = problem.wish, problem.settings, problem.func
    if not isinstance(owner, nn.Module) or problem.z0.device.type != "cpu" or type(problem.z0) is not Tensor:
        return False
    if not settings.plain:  # programs take `rk_step`'s
        return False
    if transformed():  # native code sees neither a transform's wrappers nor tangents
        return False
    if isinstance(gradient, Discrete):
        if gradient.checkpoints is not None:  # every step's state is kept here
            return False
    elif gradient is not None and not _solved_back(problem, gradient):
        return False
    if wish.every_step or wish.dense or wish.events is not None or wish.trace is not None:
        return False
    if problem.autocast.enabled or problem.named or not problem.z0.numel():
        return False
    if not takes_one_tensor(problem):
        return False
    shared = isinstance(problem, SharedProblem)
    if norm_name(settings.norm) is None and not (shared and settings.fixed):  # along a grid nothing is judged
        return False
    if isinstance(problem, SampleProblem):
        own = settings.compact or settings.together is not None or settings.dt0_open
        return not own and not settings.stops.shape[-1]
    assert isinstance(problem, SharedProblem)
    stops = settings.jump_at or settings.perturb or (settings.step_at and not settings.fixed)
    return problem.observers == Observers() and not stops


def _solved_back(problem: Problem, gradient: Gradient) -> bool:
    """Whether the way back is a reverse solve at which the host need not look."""
    reverse = problem.reverse
    if not isinstance(gradient, (Backsolve, Interpolating)) or isinstance(problem, SampleProblem):
        return False
    if problem.settings.fixed:
        return False
    own = reverse.settings or problem.settings
    if gradient.method is not None and get_method(gradient.method, implicit=True).wants_jacobian:
        return False
    plain = own.norm == problem.settings.norm and not (own.fixed or own.step_at or own.jump_at)
    return plain and not looked_at(reverse) and reverse.trace is None and reverse.watch is None
