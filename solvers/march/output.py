"""One attempted step with its dense output, and what is written of the accepted ones."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import random_sentence
from ..methods.tableau import Tableau, derivative_weights, weights
from ..step.clocks import ONE, Clocks, times_between, unlike
from ..step.field import CountedField, around
from ..step.further import dense_stages
from ..step.kept import kept
from ..step.runge_kutta import Evaluation, Field, StepResult
from . import repeats
from .repeats import next_look, refuse_random

Hook = Callable[["Step"], "bool | None"]


@dataclasses.dataclass
class Step:
    """One attempt: from (t0, y0) to (t1, y1), with everything a recorder may want.

    times: at which the stages are evaluated, 0-d (just beside t0 or t1 where f jumps there).
    stages, saved: k_i and what the field saved at each; valid until the next attempt unless the stepper keeps
        stages.
    chained: the first stage is the previous accepted step's last.
    error_ratio: NaN-propagating; finite: every stage and y1 are finite numbers.
    unsolved: the equations of an implicit step were not solved.
    stiffness: dt·|λ|, where the solve asks for it.
    watched: in which parts of the step which event fires, where events are watched.
    plain: times are `stage_times(t0, t1)`, so they need not be kept.
    k0: the first stage, f(t0, y0), where it is handed out.
    has_saved: so is what the field saved.
    graph: the solve's grad mode. Stages that are evaluated late are kept and used by outputs, so they are
        evaluated under it whoever asks first: the search for an event asks without a graph.
    """

    t0: float
    t1: float
    y0: Tensor
    result: StepResult
    tableau: Tableau
    field: Field
    chained: bool
    times: list[Tensor]
    error_ratio: float = math.nan
    finite: bool = True
    unsolved: bool = False
    stiffness: float = math.nan
    watched: list[float] | None = None
    plain: bool = False
    graph: bool = dataclasses.field(default_factory=torch.is_grad_enabled)
    k0: Tensor | None = None
    has_saved: bool = True
    _dense: bool = False
    clocks: ClassVar[Clocks] = ONE

    def __getstate__(self) -> dict[str, Any]:
        """Of a step that is complete, what its dense output needs: func does not go into a file."""
        gone: dict[str, Any] = {"field": None, "times": [], "k0": None, "watched": None}
        return {**vars(self), **gone, "y0": self.y0.detach(), "result": kept(self.result)}

    @property
    def dt(self) -> float:
        """Signed length."""
        return self.t1 - self.t0

    length = dt  # as a step with a clock a sample calls it, whose dt broadcasts

    @property
    def y1(self) -> Tensor:
        """State at t1."""
        return self.result.y1

    @property
    def saved(self) -> list[Any]:
        """What the field saved at each stage."""
        return self.result.saved

    @property
    def last(self) -> Evaluation:
        """f(t1, y1) and what was saved there: the next step's first stage."""
        n = self.tableau.n_stages
        return self.result.stages.get(n - 1), self.result.saved[n - 1]

    def examined(self) -> bool:
        """Whether every entry is finite, where a sum over them is not (only then: more host reads)."""
        fine = torch.stack([torch.isfinite(x).all() for x in self.result.ends]).all()
        for i in range(self.tableau.n_stages):
            fine = fine & torch.isfinite(self.result.stages.get(i)).all()
        return bool(fine)  # host read

    def theta(self, t: float) -> float:
        """Where t lies in the step, 0 at t0 and 1 at t1."""
        return (t - self.t0) / (self.t1 - self.t0)

    def _ensure_end(self) -> None:
        """Evaluates f(t1, y1) where the step left it out (a fixed grid's last)."""
        n = self.tableau.n_stages
        if len(self.result.saved) < n:
            with torch.set_grad_enabled(self.graph):
                k, kept = self.field(self.times[n - 1], self.y1)
            self.result.stages.put(n - 1, k)
            self.result.saved.append(kept)

    def _ensure_dense(self) -> None:
        """Evaluates what only the dense output needs, once."""
        if not self._dense and self.tableau.dense_needs_end:
            self._ensure_end()
            with torch.set_grad_enabled(self.graph):
                dense_stages(self.field, self.y0, self.times, self.tableau, self.result)
        self._dense = True

    def complete(self, *, closer: bool = True) -> None:
        """Evaluates all that the dense output will need; closer=False: all that looks without it need."""
        if closer or self.tableau.dense_needs_end:
            self._ensure_end()
        if closer:
            self._ensure_dense()

    def value(self, t: float) -> Tensor:
        """y(t) for t in the step; exactly y1 at t1."""
        return self.y1 if t == self.t1 else self.at(self.theta(t))

    def values(self, times: Sequence[float]) -> list[Tensor]:
        """y at several times in the step, exactly y1 at t1."""
        inside = [t for t in times if t != self.t1]
        if not inside:
            return [self.y1] * len(times)
        self._ensure_dense()
        stages = self.result.stages
        found = iter(stages.several(self.y0, [weights(stages.numeric, self.theta(t)) for t in inside]))
        return [self.y1 if t == self.t1 else next(found) for t in times]

    def at(self, theta: float) -> Tensor:
        """y(t0 + θ dt)."""
        self._ensure_dense()
        return self.result.stages.combine(self.y0, weights(self.result.stages.numeric, theta))

    def derivative(self, t: float) -> Tensor:
        """y'(t) for t in the step; f(t1, y1) at t1."""
        if t == self.t1:
            self._ensure_end()
            return self.last[0]
        self._ensure_dense()
        numeric = self.result.stages.numeric
        return self.result.stages.combine(None, derivative_weights(numeric, self.theta(t)))


