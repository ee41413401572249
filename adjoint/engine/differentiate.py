"""From a checked problem to differentiable values: which gradient runs how, whatever the clocks."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ...solvers.checks import check_one_cotangent, check_unfollowed, has_tangent, moves
from ...solvers.device.queue import Queue
from ...solvers.march.output import as_time
from ...solvers.step.field import Autocast, ValueField, follows, still_forwards, transformed
from ...solvers.step.implicit.newton import Measure
from ...solvers.step.pairs import pair_of
from ..continuous.stepping import PerSample, Shared, Stepping, Watch, reverse_settings
from ..continuous.ways import record_continuous
from ..discrete.compiled import CompiledWalk
from ..discrete.penalties import StepPenalties
from ..discrete.rebuilt import Limit
from ..discrete.reversible import record_reversible
from ..discrete.tape import Solved, Tape
from ..discrete.walk import ByPlace, DiscreteWalk, outputs_of
from ..dynamics.adapt import Evaluation, LastEvaluation
from ..dynamics.by_autograd import AutogradDynamics
from ..dynamics.protocol import Dynamics
from ..gradients import Backsolve, Direct, Discrete, Gradient, Interpolating, Reversible
from ..recording import Recorder, Recording, Result, Rows, Seen
from .problem import Problem, SampleProblem, SharedProblem, Speed, StrandedError
from .speed import queue_for, reverse_queue
from .time_move import moved_end, moved_start
from .transformed import gradient_under, refuse_second_derivative
from .whole import Arrived, WholeSolve
from .whole_back import whole_back
from .whole_when import whole_solve


def record_discrete(
    solved: Solved,
    gradient: Discrete,
    *,
    queue: Queue | None = None,
    watch: Watch | None = None,
    penalties: StepPenalties | None = None,
) -> Recording:
    """The recording of the discrete adjoint. queue: of the forward solve.  watch: as of `DiscreteWalk`."""
    compiled = queue is not None and queue.owner is not None
    again = gradient.keep == "state" if queue is None else not queue.keep
    again = again or gradient.checkpoints is not None
    last = LastEvaluation() if again and not compiled else None
    everyone = solved.clocks.everyone(solved.z0)
    if not again and isinstance(solved.dynamics, AutogradDynamics):
        solved.dynamics.keep_many()
    tape = Tape(everyone, stages=not again, checkpoints=gradient.checkpoints, last=last)

    def walk(seen: Seen, g: Rows, want_theta: bool) -> Result:
        outputs = (outputs_of if penalties is None else penalties.outputs)(solved, seen, g)
        known = None if last is None else last.kept
        if compiled and watch is None and gradient.checkpoints is None and isinstance(outputs, ByPlace):
            assert queue is not None
            found = CompiledWalk(solved, queue, tape, outputs).run()
            if found is not None:
                return found
            if again:
                start, z0 = tape.attempt(0).ends[0], solved.z0.detach()
                known = Evaluation(as_time(start, z0), z0, tape.states[0][1])
        if known is not None:
            known.check(solved.dynamics, solved.stats, solved.complain)
        return DiscreteWalk(solved, tape, outputs, want_theta=want_theta, watch=watch).run()

    # With a clock a sample first stages of their own are kept in any case.
    return Recording(tape, walk, saves=not again or everyone is not None)


# z0, whether derivatives at the outputs are wanted → values, derivatives [T, *z]
Forward = Callable[[Tensor, bool], tuple[Tensor, Tensor | None]]
# values, their cotangents, whether θ's gradients are wanted
# → dL/dz at the start before the cotangent of the output there is added, gradients of θ
Backward = Callable[[Tensor, Tensor, bool], tuple[Tensor, list[Tensor]]]
# cotangents, derivatives, dL/dz at the start → dL/dt
TimeGradient = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclasses.dataclass(frozen=True)
class Task:
    """One solve to be differentiated: everything that is not a tensor.

    many: its walk back is right for several cotangents at once, of torch.autograd.grad's is_grads_batched.
    """

    forward: Forward
    backward: Backward
    time_gradient: TimeGradient
    autocast: Autocast
    many: bool = False


class Solve(torch.autograd.Function):
    """ys = solve(z0; t, θ), its gradient by the adjoint that the task chose."""

    @staticmethod
    def forward(ctx: Any, task: Task, z0: Tensor, t: Tensor, *theta: Tensor) -> Tensor:
        """The values at every t; what the backward pass needs goes on ctx."""
        ys, derivatives = task.forward(z0, t.requires_grad)
        ctx.task = task
        ctx.save_for_backward(z0, t, ys, derivatives, *theta)
        return ys

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """One gradient for each input that wants one."""
        if has_tangent(g):  # the gradients are linear in g
            primals, tangents = (Solve.backward(ctx, x) for x in forward_ad.unpack_dual(g) if x is not None)
            pairs = zip(primals, tangents, strict=True)
            return tuple(None if a is None else forward_ad.make_dual(a, b) for a, b in pairs)
        z0, t, ys, derivatives, *theta = ctx.saved_tensors
        task, wants = ctx.task, ctx.needs_input_grad
        check_one_cotangent(g, task.many)
        with torch.no_grad(), task.autocast.outside():
            g = g.contiguous()
            a, theta_bar = task.backward(ys, g, any(wants[3:]))
            t_bar = None
            if derivatives is not None:
                t_bar = task.time_gradient(g, derivatives, a).to(t.dtype)
            gradients = [a + g[0], t_bar, *theta_bar]
        wanted = [x if need else None for x, need in zip(gradients, wants[1:], strict=True)]
        if torch.is_grad_enabled():  # create_graph=True: the result would pass for a constant
            wanted = refuse_second_derivative(wanted, [g, z0, t, *theta])
        return None, *wanted


def record_for(
    problem: Problem, dynamics: Dynamics, gradient: Gradient, queue: Queue | None = None
) -> Recording:
    """The recording that a gradient choice needs. queue: of the forward solve."""
    reverse, clocks = problem.reverse, problem.clocks
    if isinstance(gradient, (Discrete, Reversible)):
        settings, complain = problem.settings, reverse.complain
        implicit = None
        if settings.tableau.wants_jacobian:
            implicit = settings.jacobian, Measure(clocks, settings.norm, settings.tolerance)
        both = (problem.z0, problem.stats, complain, implicit)
        solved = Solved(dynamics, clocks, *both)
        if isinstance(gradient, Reversible):
            limit = Limit(settings.norm, settings.tolerance, gradient.reconstruction_limit)
            tableau, jumps = (
                settings.tableau,
                isinstance(problem, SampleProblem) and settings.jumps.shape[-1] > 0,
            )
            pair = functools.partial(pair_of, tableau, settings.coupling, clocks)
            begun = (pair, problem.start, limit)
            return record_reversible(solved, tableau, *begun, jumps=jumps, watch=reverse.watch)
        own = problem.penalties
        return record_discrete(solved, gradient, queue=queue, watch=reverse.watch, penalties=own)
    assert isinstance(gradient, (Backsolve, Interpolating))
    return record_continuous(dynamics, gradient, _reverse(problem, gradient, queue))


def _reverse(
    problem: Problem, gradient: Backsolve | Interpolating, queue: Queue | None
) -> Stepping[Any, Any]:
    """How the reverse solve steps."""
    backward = problem.reverse.settings or reverse_settings(problem.settings, gradient)
    both: tuple[Any, ...] = (problem.settings, backward, problem.clocks, problem.stats, problem.reverse)
    if isinstance(problem, SampleProblem):
        return PerSample(*both, batch=problem.clocks.batch_size(problem.z0))
    # Between the evaluations of Interpolating the host looks the state up.
    own = reverse_queue(problem, queue) if isinstance(gradient, Backsolve) else None
    return Shared(*both, queue=own)


@dataclasses.dataclass(frozen=True)
class Answer:
    """values: [n, *z], the outputs and after them the events that fired; run: the rest.

    start: the state that the steps began with.
    again: what walks the same steps back for other times (None where there is no adjoint).
    """

    values: Tensor
    run: Any
    start: Tensor
    again: _Solved | None = None


def differentiate(problem: Problem, gradient: Gradient | None) -> Answer:
    """Solves, with the gradient asked for where one can flow."""
    try:
        return _differentiated(problem, gradient)
    except StrandedError:
        return _differentiated(dataclasses.replace(problem, speed=Speed()), gradient)


def _differentiated(problem: Problem, gradient: Gradient | None) -> Answer:
    with problem.autocast.outside():
        if transformed():
            value, asked = problem.evaluate(problem.start, problem.z0), gradient
            gradient = gradient_under(asked, value, (problem.z0, problem.t), problem.settings.jacobian)
            if asked is not None and not isinstance(gradient, Direct):
                plain = problem.plain
                problem = dataclasses.replace(problem, plain=lambda t, z: check_unfollowed(plain(t, z)))
            if gradient is None and torch.is_grad_enabled():  # what func is made of shows under it alone
                return _without_gradient(problem, torch.enable_grad)
        if isinstance(gradient, Direct):
            return _direct(problem)
        if gradient is None or not torch.is_grad_enabled():
            return _without_gradient(problem)
        found = _by_whole_programs(problem, gradient) if problem.by_programs else None
        if found is not None:
            return found
        dynamics = problem.make_dynamics()
        if any(x.requires_grad for x in (problem.z0, problem.t, *dynamics.theta())):
            return _by_adjoint(problem, dynamics, gradient)
        return _without_gradient(problem, torch.enable_grad)  # func may differentiate inside


def _queue(problem: Problem, gradient: Gradient | None) -> Queue | None:
    """The queue of the forward solve, where one was wished for and can be."""
    return None if problem.speed == Speed() else queue_for(problem, gradient)


def _without_gradient(problem: Problem, mode: Callable[[], Any] = contextlib.nullcontext) -> Answer:
    """Nothing is recorded. mode: sets the grad mode of func, which is off without."""
    with torch.no_grad():
        z0, whole = problem.z0.detach(), whole_solve(problem, None) if problem.by_programs else None
        arrived = None if whole is None else whole.forward()
        if arrived is not None:
            run = problem.arrived(*arrived[:3])
            return Answer(run.values, run, z0)
        values = ValueField(problem.plain, mode)
        queue, wish = _queue(problem, None), problem.wish
        run = problem.solve(z0, values, wish if queue is None else dataclasses.replace(wish, queue=queue))
        return Answer(run.values, run, z0)


def _direct(problem: Problem) -> Answer:
    """Through the steps by autograd; a time enters by moving the state along the flow."""
    _queue(problem, Direct())  # there is none: it says why
    z0, t, followed = problem.z0, problem.t, follows()
    timed = followed and moves(t)
    start = z0
    if timed:
        start = moved_start(problem.flow(start=True), z0, t[..., 0])
    wish = problem.wish
    if followed:
        wish = dataclasses.replace(wish, derivatives=timed, differentiable=True)
    run = problem.solve(start, lambda t, z: (problem.plain(t, z), None), wish)
    if not timed:
        return Answer(run.values, run, start)
    flow, values = problem.flow(), [z0, *run.values[1:]]
    for i, time in problem.own_times(run):
        slope = torch.where(torch.isnan(run.derivatives[i]), 0.0, run.derivatives[i])
        values[i] = moved_end(flow, values[i], slope, time)
    return Answer(torch.stack(values), run, start)


def _by_adjoint(problem: Problem, dynamics: Dynamics, gradient: Gradient) -> Answer:
    """Under the dynamics whose VJP will be used, with the walk back that was chosen."""
    queue = _queue(problem, gradient)
    recording = record_for(problem, dynamics, gradient, queue=queue)
    # Per sample a walk back looks for rows that are 0, which a hidden axis cannot be asked.
    many = isinstance(problem, SharedProblem) and isinstance(gradient, Discrete)
    many = many and (queue is None or queue.owner is None)
    return _applied(_SolvedInSteps(problem, dynamics, recording, queue), many)


def _by_whole_programs(problem: Problem, gradient: Gradient) -> Answer | None:
    """The same by native programs; None where there is none, or nothing to differentiate."""
    with torch.no_grad():
        whole = whole_solve(problem, gradient)
        if whole is None or not whole.wanted:
            return None
        arrived = whole.forward()
        if arrived is None:
            return None
        back = None
        if isinstance(gradient, (Backsolve, Interpolating)):
            back = whole_back(whole, gradient, arrived)
        if not (whole.ready(arrived) if back is None else back.ready()):
            return None
    kept = [] if back is not None else arrived.pieces
    # The values become the Function's output, whose node holds the walk.
    left = arrived._replace(values=arrived.values.new_empty(0), slopes=None, pieces=kept)

    def walk(seen: Seen, g: Rows, want_theta: bool) -> Result:
        assert isinstance(g, Tensor)
        if back is not None:
            assert isinstance(seen.values, Tensor)
            solved = back.walk(seen.values, g)
            return solved or _walked_again(whole, gradient, g, want_theta)
        found = whole.walk(left, g)
        assert found is not None, "a program that was ready"
        return found

    return _applied(_SolvedWhole(problem, whole.theta, Recording(Recorder(), walk), arrived), many=False)


def _walked_again(whole: WholeSolve, gradient: Gradient, g: Tensor, want_theta: bool) -> Result:
    """The walk back over the same solve made once more, uncompiled; its forward pass is not counted."""
    problem = whole.problem
    with whole.as_it_was():
        dynamics = problem.make_dynamics()
        recording = record_for(problem, dynamics, gradient)
        own = dataclasses.replace(problem, stats=dataclasses.replace(problem.stats))
        solved = _SolvedInSteps(own, dynamics, recording, None)
        values, _ = solved.forward(problem.z0, False)
        return recording.walk(own.seen(solved.run, values), g, want_theta)


def _applied(solved: _Solved, many: bool) -> Answer:
    """The solve under autograd."""
    problem = solved.problem
    task = Task(solved.forward, solved.backward, solved.time_gradient, problem.autocast, many)
    values = Solve.apply(task, problem.z0, problem.t, *solved.theta)
    return Answer(values, solved.run, problem.z0, solved)


class _Solved(abc.ABC):
    """The forward pass and its way back, as `Solve` calls them.

    theta: what gradients are wanted of.
    run, slopes: there when forward has been; slopes: f at the start, where a time wants a gradient.
    """

    run: Any
    slopes: Tensor | None

    def __init__(self, problem: Problem, theta: tuple[Tensor, ...], recording: Recording):
        self.problem, self.theta, self.recording = problem, theta, recording

    @abc.abstractmethod
    def forward(self, z0: Tensor, derivatives: bool) -> tuple[Tensor, Tensor | None]:
        """(values, y' at the outputs where asked)."""

    def backward(self, values: Tensor, g: Tensor, want: bool) -> Result:
        """The walk back."""
        stats = self.problem.stats
        stats.nfe_backward = stats.nfe_recomputed = 0
        stats.n_accepted_backward = stats.n_rejected_backward = 0
        with self.problem.reverse.guard():
            return self.recording.walk(self.problem.seen(self.run, values), g, want)

    def time_gradient(self, g: Tensor, derivatives: Tensor, a: Tensor) -> Tensor:
        """dL/dt_i = g_i · y'(t_i), dL/dt_0 = −a · f(t_0, z_0) with a before the jump by g_0."""
        along = torch.cat((-a[None], g[1 : len(derivatives)]))
        product = torch.where(along == 0, 0.0, along * derivatives)  # 0 · NaN of a sample that failed
        return self.problem.to_times(self.problem.clocks.totals(product), self.run)


class _SolvedInSteps(_Solved):
    """A solve that the host or a queue steps through."""

    def __init__(self, problem: Problem, dynamics: Dynamics, recording: Recording, queue: Queue | None):
        super().__init__(problem, dynamics.theta(), recording)
        self.dynamics, self.queue = dynamics, queue

    def forward(self, z0: Tensor, derivatives: bool) -> tuple[Tensor, Tensor | None]:
        """(values, y' at the outputs where asked)."""
        problem, recording, dynamics = self.problem, self.recording, self.dynamics
        evaluate = dynamics.forward
        if not recording.saves:  # kept steps hold this function, and this object holds them: no cycle
            evaluate = lambda t, z: (dynamics.value(t, z), None)  # noqa: E731
        queue = self.queue
        if queue is not None and derivatives:  # y' at the outputs is read off the stages
            queue = dataclasses.replace(queue, with_stages=True)
        wish = dataclasses.replace(
            problem.wish,
            derivatives=derivatives,
            dense=problem.wish.dense or recording.dense,
            queue=queue,
        )
        with still_forwards():
            run = problem.solve(z0.detach(), evaluate, wish, recording)
        # No view of the values: they become the Function's output, whose node holds this object.
        self.run = dataclasses.replace(run, values=run.values.new_empty(0), derivatives=None)
        self.slopes = None if run.derivatives is None else run.derivatives[:1].clone()
        return run.values, run.derivatives


class _SolvedWhole(_Solved):
    """A solve that whole programs have made."""

    def __init__(self, problem: Problem, theta: tuple[Tensor, ...], recording: Recording, arrived: Arrived):
        super().__init__(problem, theta, recording)
        self.whole: Arrived | None = arrived
        self.slopes = None if arrived.slopes is None else arrived.slopes[:1].clone()

    def forward(self, z0: Tensor, derivatives: bool) -> tuple[Tensor, Tensor | None]:
        """(values, y' at the outputs where asked)."""
        assert self.whole is not None
        values, slopes, told, *_ = self.whole
        self.whole = None  # its values become the Function's output, whose node holds this object
        self.run = self.problem.arrived(values.new_empty(0), None, told)
        return values, slopes
