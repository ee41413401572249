"""The gradient of a pair's steps, whose states are rebuilt from the last pair: besides it times are kept.

From a step's end (y1, p1), with λ = dL/dy1 and ν = dL/dp1, the step is undone, and then transposed. Of a
coupled pair (`solvers.step.pairs`), with c its coupling, both increments are transposed as one explicit step
is (`walk.step_back`), first Ψ_{−h}(t1, y1), which z1 = z − Ψ_{−h} has taken, then Ψ_h(t, z):

    λ' = λ − (∂Ψ_{−h}/∂y1)ᵀ ν,   dL/dy = c λ',   dL/dz = ν + (1 − c) λ' + (∂Ψ_h/∂z)ᵀ λ'

Outputs inside the step enter with the stages k_i + (1 − c)(z − y)/h, as they were read. Of the leapfrog, with
w = 2η:

    v̄ = ν + h/2 λ,   ū = w v̄,   ȳ = λ + (∂f/∂y)ᵀ ū,   dL/dy = ȳ,   dL/dv = (1 − w) v̄ + h/2 ȳ

At the start z0 = y0, or v0 = f(t0, y0). The rebuilt state is compared with y0, and with outputs at steps'
ends.

Sources: as in `solvers.step.pairs` and `walk`.
"""

from __future__ import annotations

import array
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from ...solvers.march.output import Step, as_time
from ...solvers.march.samples import SampleStep, Written
from ...solvers.methods.tableau import Numeric, Tableau
from ...solvers.step.clocks import Each, times_between
from ...solvers.step.further import dense_stages
from ...solvers.step.pairs import CoupledPair, LeapfrogPair, Pair, Undone, share
from ...solvers.step.runge_kutta import StepResult
from ..dynamics.adapt import LastEvaluation, ThetaSum, tell
from ..recording import Recorder, Recording, Result, Rows, Seen
from .rebuilt import Comparison, Limit
from .tape import Attempt, Inside, Solved, Who
from .walk import BarBuffer, Outputs, dense_back, outputs_of, plus, step_back

State = tuple[Tensor, Tensor]  # y and its partner, or their cotangents
Pull = Callable[[int, Tensor], Tensor]
Watch = Callable[[float, Tensor, "Tensor | None"], None]


@dataclasses.dataclass(frozen=True)
class SampleTimes:
    """What is kept of one attempt of all samples, [b]: which were in the batch, t0, and t1 of those that
    accepted (else t0); what was written in it; when stages were evaluated, where f jumps at some times."""

    index: Tensor
    t0: Tensor
    t1: Tensor
    outputs: Sequence[Written]
    times: list[Tensor] | None


