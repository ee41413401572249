"""The state of one solve with one step size: y, its first stage, and how to attempt a step.

The loop knows times and decisions, the stepper knows tensors. One host read per attempt.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..methods.tableau import Tableau
from ..step.attempt import Here, Limits, Rules, clock_at
from ..step.clocks import ONE
from ..step.controller import PID
from ..step.first_step import first_step
from ..step.interpolant import derivative_weights, look_table, looks, weights
from ..step.norms import Norm, Tolerance, error_ratio
from ..step.runge_kutta import (
    Evaluation,
    Field,
    StageBuffer,
    StageList,
    StepResult,
    dense_stages,
    owned,
    rk_step,
)


@dataclasses.dataclass
class Step:
    """One attempt: from (t0, y0) to (t1, y1), with everything a recorder may want.

    times: at which the stages are evaluated, 0-d (just beside t0 or t1 where f jumps there).
    stages, saved: k_i and what the field saved at each; valid until the next attempt unless the
    stepper keeps stages.  chained: the first stage is the previous accepted step's last.
    error_ratio: NaN-propagating; finite: every stage and y1 are finite numbers.
    watched: in which parts of the step which event fires, where events are watched.
    plain: times are `stage_times(t0, t1)`, so they need not be kept.
    k0: the first stage, f(t0, y0), where it is handed out.  has_saved: so is what the field saved.
    graph: the solve's grad mode. Stages that are evaluated late are kept and used by outputs, so they
    are evaluated under it whoever asks first: the search for an event asks without a graph.
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
    watched: list[float] | None = None
    plain: bool = False
    graph: bool = dataclasses.field(default_factory=torch.is_grad_enabled)
    k0: Tensor | None = None
    has_saved: bool = True
    _dense: bool = False

    @property
    def dt(self) -> float:
        """Signed length."""
        return self.t1 - self.t0

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

    def complete(self) -> None:
        """Evaluates everything the dense output will need."""
        self._ensure_dense()
        self._ensure_end()

    def value(self, t: float) -> Tensor:
        """y(t) for t in the step; exactly y1 at t1."""
        return self.y1 if t == self.t1 else self.at(self.theta(t))

    def at(self, theta: float) -> Tensor:
        """y(t0 + θ dt)."""
        self._ensure_dense()
        return self.result.stages.combine(self.y0, weights(self.result.stages.numeric, theta))

    def looks(self, *, closer: bool) -> Iterator[tuple[float, Tensor]]:
        """Times and states at the looks inside the step.

        closer: on the dense output; else without an evaluation of its further stages.
        """
        if closer or self.tableau.dense_needs_end:
            self._ensure_end()
        if closer:
            self._ensure_dense()
        table = look_table(self.tableau, self.y0.dtype, self.y0.device, closer)
        for theta, row in zip(looks(), table.unbind(), strict=True):
            yield self.t0 + theta * self.dt, self.result.stages.at(self.y0, row)

    def derivative(self, t: float) -> Tensor:
        """y'(t) for t in the step; f(t1, y1) at t1."""
        if t == self.t1:
            self._ensure_end()
            return self.last[0]
        self._ensure_dense()
        numeric = self.result.stages.numeric
        return self.result.stages.combine(None, derivative_weights(numeric, self.theta(t)))


def clock(t: float, like: Tensor) -> Tensor:
    """t as the field wants it: 0-d, of the state's real dtype, made on the device (no copy to it)."""
    return torch.full((), t, dtype=like.dtype, device=like.device)


def host_times(t0: float, t1: float, tableau: Tableau) -> list[float]:
    """t0 + c_i dt; exactly t1 where c_i = 1."""
    dt = t1 - t0
    return [t1 if c == 1 else t0 + float(c) * dt for c in tableau.nodes()]


def stage_times(t0: float, t1: float, tableau: Tableau, like: Tensor) -> list[Tensor]:
    """The same as 0-d tensors, as the field wants them."""
    if like.device.type == "cpu":  # elsewhere this would be a copy to the device
        return list(torch.tensor(host_times(t0, t1, tableau), dtype=like.dtype, device=like.device).unbind())
    return [clock(t, like) for t in host_times(t0, t1, tableau)]


