"""Whether and how a solve's attempts are queued and compiled: `sync_every` and `compile` of `solve`."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from ...solvers.device.queue import Queue
from ...solvers.errors import AdamodeWarning
from ...solvers.march.samples import SampleNorm
from ...solvers.solve import Observers
from ...solvers.step.clocks import block_rms, maximum, rms
from ...solvers.step.field import transformed
from ..continuous.carrier import Augmented
from ..continuous.stepping import ReverseWish
from ..dynamics.driven import DrivenFunction
from ..dynamics.protocol import Dynamics
from ..dynamics.traced import Calls, DynamicsCalls, ModuleCalls
from ..gradients import Direct, Discrete, Gradient, Interpolating
from .problem import Problem, SampleProblem

JUDGED_HERE = "the errors of complex numbers are judged by the host"
TRANSFORMED = "a transform of torch.func, or forward-mode AD, is around the solve"
NEWTON = "the host looks at every correction of an implicit method's iteration"
PAIR = "a program takes steps of one state, and these are of a pair (Reversible, or method='alf')"


def queue_for(problem: Problem, gradient: Gradient | None) -> Queue | None:
    """The queue of the forward solve; None for stepping as ever.

    What stands in the way is one AdamodeWarning, and the solve goes on without.
    """
    wanted = problem.speed
    each = isinstance(problem, SampleProblem)
    reason = TRANSFORMED if transformed() else ""
    reason = reason or (_not_queued_each(problem, gradient) if each else _not_queued(problem, gradient))
    if reason:
        warn_idle("compile=True" if wanted.compile else f"sync_every={wanted.sync_every}", reason)
        return None
    owner: Any = None
    calls: Calls | None = None
    if wanted.compile:
        reason = _not_compiled(problem)
        if reason:
            warn_idle("compile=True", reason)
            if wanted.sync_every == 1 or each:
                return None
        else:
            owner = problem.func
            calls = DynamicsCalls() if isinstance(owner, Dynamics) else ModuleCalls()
    if each:
        return Queue(wanted.sync_every, owner, calls)
    wish = problem.wish
    inner = len(problem.times) > 2 and not wish.every_step
    stages = inner or wish.dense or wish.trace is not None or isinstance(gradient, Interpolating)
    keep = isinstance(gradient, Discrete) and gradient.keep == "stages" and gradient.checkpoints is None
    if isinstance(calls, ModuleCalls) or (owner is not None and wanted.sync_every > 1):
        keep = False  # stages are taken again in the program of the way back
    recorded = gradient is not None
    return Queue(wanted.sync_every, owner, calls, keep=keep, with_stages=stages, recorded=recorded)


def looked_at(reverse: ReverseWish) -> bool:
    """Whether the host must look at each step of a reverse solve."""
    return reverse.theta_norm is not None or reverse.observers != Observers()


def reverse_queue(problem: Problem, forward: Queue | None) -> Queue | None:
    """The queue of a reverse solve of state and adjoint together; compiled, it is one attempt a call."""
    if forward is None or looked_at(problem.reverse):
        return None
    if forward.owner is None:
        return Queue(forward.sync_every, keep=True, keep_first=True)
    return Queue(1, forward.owner, Augmented(forward.calls), keep=True, keep_first=True)


def _not_queued(problem: Problem, gradient: Gradient | None) -> str:
    """Why the host must look at each attempt; "" where it need not."""
    if isinstance(gradient, Direct):
        return "gradient=Direct() follows autograd through every step; use Discrete()"
    if problem.settings.tolerance.paired:
        return JUDGED_HERE
    if problem.settings.tableau.wants_jacobian:
        return NEWTON
    if not problem.settings.plain:
        return PAIR
    if problem.settings.fixed:
        return "a fixed step (dt=…) decides nothing, so the host need not look at all"
    if problem.settings.jump_at:
        return "at jump_at the host restarts the solve"
    if problem.wish.events is not None:
        return "events are looked for by the host after each step"
    return ""


def _not_queued_each(problem: Problem, gradient: Gradient | None) -> str:
    """The same with a clock a sample, where only the end of the solve can be waited for."""
    wish, settings = problem.wish, problem.settings
    if settings.tolerance.paired:
        return JUDGED_HERE
    if settings.tableau.wants_jacobian:
        return NEWTON
    if not settings.plain:
        return PAIR
    if gradient is not None:
        return "a gradient is wanted, and per sample the host keeps every attempt for its way back"
    wishes = (
        (wish.every_step or problem.times.shape[1] > 2, "outputs before the end are"),
        (wish.dense, "dense=True is"),
        (wish.events is not None, "events are"),
        (wish.trace is not None, "trace=True is"),
        (settings.stops.shape[-1], "step_at and jump_at are"),
        (settings.dt is not None, "a fixed step, dt=…, is"),
        (settings.together is not None and problem.speed.compile, "samples in groups are"),
        (norm_name(settings.norm) is None, "a norm of your own, or of a state of several leaves, is"),
    )
    for there, name in wishes:
        if there:
            return f"with stepping='per_sample' {name} the host's work at every attempt"
    return ""


def _not_compiled(problem: Problem) -> str:
    """Why a solve cannot be compiled; "" where it can."""
    each = isinstance(problem, SampleProblem)
    if isinstance(problem.func, DrivenFunction):
        return "a program gives func no input, and func has a signal"
    if problem.autocast.enabled:
        return "torch.autocast is on, and its state is not part of a compiled program"
    layout = getattr(problem.plain, "layout", None)  # a Dynamics has none
    if layout is not None and layout.kind is not None:
        return f"a program is for states of torch.float32 and float64, and y0 has dtype {layout.kind}"
    if each and problem.settings.compact:
        return "a program is for one batch size, and compact=True changes it: leave compact out"
    if not each and problem.settings.norm not in (rms, block_rms, maximum):
        return (
            "the norm is a callable of yours, or the state a tuple or dict; use norm='rms', 'max' or 'blocks'"
        )
    if not isinstance(problem.func, (Dynamics, nn.Module)):
        return "func is a plain function; make it an nn.Module, whose parameters are known"
    if not takes_one_tensor(problem):
        return "the state is a tuple or dict, and a program gives func one tensor: put the leaves into one"
    if not each and not isinstance(problem.func, Dynamics) and problem.named:
        return "params names what gradients are wanted for; leave it out, or freeze what needs none"
    return ""


def takes_one_tensor(problem: Problem) -> bool:
    """Whether func takes the state as the solve has it, unpacked."""
    return isinstance(problem.func, Dynamics) or problem.plain.layout.direct  # type: ignore[attr-defined]


def norm_name(norm: SampleNorm) -> str | None:
    """Which of the clocks' norms it is; None for another one."""
    name = getattr(norm, "__name__", "")
    return name if name in ("rms", "maximum", "block_rms") and hasattr(norm, "__self__") else None


def warn_idle(what: str, reason: str) -> None:
    """Says why a wish for speed changes nothing."""
    warnings.warn(f"{what} does nothing here: {reason}.", AdamodeWarning, stacklevel=3)
