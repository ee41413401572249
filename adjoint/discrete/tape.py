"""What a forward solve keeps for the discrete walk back: its accepted attempts, in order."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from ...solvers.errors import NotRepeatableError, ReconstructionError
from ...solvers.march.output import Step, stage_times
from ...solvers.march.samples import SampleStep, Written
from ...solvers.methods.tableau import Numeric, Tableau
from ...solvers.stats import Stats
from ...solvers.step.clocks import Clocks
from ...solvers.step.implicit.jacobian import Jacobian
from ...solvers.step.implicit.newton import Measure
from ..dynamics.adapt import LastEvaluation
from ..dynamics.protocol import Dynamics
from ..recording import Recorder


class Thinning:
    """Decides online which states stay: at most `most`, evenly spread.

    `offer` is asked once for n = 0, 1, 2, … and says whether state n stays; `gone` then holds the
    indices kept before that go for it.
    """

    def __init__(self, most: int):
        self.most, self.stride = max(most, 1), 1
        self.kept: list[int] = []
        self.gone: list[int] = []

    def offer(self, n: int) -> bool:
        """Whether state n is kept."""
        self.gone = []
        if n % self.stride:
            return False
        self.kept.append(n)
        while len(self.kept) > self.most:
            self.stride *= 2
            self.gone += [k for k in self.kept if k % self.stride]
            self.kept = [k for k in self.kept if k % self.stride == 0]
        return n not in self.gone


@dataclasses.dataclass(frozen=True)
class Take:
    """Take the steps from the kept state `start` up to `end` and keep the state there."""

    start: int
    end: int


@dataclasses.dataclass(frozen=True)
class Back:
    """Walk back step n, whose state is kept; the state may be forgotten then."""

    n: int


def best_split(length: int, free: int) -> int:
    """How far from the kept state to put the next one, with `free` ≥ 1 places.

    β(c, r) = C(c + r, c) steps can be walked back with c places (the start's included) when none is
    taken more than r times; the next state goes as far as r − 1 repetitions of what is before it reach.
    """
    places, r = free + 1, 1
    while math.comb(places + r, places) < length:
        r += 1
    return min(math.comb(places + r - 1, places), length - 1)


def walk_back(kept: list[int], steps: int, free: int) -> Iterator[Take | Back]:
    """All actions to walk back steps − 1, …, 0 from the kept states.

    free: further places, one of which holds the state of the step that is just walked back.
    """
    for start, end in zip(reversed(kept), reversed([*kept[1:], steps]), strict=True):
        yield from _stretch(start, end, max(free - 1, 0))


def _stretch(start: int, end: int, free: int) -> Iterator[Take | Back]:
    if end - start == 1:
        yield Back(start)
        return
    if free == 0:
        for n in range(end - 1, start, -1):
            yield Take(start, n)
            yield Back(n)
        yield Back(start)
        return
    middle = start + best_split(end - start, free)
    yield Take(start, middle)
    yield from _stretch(middle, end, free - 1)
    yield from _stretch(start, middle, free)


@dataclasses.dataclass(frozen=True)
class Solved:
    """The solve that is walked back.

    z0: its start.  complain: is called where func does not give a value again, or a state is not rebuilt.
    implicit: of an implicit method, the Jacobian and in what its corrections are measured.
    """

    dynamics: Dynamics
    clocks: Clocks
    z0: Tensor
    stats: Stats[Any, Any]
    complain: Callable[[NotRepeatableError | ReconstructionError], None]
    implicit: tuple[Jacobian, Measure] | None = None


# What outputs inside a step add: to each k̄_i (None: nothing), and to dL/dy
Inside = tuple[Sequence[Tensor | None], Tensor]
State = tuple[Tensor, Any]  # y, and f there; None: f is evaluated anew


@dataclasses.dataclass(frozen=True)
class Who:
    """The samples that were in the batch, and which of them an entry concerns, [b] both.

    None: the one clock that all have.
    """

    index: Tensor | None = None
    which: Tensor | None = None


ALL = Who()


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One accepted step, or one attempt of all samples, which some of them accepted.

    tableau: of the method that took it.
    dt: signed; a tensor that broadcasts against the state, 0 for who did not accept.
    saved: what each stage saved; None: the stages are evaluated anew from a state.
    times: of the stages; None where they are `stage_times(*ends)`: a 0-d tensor a stage would be a whole
        small state a step.
    ends: t0 and t1 of the one clock.
    outputs: what was written inside the step of a clock a sample.
    points: the states of an implicit step's stages, the first its start, where saved is there.
    found: what the systems of a Rosenbrock step were solved to, with them.
    """

    tableau: Tableau
    dt: float | Tensor
    saved: Sequence[Any] | None
    times: list[Tensor] | None
    ends: tuple[float, float] = (0.0, 0.0)
    who: Who = ALL
    outputs: Sequence[Written] = ()
    points: Sequence[Tensor] | None = None
    found: Sequence[Tensor] | None = None

    def stage_times(self, like: Tensor) -> list[Tensor]:
        """Where its stages are evaluated anew, of like's dtype."""
        return stage_times(*self.ends, self.tableau, like) if self.times is None else self.times

    def numeric(self, like: Tensor) -> Numeric:
        """The tableau in like's dtype, where it is."""
        return self.tableau.numeric(like.dtype, like.device)


@dataclasses.dataclass(frozen=True)
class First:
    """A first stage of its own, at the start and after a jump of f: no step before shares it.

    saved, value: what it saved and its value, of a clock a sample; of one clock they are the next step's.
    """

    who: Who = ALL
    saved: Any = None
    value: Any = None


Entry = Attempt | First | Tensor  # a tensor: positions of the samples that stayed in the batch
# (state, entries from there) → the state after them
Again = Callable[[State, Sequence[Entry]], State]


def attempt_of(step: Step | SampleStep, saved: Sequence[Any] | None) -> Attempt:
    """The entry for a step of either stepping."""
    solved = step.result.solved
    points, found = (None, None) if solved is None or saved is None else (solved.points, solved.found)
    if not isinstance(step, SampleStep):
        times = None if step.plain else step.times
        return Attempt(step.tableau, step.dt, saved, times, (step.t0, step.t1), points=points, found=found)
    accepted, at_rest = step.accepted, step.times[0]
    times = None
    if saved is None or points is not None:
        times = [torch.where(accepted.view(at_rest.shape), t, at_rest) for t in step.times]
    dt = torch.where(step.clocks.spread(accepted), step.dt, 0.0)
    who = Who(step.index, accepted)
    own = (step.tableau, dt, saved, times)
    return Attempt(*own, who=who, outputs=step.outputs, points=points, found=found)


class Tape(Recorder):
    """A recorder of attempts and of the first stages between them.

    everyone: positions of all samples, [B]; None: one clock.
    stages: keep what the field saved at every stage; else, and where a step did not hand that out, states.
    checkpoints: how many of the states are there at most, now or in the walk back; attempts are taken again
        from the nearest one with the sizes they had, so their numbers are the same.
    last: is shown every step; None: f at each state of one clock is kept with it, where a step tells it (not
        with checkpoints).
    """

    def __init__(
        self, everyone: Tensor | None, *, stages: bool, checkpoints: int | None, last: LastEvaluation | None
    ):
        self.index, self.stages, self.checkpoints, self.last = everyone, stages, checkpoints, last
        self.thinning = Thinning(sys.maxsize if checkpoints is None else max(checkpoints // 2, 1))
        self.entries: list[Entry] = []
        self.places: list[int] = []  # of the attempts
        self.states: dict[int, State] = {}

    def start(self, saved: Any) -> None:
        """The first evaluation of a clock a sample."""
        assert self.index is not None
        which = torch.ones_like(self.index, dtype=torch.bool)
        self.entries.append(First(Who(self.index, which), saved))

    def restart(self, saved: Any, which: Tensor, first: Tensor) -> None:
        """First stages evaluated anew for the samples in `which`."""
        self.entries.append(First(Who(self.index, which), saved, None if self.checkpoints is None else first))

    def compact(self, keep: Tensor) -> None:
        """Samples have left."""
        assert self.index is not None
        self.index = self.index.index_select(0, keep)
        self.entries.append(keep)

    def step(self, step: Step | SampleStep) -> None:
        """An accepted step, or an attempt of all samples."""
        if self.last is not None:
            self.last.see(step)
        if isinstance(step, Step) and not step.chained:
            self.entries.append(First())
        n, saved = len(self.places), self._saved(step)
        if saved is None and self.thinning.offer(n):
            self.states[n] = (step.y0, self._first(step))
        for k in self.thinning.gone:
            self.states.pop(k, None)
        self.places.append(len(self.entries))
        self.entries.append(attempt_of(step, saved))

    def _saved(self, step: Step | SampleStep) -> Sequence[Any] | None:
        if not self.stages or not getattr(step, "has_saved", True):
            return None
        saved = step.result.saved
        return tuple(saved) if isinstance(saved, list) else saved

    def _first(self, step: Step | SampleStep) -> Any:
        if isinstance(step, SampleStep):
            return step.first
        return getattr(step, "k0", None) if self.last is None and self.checkpoints is None else None

    def attempt(self, n: int) -> Attempt:
        """The attempt of that number."""
        return cast("Attempt", self.entries[self.places[n]])

    def backwards(self, again: Again) -> Iterator[tuple[int, Attempt | First, State | None]]:
        """The entries from the last to the first, each with the number of its attempt or of the next one, and
        the state from which an attempt's stages are evaluated anew; the tape itself stays as it is."""
        states, places = dict(self.states), self.places
        if not places:  # no sample began
            return
        kept, free = list(range(len(places))), 0
        if self.checkpoints is not None:
            kept = sorted(states)
            free = self.checkpoints - len(kept)
        for action in walk_back(kept, len(places), free):
            if isinstance(action, Take):
                entries = self.entries[places[action.start] : places[action.end]]
                states[action.end] = again(states[action.start], entries)
                continue
            n = action.n
            yield n, self.attempt(n), states.pop(n, None)
            for entry in reversed(self.entries[places[n - 1] + 1 if n else 0 : places[n]]):
                if isinstance(entry, First):
                    yield n, entry, None