def as_time(t: float, like: Tensor) -> Tensor:
    """t as the field wants it: 0-d, of the state's real dtype, made on the device (no copy to it)."""
    return torch.full((), t, dtype=like.dtype, device=like.device)


def restart_time(t: float, like: Tensor, jump: float) -> Tensor:
    """t as `as_time` has it; where f jumps there, the next number in the direction ``jump``, else 0.0."""
    time = as_time(t, like)
    return torch.nextafter(time, torch.full_like(time, math.inf * jump)) if jump else time


def as_times(times: Sequence[float], like: Tensor) -> list[Tensor]:
    """Times as 0-d tensors, as the field wants them."""
    if like.device.type == "cpu":  # elsewhere this would be a copy to the device
        return list(torch.tensor(times, dtype=like.dtype, device=like.device).unbind())
    return [as_time(t, like) for t in times]


def stage_times(t0: float, t1: float, tableau: Tableau, like: Tensor) -> list[Tensor]:
    """When a step's stages are evaluated, 0-d each."""
    return as_times(times_between(t0, t1, tableau.numeric(like.dtype, like.device).c), like)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where an output lies: in the step with this index (−1: the start), at θ in (0, 1].

    A step of −2 means nowhere: a time after the event that ended the solve.
    """

    step: int
    theta: float

    @property
    def reached(self) -> bool:
        """Whether the solve came there."""
        return self != NOWHERE


NOWHERE = Place(-2, 1.0)


def by_step(places: Sequence[Place]) -> tuple[dict[int, list[int]], dict[int, list[tuple[int, float]]]]:
    """Of each step, which outputs lie at its end, and which inside it, with their θ."""
    ending: dict[int, list[int]] = {}
    inside: dict[int, list[tuple[int, float]]] = {}
    for i, place in enumerate(places):
        if place.theta == 1.0:
            ending.setdefault(place.step, []).append(i)
        else:
            inside.setdefault(place.step, []).append((i, place.theta))
    return ending, inside


class OutputWriter:
    """An on_accept hook: the values (and derivatives, where wanted) at given times, or at every step.

    times: strictly monotone; the first is the start.
    derivatives: also record y'(t).
    every_step: write the end of each accepted step instead.
    at_once: nothing follows the values, so they go into one tensor as they come: kept apart until they are
        stacked, they would be in memory twice.
    """

    def __init__(
        self,
        times: Sequence[float],
        y0: Tensor,
        *,
        derivatives: bool = False,
        every_step: bool = False,
        at_once: bool = False,
    ):
        self.wanted, self.every_step = times, every_step
        self.direction = math.copysign(1.0, times[-1] - times[0])
        self.times: list[float] = [times[0]]
        whole = at_once and not every_step and len(times) > 2 and y0.is_contiguous()
        self.whole = y0.new_empty((len(times), *y0.shape)) if whole else None
        self.values: list[Tensor] = []
        self._keep(y0)
        self.derivatives: list[Tensor] | None = [] if derivatives else None
        self.places: list[Place] = [Place(-1, 1.0)]
        self.n_accepted = 0

    def _keep(self, value: Tensor) -> None:
        """The next value."""
        self.values.append(value if self.whole is None else self.whole[len(self.values)].copy_(value))

    def result(self, further: Sequence[Tensor]) -> Tensor:
        """The values in one tensor, and further ones after them."""
        if self.whole is not None and not further:
            return self.whole
        return torch.stack([*self.values, *further])

    def __call__(self, step: Step, end: float | None = None) -> None:
        """Every output in (t0, t1] of an accepted step, up to `end` where an event ended the solve."""
        if self.derivatives is not None and not self.derivatives:
            self.derivatives.append(step.result.stages.get(0).clone())
        last = step.t1 if end is None else end
        if self.every_step:
            self.write(step, [last])
        else:
            first = stop = len(self.times)
            while stop < len(self.wanted) and (self.wanted[stop] - last) * self.direction <= 0:
                stop += 1
            if stop > first:
                self.write(step, self.wanted[first:stop])
        self.n_accepted += 1

    def upcoming(self, t1: float) -> float | None:
        """The first output that a step to t1 has to write; None where there is none."""
        if self.every_step:
            return t1
        t = self.wanted[len(self.times)] if len(self.times) < len(self.wanted) else None
        return None if t is None or (t - t1) * self.direction > 0 else t

    def write(self, step: Step, times: Sequence[float]) -> None:
        """The outputs at some times in the step."""
        for t, value in zip(times, step.values(times), strict=True):
            self._note(t, value, 1.0 if t == step.t1 else step.theta(t))
            if self.derivatives is not None:
                # A stage is a view into memory that the next attempt overwrites.
                self.derivatives.append(step.derivative(t).clone())

    def _note(self, t: float, value: Tensor, theta: float) -> None:
        self._keep(value)
        self.times.append(t)
        self.places.append(Place(self.n_accepted, theta))

    def reach(self, t1: float, y1: Tensor, *, due: bool) -> None:
        """A step that holds no output, or (due) one, at its end."""
        if due:
            self._note(t1, y1, 1.0)
        self.n_accepted += 1

    def missing(self) -> None:
        """Outputs that an event left out are NaN, and lie nowhere."""
        left = [] if self.every_step else self.wanted[len(self.times) :]
        for t in left:
            self.times.append(t)
            self._keep(torch.full_like(self.values[0], math.nan))
            self.places.append(NOWHERE)
            if self.derivatives is not None:
                self.derivatives.append(torch.zeros_like(self.values[0]))


class Collector:
    """Everything that listens to the loop: outputs, events, dense output, trace, an adjoint's hooks.

    observers: their hooks and on_reject see each accepted, each rejected step.
    field: is asked whether it is random, where the solve is a forward one and hardly comes on.
    last_word: what the last of `limit` attempts says about the solve.
    """

    def __init__(
        self,
        times: Sequence[float],
        z0: Tensor,
        wish: Any,
        observers: Any,
        field: Field,
        limit: int,
        last_word: Callable[[Step], str],
    ):
        self.events, self.trace, self.dense = wish.events, wish.trace, wish.dense
        self.hooks, self.on_reject = observers.hooks, observers.on_reject
        self.left, self.limit, self.last_word, self.field = limit, limit, last_word, field
        self.look = (
            repeats.FIRST if isinstance(field, CountedField) else 0
        )  # after so many attempts; 0: never
        self.writer = OutputWriter(
            times,
            z0,
            derivatives=wish.derivatives,
            every_step=wish.every_step,
            at_once=not (wish.differentiable or around()),
        )
        self.steps: list[Step] = []
        self.end: float | None = None
        self.last: Step | None = None
        self.verdict = ""

    @property
    def only_outputs(self) -> bool:
        """Whether nobody looks at a step but for the values at the outputs."""
        slopes = self.writer.derivatives is not None
        return not (slopes or self.dense or self.hooks or self.events is not None or self.trace is not None)

    def accept(self, step: Step) -> bool:
        """Of each accepted step; True where a terminal event ends the solve."""
        if self.events is not None:
            self.end = self.events.check(step)
        self.writer(step, self.end)
        if self.dense:
            step.complete()
            self.steps.append(step)
        for hook in self.hooks:
            hook(step)
        return self.end is not None

    def attempt(self, step: Step, accepted: bool, dt_next: float) -> None:
        """Of each attempt."""
        self.last = step
        self.left -= 1
        if self.limit - self.left == self.look:
            self._look(step, dt_next)
        if self.left <= 0:
            self.verdict = self.last_word(step)  # now: an accepted step's stages are overwritten
        if self.trace is not None:
            self.trace.attempt(step, accepted, dt_next)
        if not accepted and self.on_reject is not None:
            self.on_reject(step)

    def _look(self, step: Step, dt_next: float) -> None:
        """Asks func twice where the solve hardly comes on. Raises SolverError where func is random."""
        whole = self.writer.wanted
        share = abs(step.t1 - whole[0]) / abs(whole[-1] - whole[0])
        self.look = next_look(self.look, share, self.limit)
        if not self.look and not math.isnan(step.error_ratio):
            refuse_random(self.field, (step.t0, step.times[0]), step.y0, dt_next)

    def random(self) -> str:
        """What to say where func is random; "" where it is not, or was asked before."""
        step = self.last
        if step is None or not self.look:
            return ""
        off = repeats.asked_twice(self.field, step.t0, step.times[0], step.y0)
        return random_sentence(off) if unlike(off, step.y0.dtype) else ""

    def first_bad_entry(self) -> tuple[int, ...] | None:
        """Where the last attempt first was not finite (host reads, only on the way to an error)."""
        if self.last is None or self.last.finite:
            return None
        stages = self.last.result.stages
        for k in [stages.get(i) for i in range(len(self.last.saved))] + [self.last.y1]:
            bad = (~torch.isfinite(k)).nonzero()
            if len(bad):
                return tuple(bad[0].tolist())
        return None