class PairTape(Recorder):
    """A recorder of the times of steps, and of the last pair.

    solved: the solve; its z0 stands for samples that never begin.
    tableau: of the method.
    jumps: f jumps at some times.
    """

    def __init__(self, solved: Solved, tableau: Tableau, *, jumps: bool):
        self.solved, self.tableau, self.clocks, self.jumps = solved, tableau, solved.clocks, jumps
        self.index = self.clocks.everyone(solved.z0)
        self.last = LastEvaluation()
        self.ends = array.array("d")  # of one clock: t0, t1 of each step
        self.beside: dict[int, list[Tensor]] = {}  # when its stages are evaluated, of steps beside a jump
        self.attempts: list[SampleTimes] = []
        self.pair: State | None = None
        self.moving: tuple[Tensor, State, State] | None = None  # who accepted the last attempt, its ends

    @property
    def n_steps(self) -> int:
        """Of one clock; else attempts."""
        return len(self.attempts) or len(self.ends) // 2

    def step(self, step: Step | SampleStep) -> None:
        """Keeps its times, and the pair at its end."""
        assert step.result.paired is not None
        self.last.see(step)
        end = (step.y1, step.result.paired.end)
        if isinstance(step, Step):
            if not step.plain:
                self.beside[self.n_steps] = step.times
            self.ends.extend((step.t0, step.t1))
            self.pair = end
            return
        self._settle()
        self.moving = step.accepted, (step.y0, step.result.paired.start), end
        t1 = torch.where(step.accepted, step.t1, step.t0)
        times = None
        if self.jumps:
            which, rest = step.accepted.view(step.times[0].shape), step.times[0]
            times = [torch.where(which, t, rest) for t in step.times]
        self.attempts.append(SampleTimes(step.index, step.t0, t1, step.outputs, times))

    def compact(self, keep: Tensor) -> None:
        """Samples have left: their pair is the last."""
        self._settle()
        assert self.index is not None
        self.index = self.index.index_select(0, keep)

    def _settle(self) -> None:
        """The pair of all samples after the last attempt."""
        if self.moving is None:
            return
        accepted, start, end = self.moving
        whole = self.pair or (self.solved.z0.detach(),) * 2
        parts = [self.clocks.choose(accepted, new, old) for new, old in zip(end, start, strict=True)]
        y, partner = (self.clocks.put(x, self.index, part) for x, part in zip(whole, parts, strict=True))
        self.pair, self.moving = (y, partner), None

    def end(self) -> State:
        """The last pair, of all samples."""
        self._settle()
        assert self.pair is not None
        return self.pair

    def attempt(self, n: int) -> Attempt:
        """The attempt of that number, as the walk wants it."""
        tableau, z0 = self.tableau, self.solved.z0
        if not self.attempts:
            t0, t1 = self.ends[2 * n], self.ends[2 * n + 1]
            return Attempt(tableau, t1 - t0, None, self.beside.get(n), (t0, t1))
        kept = self.attempts[n]
        begin, end, times = kept.t0, kept.t1, kept.times
        dt = self.clocks.spread(end - begin).to(z0.dtype)
        if times is None:
            nodes = tableau.numeric(z0.dtype, z0.device).c
            times = [self.clocks.time(t, z0) for t in times_between(begin, end, nodes)]
        return Attempt(tableau, dt, None, times, who=Who(kept.index, end != begin), outputs=kept.outputs)

    def end_of(self, n: int) -> float | Tensor:
        """t1 of the attempt of that number; of samples [b]."""
        return self.attempts[n].t1 if self.attempts else self.ends[2 * n + 1]


