"""What a forward solve keeps for the discrete walk back: its accepted attempts, in order."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ...solvers.march.output import Step, stage_times
from ...solvers.march.samples import SampleStep, Written
from ...solvers.methods.tableau import Tableau
from ..dynamics.repeatable import LastEvaluation
from ..recording import Recorder
from .checkpointing import Take, Thinning, walk_back

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

    dt: signed; a tensor that broadcasts against the state, 0 for who did not accept.
    saved: what each stage saved; None: `start` says from where the stages are evaluated anew.
    times: of the stages; None where they are `stage_times(*ends)`: a 0-d tensor a stage would be a whole
    small state a step.
    ends: t0 and t1 of the one clock.  outputs: what was written inside the step of a clock a sample.
    """

    dt: float | Tensor
    saved: Sequence[Any] | None
    start: State | None
    times: list[Tensor] | None
    ends: tuple[float, float] = (0.0, 0.0)
    who: Who = ALL
    outputs: Sequence[Written] = ()

    def stage_times(self, tableau: Tableau, like: Tensor) -> list[Tensor]:
        """Where its stages are evaluated anew, of like's dtype."""
        return stage_times(*self.ends, tableau, like) if self.times is None else self.times


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


def saved_by(step: Step | SampleStep) -> Sequence[Any] | None:
    """What the field saved at every stage; None where a compiled program did not hand it out."""
    if not getattr(step, "has_saved", True):
        return None
    saved = step.result.saved
    return tuple(saved) if isinstance(saved, list) else saved


def attempt_of(step: Step | SampleStep, saved: Sequence[Any] | None, start: State | None) -> Attempt:
    """The entry for a step of either stepping."""
    if not isinstance(step, SampleStep):
        return Attempt(step.dt, saved, start, None if step.plain else step.times, (step.t0, step.t1))
    accepted, at_rest = step.accepted, step.times[0]
    times = None
    if saved is None:
        times = [torch.where(accepted.view(at_rest.shape), t, at_rest) for t in step.times]
    dt = torch.where(step.clocks.spread(accepted), step.dt, 0.0)
    return Attempt(dt, saved, start, times, who=Who(step.index, accepted), outputs=step.outputs)


class Entries(Recorder, abc.ABC):
    """A recorder of attempts and of the first stages between them.

    everyone: positions of all samples, [B]; None: one clock.
    stages: keep what the field saved at every stage.  first: keep f(t0, y0) beside a state of one clock.
    last: is shown every step, where stages will be evaluated anew.
    """

    takes_again = False  # attempts, and so the values of first stages between them

    def __init__(
        self,
        everyone: Tensor | None,
        *,
        stages: bool,
        first: bool = False,
        last: LastEvaluation | None = None,
    ):
        self.index, self.stages, self.first, self.last = everyone, stages, first, last
        self.entries: list[Entry] = []
        self.places: list[int] = []  # of the attempts

    def start(self, saved: Any) -> None:
        """The first evaluation of a clock a sample."""
        assert self.index is not None
        which = torch.ones_like(self.index, dtype=torch.bool)
        self.entries.append(First(Who(self.index, which), saved))

    def restart(self, saved: Any, which: Tensor, first: Tensor) -> None:
        """First stages evaluated anew for the samples in `which`."""
        self.entries.append(First(Who(self.index, which), saved, first if self.takes_again else None))

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
        saved = saved_by(step) if self.stages else None
        start = None
        if saved is None:
            start = self.kept(len(self.places), (step.y0, self._first(step)))
        self.places.append(len(self.entries))
        self.entries.append(attempt_of(step, saved, start))

    def _first(self, step: Step | SampleStep) -> Tensor | None:
        if isinstance(step, SampleStep):
            return step.first
        return getattr(step, "k0", None) if self.first else None

    @abc.abstractmethod
    def kept(self, n: int, state: State) -> State | None:
        """What attempt n itself keeps of the state that its stages start from."""

    @abc.abstractmethod
    def backwards(self, again: Again) -> Iterator[tuple[int, Attempt | First]]:
        """The entries from the last to the first, each with the number of its attempt or of the next one."""

    def attempt(self, n: int) -> Attempt:
        """The attempt of that number."""
        found = self.entries[self.places[n]]
        assert isinstance(found, Attempt)
        return found

    def firsts_before(self, n: int) -> Iterator[tuple[int, First]]:
        """First stages between attempt n and the one before it, the last of them first."""
        begin = self.places[n - 1] + 1 if n else 0
        return ((n, x) for x in reversed(self.entries[begin : self.places[n]]) if isinstance(x, First))


class Tape(Entries):
    """Every attempt, with what its stages saved, or with the state from which they are evaluated anew."""

    def kept(self, n: int, state: State) -> State:
        """All of it."""
        return state

    def backwards(self, again: Again) -> Iterator[tuple[int, Attempt | First]]:
        """Nothing is taken again."""
        for n in range(len(self.places) - 1, -1, -1):
            yield n, self.attempt(n)
            yield from self.firsts_before(n)


class CheckpointTape(Entries):
    """Every attempt, with at most `checkpoints` of their states, now or in the walk back.

    Attempts are taken again from the nearest kept state with the sizes they had: the same numbers.
    """

    takes_again = True

    def __init__(self, everyone: Tensor | None, checkpoints: int, last: LastEvaluation | None):
        super().__init__(everyone, stages=False, last=last)
        self.checkpoints = checkpoints
        self.thinning = Thinning(max(checkpoints // 2, 1))
        self.states: dict[int, State] = {}

    def kept(self, n: int, state: State) -> None:
        """Nothing: the states that stay are the tape's."""
        if self.thinning.offer(n):
            self.states[n] = state
        for k in self.thinning.gone:
            self.states.pop(k, None)

    def backwards(self, again: Again) -> Iterator[tuple[int, Attempt | First]]:
        """States are taken again on the way; the tape itself stays as it is."""
        if not self.places:  # no sample began
            return
        states = dict(self.states)
        kept = sorted(states)
        for action in walk_back(kept, len(self.places), self.checkpoints - len(kept)):
            if isinstance(action, Take):
                begin, end = self.places[action.start], self.places[action.end]
                states[action.end] = again(states[action.start], self.entries[begin:end])
                continue
            yield action.n, dataclasses.replace(self.attempt(action.n), start=states.pop(action.n))
            yield from self.firsts_before(action.n)
