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

import abc
import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from ...solvers.march.output import as_time, by_step
from ...solvers.methods.tableau import Numeric, weights
from ...solvers.step.attempt import settled
from ...solvers.step.clocks import Each
from ...solvers.step.runge_kutta import dense_strides, flat_rows, rows_like
from ..dynamics.adapt import ThetaSum, stages_together, tell
from ..recording import Result, Rows, Seen
from .again import Again
from .implicit import StageSystems
from .rosenbrock import LinearStages
from .tape import Attempt, First, Inside, Solved, Tape, Who

Pull = Callable[[int, Tensor], Tensor]  # (stage i, k̄_i) → Ȳ_i; what θ gets of it is collected
Back = tuple[Tensor, Any]  # λ and the held k̄; of one clock None where none is held


class BarBuffer:
    """The Ȳ_i of a step, and λ behind them, in one tensor: a sum over them is one product with a matrix."""

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
        """Stores Ȳ_i; λ is the last stage's and comes first."""
        self.rows[i].copy_(bar)

    def cotangent(self, i: int, dt: Any) -> Tensor:
        """dt (b_i λ + Σ_{j>i} a_ji Ȳ_j)."""
        product = torch.mv(self.columns[i], self.numeric.back_vectors[i])
        return product.as_strided(self.shape, self.strides).mul_(dt)

    def total(self) -> Tensor:
        """λ + Σ_{i>0} Ȳ_i."""
        return self.behind_first.sum(0)


class BarList:
    """The same as separate tensors, term by term, for a compiled program."""

    def __init__(self, numeric: Numeric):
        self.numeric = numeric
        self.bars: list[tuple[int, Tensor]] = []

    def put(self, i: int, bar: Tensor) -> None:
        """Stores Ȳ_i; λ is the last stage's and comes first."""
        self.bars.append((i, settled(bar)))

    def cotangent(self, i: int, dt: Any) -> Tensor:
        """dt (b_i λ + Σ_{j>i} a_ji Ȳ_j)."""
        total = None
        for j, bar in self.bars:
            weight = dict(self.numeric.a_rows[j]).get(i)
            total = total if weight is None else plus(total, bar * weight)
        return torch.zeros_like(self.bars[0][1]) if total is None else total * dt

    def total(self) -> Tensor:
        """λ + Σ_{i>0} Ȳ_i."""
        first, *others = [bar for _, bar in self.bars]
        return sum(others, first)


def plus(total: Tensor | None, term: Tensor | None) -> Tensor | None:
    """The sum of those that are there."""
    if term is None:
        return total
    return term if total is None else total + term


def dense_back(
    numeric: Numeric, pull: Pull, dt: Any, inside: Inside | None
) -> tuple[list[Tensor | None], Tensor | None]:
    """What outputs inside a step add to the k̄_i and to dL/dy, that of the dense output's own stages passed
    on."""
    rows, m = numeric.a_rows, len(numeric.b) - 1
    if inside is None:
        return [None] * len(rows), None
    k_bar, y_bar = list(inside[0]), cast("Tensor | None", inside[1])
    for j in range(len(k_bar) - 1, m, -1):
        own = k_bar[j]
        if own is not None:
            bar = pull(j, own)
            y_bar = plus(y_bar, bar)
            for i, a in rows[j]:
                k_bar[i] = plus(k_bar[i], bar * a * dt)
    return k_bar, y_bar


def step_back(
    bars: BarBuffer | BarList, pull: Pull, dt: Any, lam: Tensor, held: Tensor | None, inside: Inside | None
) -> tuple[Tensor, Tensor]:
    """One step, transposed: (λ, k̄ of the last stage) → (dL/dy, k̄ of the first stage).

    dt: float, or a tensor that broadcasts against the state.  held: None where nothing comes back through
    the last stage.  inside: what outputs inside the step add.
    """
    m = len(bars.numeric.b) - 1
    k_bar, y_bar = dense_back(bars.numeric, pull, dt, inside)
    end, diagonal = plus(held, k_bar[m]), bars.numeric.diagonal[m]
    if diagonal != 0:  # implicit, it is on its own right side
        end = plus(lam * (diagonal * dt), end)
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


class Outputs(abc.ABC):
    """The cotangents of a solve's outputs and events."""

    @abc.abstractmethod
    def begin(self, z0: Tensor) -> Back:
        """At the end of the last step."""

    @abc.abstractmethod
    def at_end(self, n: int, lam: Tensor) -> Tensor:
        """λ with the outputs at the end of step n; n = −1: at the start itself, but for the first."""

    @abc.abstractmethod
    def inside(self, n: int, attempt: Attempt) -> Inside | None:
        """What outputs inside step n add; None where none lies there."""