class RungeKuttaStepper:
    """An explicit Runge–Kutta method on one state with one step size.

    field: counts and checks itself.  tolerance None: fixed steps, no error is estimated.
    keep_stages: each accepted step owns its stages (dense output, interpolating adjoint).
    differentiable: out of place, under the caller's grad mode.
    """

    def __init__(
        self,
        field: Field,
        tableau: Tableau,
        y0: Tensor,
        tolerance: Tolerance | None,
        norm: Norm,
        *,
        keep_stages: bool = False,
        differentiable: bool = False,
    ):
        self.field, self.tableau, self.y = owned(field) if differentiable else field, tableau, y0
        self.first_field = owned(field)  # a first stage outlives the next evaluation, the probe's
        self.tolerance, self.norm, self.keep = tolerance, norm, keep_stages
        self.differentiable = differentiable
        self.numeric = tableau.numeric(y0.dtype, y0.device)
        self.first: Evaluation | None = None
        self.first_time: Tensor | None = None
        self.beside_jump = False
        self.chained = False
        self.direction = 1.0
        self.judge: Callable[[Step], Tensor] | None = None
        self.watch: Callable[[Step], Tensor] | None = None
        self._stages: StageBuffer | StageList | None = None

    def restart(self, t: float, *, after_jump: bool = False) -> None:
        """Evaluates the first stage anew at t (just after t where f jumps there)."""
        time = clock(t, self.y)
        if after_jump:
            time = torch.nextafter(time, torch.full_like(time, math.inf * self.direction))
        self._announce([t])
        self.beside_jump = after_jump
        self.first, self.first_time, self.chained = self.first_field(time, self.y), time, False

    def _announce(self, times: list[float]) -> None:
        """Tells a field that wants times as floats when its next calls will be."""
        prepare = getattr(self.field, "prepare", None)
        if prepare is not None:
            prepare(times)

    def initial_step(self, t0: float, end: float, *, before_jump: bool = False) -> float:
        """|dt| to begin with (HNW II.4); one evaluation, one host read."""
        assert self.first is not None
        assert self.tolerance is not None
        start, last, one = (
            torch.tensor([t0, end, self.direction], dtype=torch.float64, device="cpu")
            .to(self.y.device, non_blocking=True)
            .unbind()
        )
        here = Here(clock_at(start, start), self.y, self.first[0])
        rules = Rules(self.tableau, self.numeric, self.norm, PID(), ONE)
        limits = Limits(last, last, one, one)

        def seen_at(time: Tensor) -> Tensor:
            seen = time.to(self.y.dtype)
            back = torch.nextafter(seen, torch.full_like(seen, -self.direction * math.inf))
            return torch.where(seen == end, back, seen) if before_jump else seen

        return float(first_step(rules, self.field, limits, self.tolerance, here, seen_at))  # host read

    def attempt(self, t0: float, t1: float, *, before_jump: bool = False, evaluate_end: bool = True) -> Step:
        """Tries the step from t0 to t1; nothing changes until `accept`.

        before_jump: f jumps at t1, so the last stages are evaluated just before t1.
        """
        times = stage_times(t0, t1, self.tableau, self.y)
        if before_jump:
            back = torch.full_like(times[0], -math.inf * self.direction)
            nodes = self.tableau.nodes()
            times = [torch.nextafter(t, back) if c == 1 else t for t, c in zip(times, nodes, strict=True)]
        if self.first is None:
            self.restart(t0)
        assert self.first is not None
        if self.first_time is not None:
            times[0] = self.first_time
        stages = self._fresh_stages(t1 - t0)
        self._announce(host_times(t0, t1, self.tableau)[1:])
        result = rk_step(
            self.field, self.y, self.first, times, self.tableau, stages, evaluate_end=evaluate_end
        )
        step = Step(t0, t1, self.y, result, self.tableau, self.field, self.chained, times)
        step.plain = not (before_jump or (self.beside_jump and self.first_time is not None))
        if self.tolerance is not None:
            self._judge(step)
        return step

    def _fresh_stages(self, dt: float) -> StageBuffer | StageList:
        if self.differentiable:
            return StageList(self.numeric, dt)
        if isinstance(self._stages, StageBuffer):
            return self._stages.again(dt)
        self._stages = StageBuffer(self.numeric, self.y, dt)
        return self._stages

    def _judge(self, step: Step) -> None:
        """Fills error_ratio and finite, with one host read."""
        assert self.tolerance is not None
        with torch.no_grad():
            result = step.result
            errors = result.stages.errors()
            probe = result.stages.probe(errors[0]) + step.y1.sum()
            if self.judge is not None:
                ratio = self.judge(step)
            else:
                ratio = error_ratio(errors, step.y0, step.y1, self.tolerance, self.norm)
            reads = torch.stack((ratio.to(probe), probe))
            if self.watch is not None:
                reads = torch.cat((reads.double(), self.watch(step)))
            step.error_ratio, probed, *watched = reads.tolist()  # host read
            step.watched = watched if self.watch is not None else None
        if not (math.isfinite(probed) and math.isfinite(step.error_ratio)):
            self._examine(step)

    def _examine(self, step: Step) -> None:
        """Something overflowed or is not finite: look at every entry (only then: more host reads)."""
        n = self.tableau.n_stages
        fine = torch.isfinite(step.y1).all()
        for i in range(n):
            fine = fine & torch.isfinite(step.result.stages.get(i)).all()
        step.finite = bool(fine)  # host read

    def accept(self, step: Step) -> None:
        """Moves on to the step's end."""
        self.y = step.y1
        if len(step.saved) < self.tableau.n_stages:
            self.first, self.first_time, self.chained = None, None, False
            return
        k, saved = step.last
        if isinstance(self._stages, StageBuffer):
            if self.keep:
                self._stages = None
            else:
                # A rejected attempt overwrites the last stage, so it moves to the first's place.
                self._stages.put(0, k)
                k = self._stages.get(0)
        self.first, self.first_time, self.chained = (k, saved), None, True
