"""The discrete adjoint: the exact derivative of the numbers that the forward solve computed.

For a step y1 = y + dt Σ b_i k_i, k_i = F(t_i, Y_i), Y_i = y + dt Σ_{j<i} a_ij k_j, given λ = dL/dy1,
from the last stage to the first:

    k̄_i = dt (b_i λ + Σ_{j>i} a_ji Ȳ_j),   Ȳ_i = (∂F/∂z)ᵀ|_{Y_i} k̄_i,   θ̄ += (∂F/∂θ)ᵀ|_{Y_i} k̄_i
    dL/dy = λ + Σ_i Ȳ_i

An output inside the step, y(t + θ dt) = y + dt Σ b_i(θ) k_i with cotangent g, adds dt b_i(θ) g to
k̄_i and g to dL/dy. The first stage of a step is the last of the step before, f(t1, y1): its
cotangent k̄_1 is held back and added to that stage's there, so that one VJP serves both. Step sizes
count as constants. With a clock a sample dt is a vector; a sample that did not accept has dt = 0,
and λ and the held k̄_1 pass it by. dL/dθ stays one copy: every sample's own dt is already in its
stages' cotangents.

Sources: A. Sandu, On the properties of Runge–Kutta discrete adjoints, ICCS 2006; W. W. Hager,
Runge–Kutta methods in optimal control and the transformed adjoint system, Numer. Math. 87 (2000).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from ...solvers.errors import NotRepeatableError
from ...solvers.march.output import clock
from ...solvers.methods.tableau import Numeric, Tableau
from ...solvers.stats import Stats
from ...solvers.step.clocks import Clocks
from ...solvers.step.memory_order import dense_strides, flat_rows, rows_like
from ...solvers.step.runge_kutta import StageBuffer, dense_stages, rk_step
from ..dynamics.protocol import Dynamics, ThetaSum
from .outputs import Inside, Outputs, plus
from .tape import Attempt, Entries, Entry, First, State, Who

Maybe = TypeVar("Maybe", Tensor, "Tensor | None")
Pull = Callable[[int, Tensor], Tensor]  # (stage i, k̄_i) → Ȳ_i; what θ gets of it is collected


class Bars(Protocol):
    """Where the Ȳ_i of one step live, and λ behind them."""

    numeric: Numeric

    def put(self, i: int, bar: Tensor) -> None:
        """Stores Ȳ_i; λ is the last stage's, the first to come."""

    def cotangent(self, i: int, dt: Any) -> Tensor:
        """dt (b_i λ + Σ_{j>i} a_ji Ȳ_j), a tensor of its own."""

    def total(self) -> Tensor:
        """λ + Σ_{i>0} Ȳ_i."""


class BarBuffer:
    """The Ȳ_i in one tensor for all steps: a sum over them is one product with a matrix."""

    def __init__(self, numeric: Numeric, like: Tensor):
        self.numeric, self.shape, self.strides = numeric, like.shape, dense_strides(like)
        self.memory = rows_like(len(numeric.b), like, self.strides)
        flat = flat_rows(self.memory)
        # Made once for all steps: each view costs as much as a small product.
        self.rows, self.behind_first = self.memory.unbind(), self.memory[1:]
        self.columns = [flat[i + 1 :].t() for i in range(len(self.memory) - 1)]

    def fits(self, like: Tensor) -> bool:
        """Whether states like this one have room in it, in their memory order."""
        return self.shape == like.shape and self.strides == dense_strides(like)

    def put(self, i: int, bar: Tensor) -> None:
        """A copy."""
        self.rows[i].copy_(bar)

    def cotangent(self, i: int, dt: Any) -> Tensor:
        """One product."""
        product = torch.mv(self.columns[i], self.numeric.back_vectors[i])
        return product.as_strided(self.shape, self.strides).mul_(dt)

    def total(self) -> Tensor:
        """One sum."""
        return self.behind_first.sum(0)