class ReversibleWalk:
    """The walk backwards over one tape.

    start: the time at which the solve began, as func wants it.
    pair: undoes the steps.
    outputs: how their cotangents enter.
    comparison: sees the rebuilt states.
    want_theta: whether θ's gradients are wanted.
    watch: sees (time, dL/dz there, z rebuilt) at the ends of every step of one clock, for study.
    """

    def __init__(
        self,
        tape: PairTape,
        start: Tensor,
        pair: Pair,
        outputs: Outputs,
        comparison: Comparison,
        *,
        want_theta: bool = True,
        watch: Watch | None = None,
    ):
        self.watch = watch
        self.solved, self.tape, self.start, self.pair = tape.solved, tape, start, pair
        self.outputs, self.comparison, self.clocks = outputs, comparison, tape.clocks
        self.dynamics = self.solved.dynamics
        self.theta = ThetaSum(self.dynamics, wanted=want_theta)
        self.bars: BarBuffer | None = None
        self.used: tuple[list[Any], list[Any]] = ([], [])

    def run(self) -> Result:
        """(dL/dz at the start without the cotangent of the output there, θ's gradients)."""
        lam = self.outputs.begin(self.solved.z0.detach())[0]
        if not self.tape.n_steps:  # no sample began
            return self.outputs.at_end(-1, lam), self.theta.result()
        whole, bars, moved = self.tape.end(), (lam, torch.zeros_like(lam)), None
        for n in range(self.tape.n_steps - 1, -1, -1):
            attempt = self.tape.attempt(n)
            bars = self.outputs.at_end(n, bars[0]), bars[1]
            if self.watch is not None:
                self.watch(attempt.ends[1], self._adjoint(attempt.ends[1], whole, bars), whole[0])
            whole, bars = self._step(n, attempt, whole, bars)
            if self.watch is not None:
                self.watch(attempt.ends[0], self._adjoint(attempt.ends[0], whole, bars), whole[0])
            if attempt.who.which is not None:
                moved = self._moved(moved, attempt.who)
        tell(self.dynamics, None)
        bars = self._from_start(whole, bars, moved)
        off = self.comparison.judge()
        if off is not None:
            self.solved.complain(off)
        return self.outputs.at_end(-1, bars[0]), self.theta.result()

    def _step(self, n: int, attempt: Attempt, whole: State, bars: State) -> tuple[State, State]:
        """The pair at the start of an attempt, and its cotangents, of all samples."""
        (index, which), clocks, tableau = (attempt.who.index, attempt.who.which), self.clocks, attempt.tableau
        tell(self.dynamics, index)
        y1, end = (clocks.take(x, index) for x in whole)
        self.comparison.at_end(n, self.tape.end_of(n), attempt, y1)
        times = attempt.stage_times(y1)
        undone = self.pair.undo(self._evaluate, y1, end, times, attempt.dt)
        inside = self.outputs.inside(n, attempt)
        if inside is not None and any(k is not None for k in inside[0][tableau.n_stages :]):
            result = StepResult(y1, undone.stages, undone.ahead)
            dense_stages(self._evaluate, undone.y, times, tableau, result)
        whose = [clocks.take(x, index) for x in bars]
        # Who did not accept adds nothing.
        lam, nu = (clocks.choose(which, x, torch.zeros_like(x)) for x in whose)
        dt = attempt.dt if isinstance(attempt.dt, Tensor) else as_time(attempt.dt, y1)
        back = _coupled_back if isinstance(self.pair, CoupledPair) else _leapfrog_back
        new = back(self, undone, dt, (lam, nu), inside)
        self.theta.add(*self.used)
        self.used = ([], [])
        olds, news = (y1, end, *whose), (undone.y, undone.partner, *new)
        chosen = (clocks.choose(which, x, old) for x, old in zip(news, olds, strict=True))
        y, partner, lam, nu = (
            clocks.put(x, index, part) for x, part in zip((*whole, *bars), chosen, strict=True)
        )
        return (y, partner), (lam, nu)

    def _adjoint(self, t: float, whole: State, bars: State) -> Tensor:
        """dL/dz where the partner moves with z."""
        (z, _), (lam, nu) = whole, bars
        if isinstance(self.pair, CoupledPair):
            return lam + nu
        return lam + self.dynamics.vjp(self.dynamics.forward(as_time(t, z), z)[1], nu)[0]

    def _from_start(self, whole: State, bars: State, moved: Tensor | None) -> State:
        """The cotangent of y0, with what its partner at the start has; and none."""
        (y, _), (lam, nu), start = whole, bars, self.start
        t0 = start.reshape(-1).double() if moved is not None else start.double()
        if isinstance(self.pair, CoupledPair):
            self.comparison.at_start(t0, whole, moved)
            return lam + nu, torch.zeros_like(nu)
        self.comparison.at_start(t0, (y,), moved)
        z0 = self.solved.z0.detach()
        if moved is not None:  # who took no step may hold what is no number
            healthy = moved.to(torch.int8).argmax().reshape(1)
            batch = cast("Each", self.clocks).batch
            z0 = self.clocks.choose(moved, z0, z0.index_select(batch, healthy))
            start = torch.where(moved.view(start.shape), start, start.index_select(0, healthy))
        bar = self.pull([self._evaluate(start, z0)[1]])(0, nu)
        self.theta.add(*self.used)
        return lam + self.clocks.choose(moved, bar, torch.zeros_like(bar)), torch.zeros_like(nu)

    def _moved(self, moved: Tensor | None, who: Who) -> Tensor:
        """Which of all samples have taken a step, with those of one more attempt."""
        assert who.index is not None
        assert who.which is not None
        if moved is None:
            moved = torch.zeros_like(self.comparison.worst, dtype=torch.bool)
        return moved.index_put((who.index,), moved[who.index] | who.which)

    def _evaluate(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """f, and what it saves."""
        self.solved.stats.nfe_recomputed += 1
        return self.dynamics.forward(t, z)

    def pull(self, saved: Sequence[Any]) -> Pull:
        """(stage, cotangent of its slope) → that of its state; what θ gets of it is collected."""

        def through(i: int, cotangent: Tensor) -> Tensor:
            self.solved.stats.nfe_backward += 1
            bar, delta = self.dynamics.vjp(saved[i], cotangent)
            self.used[0].append(saved[i])
            self.used[1].append(delta)
            return bar

        return through

    def numeric(self, like: Tensor) -> Numeric:
        """The method's numbers in like's dtype, where it is."""
        return self.tape.tableau.numeric(like.dtype, like.device)

    def sums(self, like: Tensor) -> BarBuffer:
        """Memory for the cotangents of a step's stages."""
        if self.bars is None or not self.bars.fits(like):
            self.bars = BarBuffer(self.numeric(like), like)
        return self.bars


def _coupled_back(
    walk: ReversibleWalk, undone: Undone, dt: Tensor, bars: State, inside: Inside | None
) -> State:
    """The cotangents of (y, z) at a step's start, from those at its end."""
    pair, (lam, nu), m = cast("CoupledPair", walk.pair), bars, walk.tape.tableau.n_stages - 1
    ahead, back, sums = walk.pull(undone.ahead), walk.pull(undone.back), walk.sums(lam)
    k_bar, y_bar = dense_back(walk.numeric(lam), ahead, dt, inside)
    through, first = step_back(sums, back, -dt, -nu, None, None)
    lam = lam + (through + nu) + back(0, cast("Tensor", plus(k_bar[m], first)))
    moved = None  # what the outputs give to all stages before the last alike
    for k in k_bar[:m]:
        moved = plus(moved, k)
    own: list[Tensor | None] = [*k_bar[:m], None]
    through, first = step_back(sums, ahead, dt, lam, None, (own, -pair.coupling * lam))
    nu, lam = nu + through + ahead(0, first), pair.coupling * lam
    if y_bar is not None:
        lam = lam + y_bar
    if moved is not None and pair.coupling < 1.0:
        shared = moved * share(pair.coupling, dt)
        lam, nu = lam - shared, nu + shared
    return lam, nu


def _leapfrog_back(
    walk: ReversibleWalk, undone: Undone, dt: Tensor, bars: State, inside: Inside | None
) -> State:
    """The cotangents of (y, v) at a step's start, from those at its end."""
    pair, (lam, nu), half = cast("LeapfrogPair", walk.pair), bars, 0.5 * dt
    k_bar, y_bar = dense_back(walk.numeric(lam), walk.pull(undone.ahead), dt, inside)
    v_bar = nu + half * lam
    if k_bar[2] is not None:
        v_bar = v_bar + k_bar[2]
    u_bar = pair.weight * v_bar
    if k_bar[1] is not None:
        u_bar = u_bar + k_bar[1]
    lam = lam + walk.pull(undone.ahead)(1, u_bar)
    nu = (1.0 - pair.weight) * v_bar + half * lam
    if k_bar[0] is not None:
        nu = nu + k_bar[0]
    return (lam if y_bar is None else lam + y_bar), nu


def record_reversible(
    solved: Solved,
    tableau: Tableau,
    make_pair: Callable[[], Pair],
    start: Tensor,
    limit: Limit,
    *,
    jumps: bool,
    watch: Watch | None,
) -> Recording:
    """The recording of a pair's steps.

    tableau: of the method.
    make_pair: what undoes them.
    start: the time at which the solve begins, as func wants it.
    jumps: as of `PairTape`.  watch: as of `ReversibleWalk`.
    """
    tape = PairTape(solved, tableau, jumps=jumps)

    def walk(seen: Seen, g: Rows, want_theta: bool) -> Result:
        tape.last.check(solved.dynamics, solved.stats, solved.complain)
        both = outputs_of(solved, seen, g), Comparison(solved, limit, seen)
        return ReversibleWalk(tape, start, make_pair(), *both, want_theta=want_theta, watch=watch).run()

    return Recording(tape, walk)