class ByPlace(Outputs):
    """Of one clock: a list of places."""

    def __init__(self, seen: Seen, g: Rows):
        self.g = g[1:]
        self.ending, self.within = by_step(seen.places[1:])

    def begin(self, z0: Tensor) -> Back:
        """Nothing is held: the last stage's VJP may be spared."""
        return torch.zeros_like(z0), None

    def at_end(self, n: int, lam: Tensor) -> Tensor:
        """One after another."""
        for i in self.ending.get(n, ()):
            lam = lam + self.g[i]
        return lam

    def sums(self, n: int, attempt: Attempt) -> tuple[Tensor, Tensor, list[list[float]]]:
        """What outputs inside step n add to all k̄_i, [stages, *S], and to dL/dy; and their b_i(θ).

        One product for all outputs and stages: an addition each was slower than the step's VJPs.
        """
        places, thetas = zip(*self.within[n], strict=True)
        g = self.g[places[0] : places[-1] + 1]
        if not isinstance(g, Tensor) or len(g) != len(places):  # an event's lies behind all outputs
            g = torch.stack([self.g[i] for i in places])
        numeric, dt = attempt.numeric(g), attempt.dt
        rows = [weights(numeric, theta) for theta in thetas]
        table = torch.tensor([[*(dt * w for w in row), 1.0] for row in rows], dtype=g.dtype, device="cpu").t()
        both = torch.mm(table.to(g.device, non_blocking=True), g.reshape(len(g), -1)).view(-1, *g.shape[1:])
        return both[:-1], both[-1], rows

    def inside(self, n: int, attempt: Attempt) -> Inside | None:
        """Stages that no output weighs are left out, and so their VJPs."""
        if n not in self.within:
            return None
        k_bar, y_bar, rows = self.sums(n, attempt)
        used = zip(k_bar.unbind(), zip(*rows, strict=True), strict=True)
        return [k if any(row) else None for k, row in used], y_bar


class ByWritten(Outputs):
    """Of a clock a sample: what was written in each attempt, or what lies there of a question asked later."""

    def __init__(self, seen: Seen, g: Rows, clocks: Each):
        assert isinstance(seen.times, Tensor)
        assert isinstance(g, Tensor)
        self.g, self.clocks, self.asked = g, clocks, seen.outputs
        self.by_sample = g.movedim(clocks.batch + 1, 1)  # [n, B, …]
        self.at_start = seen.times[1:] == seen.times[:1]

    def begin(self, z0: Tensor) -> Back:
        """A cotangent of 0 is held for every sample."""
        return torch.zeros_like(self.g[0]), torch.zeros_like(self.g[0])

    def at_end(self, n: int, lam: Tensor) -> Tensor:
        """Of the samples whose own time is their start; an output at a step's end lies in it at θ = 1."""
        for row, mask in zip(self.g[1:], self.at_start, strict=True) if n < 0 else ():
            lam = lam + torch.where(self.clocks.spread(mask), row, 0.0)
        return lam

    def inside(self, n: int, attempt: Attempt) -> Inside | None:
        """Each sample's own outputs with its own weights."""
        outputs = attempt.outputs if self.asked is None else self.asked[n]
        if not outputs:
            return None
        k_bar: list[Tensor | None] = [None] * len(attempt.tableau.rows())
        y_bars, spread = [], self.clocks.spread
        for written in outputs:
            g = self.by_sample[written.place, attempt.who.index].movedim(1, self.clocks.batch + 1)
            g = torch.where(spread(written.valid), g, 0.0)  # [m, *state]
            y_bars.append(g.sum(0))
            for j, w in enumerate(written.weights):
                k_bar[j] = plus(k_bar[j], (g * spread(w)).sum(0) * attempt.dt)
        return k_bar, torch.stack(y_bars).sum(0)


def outputs_of(solved: Solved, seen: Seen, g: Rows) -> ByPlace | ByWritten:
    """How the cotangents of a solve's outputs enter a walk over its steps."""
    clocks = solved.clocks
    return ByWritten(seen, g, clocks) if isinstance(clocks, Each) else ByPlace(seen, g)