def step_back(
    bars: Bars, pull: Pull, dt: Any, lam: Tensor, held: Tensor | None, inside: Inside | None
) -> tuple[Tensor, Tensor]:
    """One step, transposed: (λ, k̄ of the last stage) → (dL/dy, k̄ of the first stage).

    dt: float, or a tensor that broadcasts against the state.  held: None where nothing comes back through
    the last stage.  inside: what outputs inside the step add.
    """
    rows, m = bars.numeric.a_rows, len(bars.numeric.b) - 1
    k_bar: list[Tensor | None] = [None] * len(rows) if inside is None else list(inside[0])
    y_bar = None if inside is None else inside[1]
    for j in range(len(k_bar) - 1, m, -1):  # stages of the dense output alone
        own = k_bar[j]
        if own is not None:
            bar = pull(j, own)
            y_bar = plus(y_bar, bar)
            for i, a in rows[j]:
                k_bar[i] = plus(k_bar[i], bar * a * dt)
    end = plus(held, k_bar[m])
    if end is not None:
        lam = lam + pull(m, end)  # Y_m is y1
    bars.put(m, lam)
    for i in range(m - 1, -1, -1):
        cotangent = bars.cotangent(i, dt)
        own = k_bar[i]
        if own is not None:
            cotangent = cotangent + own
        if i > 0:
            bars.put(i, pull(i, cotangent))
    total = bars.total()
    return (total if y_bar is None else total + y_bar), cotangent


@dataclasses.dataclass(frozen=True)
class Solved:
    """The solve that is walked back.

    z0: its start.  complain: is called where func does not give a value again.
    """

    dynamics: Dynamics
    tableau: Tableau
    clocks: Clocks
    z0: Tensor
    stats: Stats[Any, Any]
    complain: Callable[[NotRepeatableError], None]

    @property
    def numeric(self) -> Numeric:
        """The tableau in the state's dtype, where the state is."""
        return self.tableau.numeric(self.z0.dtype, self.z0.device)