class DiscreteWalk:
    """The walk backwards over one tape.

    outputs: how their cotangents enter.  want_theta: whether θ's gradients are wanted.
    watch: sees (time, dL/dz there, None) at the ends of every step of one clock, for study.
    """

    def __init__(
        self,
        solved: Solved,
        tape: Tape,
        outputs: Outputs,
        *,
        want_theta: bool = True,
        watch: Callable[[float, Tensor, Tensor | None], None] | None = None,
    ):
        self.solved, self.tape, self.outputs, self.watch = solved, tape, outputs, watch
        self.dynamics, self.clocks = solved.dynamics, solved.clocks
        waits = tape.stages and not isinstance(self.clocks, Each)  # kept anyway, and of as many samples each
        together = stages_together(solved.dynamics, solved.z0) if waits else 1
        self.theta = ThetaSum(solved.dynamics, wanted=want_theta, together=together)
        self.bars: dict[Numeric, BarBuffer] = {}

    @functools.cached_property
    def again(self) -> Again:
        """The object that takes attempts again, made at the first of them."""
        return Again(self.solved)

    def run(self) -> Result:
        """(dL/dz at the start without the cotangent of the output there, θ's gradients)."""
        whole = self.outputs.begin(self.solved.z0.detach())
        saved: Sequence[Any] = ()
        for n, entry, state in self.tape.backwards(lambda state, entries: self.again.steps(state, entries)):
            lam, held = self._part(entry.who, whole)
            if isinstance(entry, First):
                back = lam + self._through(self._saved_first(entry, saved), held), None
            else:
                lam, inside = self.outputs.at_end(n, lam), self.outputs.inside(n, entry)
                end = held is not None or inside is not None
                if entry.saved is None:
                    entry = self.again.entry(entry, state, inside, end=end)
                assert entry.saved is not None
                saved = entry.saved
                back = self._step(entry, saved, (lam, held), inside)
            whole = self._moved(entry.who, whole, back)
        tell(self.dynamics, None)
        return self.outputs.at_end(-1, whole[0]), self.theta.result()

    def _part(self, who: Who, whole: Back) -> Back:
        """That of the samples in the batch; nothing is held for who did not accept."""
        if who.index is None or who.which is None:
            return whole
        lam, held = (self.clocks.take(x, who.index) for x in whole)
        return lam, torch.where(self.clocks.spread(who.which), held, 0.0)

    def _moved(self, who: Who, whole: Back, back: Back) -> Back:
        """The whole, with what has come back for those who accepted."""
        if who.index is None:
            return back
        old = [self.clocks.take(x, who.index) for x in whole]
        new = (torch.zeros_like(y) if x is None else x for x, y in zip(back, old, strict=True))
        moved = [self.clocks.choose(who.which, x, y) for x, y in zip(new, old, strict=True)]
        lam, held = (self.clocks.put(x, who.index, y) for x, y in zip(whole, moved, strict=True))
        return lam, held

    def _step(self, attempt: Attempt, saved: Sequence[Any], back: Back, inside: Inside | None) -> Back:
        """(dL/dy, the cotangent to be held) before an attempt."""
        used, deltas, (lam, held) = [], [], back

        def pull(i: int, cotangent: Tensor) -> Tensor:
            self.solved.stats.nfe_backward += 1
            used.append(saved[i])
            bar, delta = self.dynamics.vjp(used[-1], cotangent)
            deltas.append(delta)
            return bar

        def bare(i: int, cotangent: Tensor) -> Tensor:
            self.solved.stats.nfe_backward += 1
            return self.dynamics.vjp(saved[i], cotangent)[0]

        if self.watch is not None and held is None:
            self.watch(attempt.ends[1], lam, None)
        tableau, numeric = attempt.tableau, attempt.numeric(lam)
        if tableau.implicit:  # its Jacobian is evaluated
            tell(self.dynamics, attempt.who.index)
        bars = self.bars.get(numeric)
        if bars is None or not bars.fits(lam):
            self.bars[numeric] = bars = BarBuffer(numeric, lam)
        # A number would be made a tensor at every stage.
        dt = attempt.dt if isinstance(attempt.dt, Tensor) else as_time(attempt.dt, lam)
        if not tableau.implicit:
            lam, held = step_back(bars, pull, dt, lam, held, inside)
        elif tableau.gamma:
            linear = LinearStages(self.solved, attempt, dt, pull, self.theta.wanted)
            lam, held, more = linear.back(lam, held, inside)
            self.theta.add_gradients(more)
        else:
            systems = StageSystems(self.solved, attempt, dt, pull, bare)
            if tableau.coupled:
                lam, held = systems.back(lam, held, inside)
            else:
                lam, held = step_back(bars, systems.pull, dt, lam, held, inside)
        self.theta.add(used, deltas)
        if self.watch is not None:
            # dL/dy0 lacks what comes through the first stage while that is held back.
            self.watch(attempt.ends[0], lam + self.dynamics.vjp(saved[0], held)[0], None)
        return lam, held

    def _through(self, saved: Any, held: Tensor) -> Tensor:
        """The cotangent that comes through a first stage of its own."""
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
        # It was evaluated in a compiled program, which begins at the start.
        return self.again.at_start(self.tape.attempt(0).ends[0])