class DiscreteWalk:
    """The walk backwards over one tape.

    outputs: how their cotangents enter.  want_theta: whether θ's gradients are wanted.
    watch: sees (time, dL/dz there, None) at the ends of every step of one clock, for study.
    """

    def __init__(
        self,
        solved: Solved,
        tape: Entries,
        outputs: Outputs,
        *,
        want_theta: bool = True,
        watch: Callable[[float, Tensor, Tensor | None], None] | None = None,
    ):
        self.solved, self.tape, self.outputs, self.watch = solved, tape, outputs, watch
        self.dynamics, self.tableau, self.clocks = solved.dynamics, solved.tableau, solved.clocks
        self.numeric = solved.numeric
        self.theta = ThetaSum(solved.dynamics, wanted=want_theta)
        self.bars: BarBuffer | None = None

    def run(self) -> tuple[Tensor, list[Tensor]]:
        """(dL/dz at the start without the cotangent of the output there, θ's gradients)."""
        lam, held = self.outputs.begin(self.solved.z0.detach())
        saved: Sequence[Any] = ()
        for n, entry in self.tape.backwards(self._again):
            who = entry.who
            own, back = self._part(who, lam), self._part(who, held)
            if back is not None and who.which is not None:
                back = torch.where(self.clocks.spread(who.which), back, 0.0)
            if isinstance(entry, First):
                assert back is not None
                own, back = own + self._through(self._saved_first(entry, saved), back), None
            else:
                own = self.outputs.at_end(n, own)
                inside = self.outputs.inside(n, entry)
                saved = self._saved(entry, inside, end=back is not None or inside is not None)
                own, back = self._step(entry, saved, own, back, inside)
            lam, held = self._moved(who, lam, own), self._moved(who, held, back)
        return self.outputs.at_start(lam), self.theta.result()

    def _part(self, who: Who, whole: Maybe) -> Maybe:
        """The samples of an entry."""
        return None if whole is None else self.clocks.take(whole, who.index)

    def _moved(self, who: Who, whole: Tensor | None, new: Maybe) -> Maybe:
        """The whole, changed where an entry concerns a sample; new: None stands for 0."""
        if who.index is None or whole is None:
            return new
        part = self.clocks.take(whole, who.index)
        found = torch.zeros_like(part) if new is None else new
        return self.clocks.put(whole, who.index, self.clocks.choose(who.which, found, part))

    def _step(
        self, attempt: Attempt, saved: Sequence[Any], lam: Tensor, held: Tensor | None, inside: Inside | None
    ) -> tuple[Tensor, Tensor]:
        """(dL/dy, the cotangent to be held) before an attempt."""
        used, deltas = [], []

        def pull(i: int, cotangent: Tensor) -> Tensor:
            self.solved.stats.nfe_backward += 1
            used.append(saved[i])
            bar, delta = self.dynamics.vjp(used[-1], cotangent)
            deltas.append(delta)
            return bar

        if self.watch is not None and held is None:
            self.watch(attempt.ends[1], lam, None)
        if self.bars is None or not self.bars.fits(lam):
            self.bars = BarBuffer(self.numeric, lam)
        lam, held = step_back(self.bars, pull, attempt.dt, lam, held, inside)
        self.theta.add(used, deltas)
        if self.watch is not None:
            # dL/dy0 lacks what comes through the first stage while that is held back.
            self.watch(attempt.ends[0], lam + self.dynamics.vjp(saved[0], held)[0], None)
        return lam, held

    def _through(self, saved: Any, held: Tensor) -> Tensor:
        """What comes through a first stage of its own."""
        self.solved.stats.nfe_backward += 1
        bar, delta = self.dynamics.vjp(saved, held)
        self.theta.add([saved], [delta])
        return bar

    def _saved_first(self, first: First, following: Sequence[Any]) -> Any:
        """What a first stage saved: of one clock, that of the step which begins with it."""
        if first.who.index is not None:
            return first.saved
        if following[0] is not None:
            return following[0]
        z0 = self.solved.z0.detach()  # it was evaluated in a compiled program, which begins at the start
        return self._evaluate(clock(self.tape.attempt(0).ends[0], z0), z0)[1]

    def _saved(self, attempt: Attempt, inside: Inside | None, *, end: bool) -> Sequence[Any]:
        """What each stage saved, evaluated anew (with dt = 0 where not accepted) if it was not kept.

        end: f(t1, y1) is needed.
        """
        if attempt.saved is not None:
            return attempt.saved
        assert attempt.start is not None
        y, known = attempt.start
        times = attempt.stage_times(self.tableau, y)
        # Of one clock the first stage is evaluated as well: what it saves may be wanted.
        first = self._evaluate(times[0], y) if known is None or attempt.who.index is None else (known, None)
        buffer = StageBuffer(self.numeric, y, attempt.dt)
        result = rk_step(self._evaluate, y, first, times, self.tableau, buffer, evaluate_end=end)
        if inside is not None and any(k is not None for k in inside[0][self.tableau.n_stages :]):
            dense_stages(self._evaluate, y, times, self.tableau, result)
        return result.saved

    def _again(self, state: State, entries: Sequence[Entry]) -> State:
        """Takes attempts again from a kept state, with the sizes they had, and what lies between them."""
        y, first = state
        one_clock = first is None
        for entry in entries:
            if isinstance(entry, Tensor):
                y, first = self.clocks.take(y, entry), self._part(Who(entry), first)
            elif isinstance(entry, First):  # of one clock it is evaluated anew
                if first is not None and entry.value is not None:
                    first = self.clocks.choose(entry.who.which, entry.value, first)
                first = None if one_clock else first
            else:
                times = entry.stage_times(self.tableau, y)
                first = self._unsaved(times[0], y)[0] if first is None else first
                buffer = StageBuffer(self.numeric, y, entry.dt)
                result = rk_step(self._unsaved, y, (first, None), times, self.tableau, buffer)
                first = self.clocks.choose(entry.who.which, buffer.get(self.tableau.n_stages - 1), first)
                y = self.clocks.choose(entry.who.which, result.y1, y)
        return y, None if one_clock else first

    def _unsaved(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        return self._evaluate(t, z)[0], None

    def _evaluate(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        self.solved.stats.nfe_recomputed += 1
        return self.dynamics.forward(t, z)
